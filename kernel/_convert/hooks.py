"""Types -> the closures that read their values: the half of `payload` that runs once for each handler.

A hook takes a value and its type, as cattrs calls it, and returns what the value becomes or raises. cattrs generates
the code that fills classes; everything else is read by a few closures.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Any, Final, TypeAlias, cast, final, get_args
from uuid import UUID

import cattrs
from cattrs.gen import make_dict_structure_fn

from .._core.words import MAX_TEXT, cut
from .annotations import (
    ARRAYS,
    TABLES,
    UNIONS,
    array_items,
    describe,
    is_class_with_fields,
    is_enum,
    origin_of,
    plain_type,
)
from .strict import PLAIN, WrongValueError, expected, is_array, is_table, read_enum, read_literal

MAX_PROBLEMS: Final = 20
"""Problems that an error lists at most."""
_OBJECT: Final = "an object"
_ONLY_STRINGS: Final = frozenset({str})

Hook: TypeAlias = Callable[[object, object], object]
"""Value and its type -> what it becomes. Most do not look at the type."""
At: TypeAlias = tuple[str | int, ...]
Part: TypeAlias = tuple[str | int, Hook, object, object]
"""Where in a value, what reads it, the part itself and its type."""


class WrongPartsError(ValueError):
    """Some parts of a value are wrong."""

    def __init__(self, parts: Iterable[tuple[At, Exception]]) -> None:
        self.parts = tuple(parts)
        super().__init__(f"{len(self.parts)} problems")


@final
class Compiler(cattrs.BaseConverter):
    """Makes the hook of each type once. cattrs asks it for the hooks of the fields of a class.

    Not a `Converter`, which is five times as dear to make: there is one compiler for each handler.
    """

    def __init__(self) -> None:
        super().__init__(detailed_validation=True)
        self.is_recursive = False
        """Whether a type was found inside itself."""
        self._hooks: dict[object, Hook] = {}
        self._open: set[object] = set()

    def get_structure_hook(
        self,
        type: Any,  # noqa: A002, ANN401 -- as in cattrs
        cache_result: bool = True,  # noqa: FBT001, FBT002 -- as in cattrs
    ) -> Hook:
        """Return the hook of a type; of one that is just being made, a hook that looks it up when it is called."""
        annotation = plain_type(type)
        if annotation in self._open:
            self.is_recursive = True
            return lambda value, _: self._hooks[annotation](value, annotation)
        if annotation not in self._hooks:
            self._open.add(annotation)
            self._hooks[annotation] = self._make(annotation)
            self._open.remove(annotation)
        return self._hooks[annotation]

    def structure(self, obj: Any, cl: Any) -> Any:  # noqa: ANN401 -- as in cattrs
        """Convert a value; cattrs calls it for fields without a type."""
        return obj if cl is None else self.get_structure_hook(cl)(obj, cl)

    def _make(self, annotation: object) -> Hook:
        origin, arguments = origin_of(annotation), get_args(annotation)
        if origin in UNIONS:
            return self._union(annotation, arguments)
        if origin in ARRAYS:
            return self._array(origin, arguments)
        if origin in TABLES:
            return self._mapping(arguments)
        return self._filled(annotation, origin) or _scalar(annotation, origin)

    def _filled(self, annotation: Any, origin: object) -> Hook | None:  # noqa: ANN401 -- as in cattrs
        """Return the hook of a type with named fields, whose code cattrs generates."""
        if is_class_with_fields(origin):
            fill = make_dict_structure_fn(annotation, self, _cattrs_use_alias=True, _cattrs_forbid_extra_keys=False)
            return _of_class(cast("type[object]", origin), fill)
        return self._typed_dict(cast("type[object]", origin)) if typing.is_typeddict(origin) else None

    def _typed_dict(self, cls: type[object]) -> Hook:
        """Return the hook of a `TypedDict`.

        Not cattrs', which takes `NotRequired` in an annotation that is a string for required, as Python does.
        """
        hints = typing.get_type_hints(cls, include_extras=True)
        by_default = cast("Any", cls).__required_keys__
        required = {key for key, hint in hints.items() if _is_required(hint, by_default=key in by_default)}
        hooks = [(key, self.get_structure_hook(hint), hint) for key, hint in hints.items()]

        def read(value: object, _: object) -> object:
            if not is_table(value):
                raise expected(_OBJECT, value)
            parts: list[Part] = [
                (key, hook, value[key], hint) if key in value else (key, _missing, None, None)
                for key, hook, hint in hooks
                if key in value or key in required
            ]
            try:
                return {key: hook(part, hint) for key, hook, part, hint in parts}
            except Exception as exc:  # noqa: BLE001 -- looked at again, part by part
                raise _why(exc, parts) from None

        return read

    def _union(self, annotation: object, options: tuple[object, ...]) -> Hook:
        hooks = [(option, self.get_structure_hook(option)) for option in options if option is not type(None)]
        is_optional = len(hooks) < len(options)
        if is_optional and len(hooks) == 1:
            [(option, hook)] = hooks
            return lambda value, _: None if value is None else hook(value, option)
        own = frozenset(option for option, _ in hooks)

        def read(value: object, _: object) -> object:
            if type(value) in own or (is_optional and value is None):
                return value
            return _try_options(value, annotation, hooks)

        return read

    def _array(self, origin: object, arguments: tuple[object, ...]) -> Hook:
        make = ARRAYS[origin]
        if fixed := array_items(arguments, origin):
            return _fixed_array([(self.get_structure_hook(item), item) for item in fixed])
        item = arguments[0] if arguments else object
        hook = self.get_structure_hook(item)

        def read(value: object, _: object) -> object:
            if not is_array(value):
                raise expected("an array", value, table=_OBJECT)
            try:
                return make([hook(part, item) for part in value])
            except Exception as exc:  # noqa: BLE001 -- looked at again, part by part
                raise _why(exc, ((index, hook, part, item) for index, part in enumerate(value))) from None

        return read

    def _mapping(self, arguments: tuple[object, ...]) -> Hook:
        key_type, item_type = arguments or (object, object)
        key_hook, item_hook = self.get_structure_hook(key_type), self.get_structure_hook(item_type)
        takes_any = key_type is str and item_type in {object, Any}

        def read(value: object, _: object) -> object:
            if not is_table(value):
                raise expected(_OBJECT, value)
            if takes_any and set(map(type, value)) <= _ONLY_STRINGS:
                return dict(value)
            try:
                return {key_hook(key, key_type): item_hook(item, item_type) for key, item in value.items()}
            except Exception as exc:  # noqa: BLE001 -- looked at again, part by part
                keys: Iterator[Part] = ((str(key), key_hook, key, key_type) for key in value)
                items: Iterator[Part] = ((str(key), item_hook, item, item_type) for key, item in value.items())
                raise _why(exc, chain(keys, items)) from None

        return read


def _why(error: Exception, parts: Iterable[Part]) -> Exception:
    """Return everything that is wrong with the parts of a value, or the error itself if no single part is at fault."""
    wrong: list[tuple[At, Exception]] = []
    for step, hook, part, annotation in parts:
        try:
            hook(part, annotation)
        except Exception as exc:  # noqa: BLE001 -- kept
            wrong.append(((step,), exc))
            if len(wrong) > MAX_PROBLEMS:
                break
    return WrongPartsError(wrong) if wrong else error


def _is_required(hint: object, *, by_default: bool) -> bool:
    form = typing.get_origin(hint)
    return form is typing.Required or (by_default and form is not typing.NotRequired)


def _missing(value: object, annotation: object) -> object:
    """Stand in for the hook of a key that is required and absent."""
    raise WrongValueError("is missing")


def _fixed_array(items: Sequence[tuple[Hook, object]]) -> Hook:
    def read(value: object, _: object) -> object:
        if not is_array(value):
            raise expected("an array", value)
        if len(value) != len(items):
            raise WrongValueError(f"must be an array of {len(items)}, got {len(value)}")
        try:
            return tuple(hook(part, item) for (hook, item), part in zip(items, value, strict=True))
        except Exception as exc:  # noqa: BLE001 -- looked at again, part by part
            parts = [
                (index, hook, part, item) for index, ((hook, item), part) in enumerate(zip(items, value, strict=True))
            ]
            raise _why(exc, parts) from None

    return read


def _of_class(cls: type[object], fill: Callable[..., object]) -> Hook:
    def read(value: object, _: object) -> object:
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise expected(_OBJECT, value)
        return fill(value, cls)

    return read


def _try_options(value: object, annotation: object, hooks: Sequence[tuple[object, Hook]]) -> object:
    """Return what the best option of a union makes: the first, but of classes the one that knows most keys."""
    made: list[tuple[int, object]] = []
    errors: list[tuple[object, Exception]] = []
    for option, hook in hooks:
        try:
            made.append((_known_keys(value, option), hook(value, option)))
        except Exception as exc:  # noqa: BLE001 -- kept
            errors.append((option, exc))
    if made:
        return max(made, key=lambda pair: pair[0])[1]
    fitting = [exc for option, exc in errors if is_table(value) and describe(option, table=_OBJECT) == _OBJECT]
    if len(fitting) == 1:
        raise fitting[0]
    raise expected(describe(annotation, table=_OBJECT), value, table=_OBJECT)


def _known_keys(value: object, option: object) -> int:
    origin = cast("Any", origin_of(option))
    if not is_table(value) or not is_class_with_fields(origin):
        return 0
    return len(value.keys() & inspect.signature(origin).parameters.keys())


def _scalar(annotation: object, origin: object) -> Hook:
    if origin in _FIXED:
        return _FIXED[origin]
    if origin in _FROM_TEXT:
        return _from_text(origin)
    if origin in PLAIN:
        read = PLAIN[origin]
        return lambda value, _: read(value)
    if origin is typing.Literal:
        options = get_args(annotation)
        return lambda value, _: read_literal(options, value)
    return _of_type(origin)


def _of_type(cls: object) -> Hook:
    if is_enum(cls):
        return lambda value, _: read_enum(cls, value)
    if callable(validate := getattr(cls, "model_validate", None)):
        return lambda value, _: _self_validated(validate, value)
    if isinstance(cls, type):
        return lambda value, _: _instance(value, cls)
    raise TypeError(f"{cls!r} is not understood")


def _pass(value: object, _: object) -> object:
    return value


def _null(value: object, _: object) -> object:
    if value is not None:
        raise expected("null", value, table=_OBJECT)
    return None


_FIXED: Final[Mapping[object, Hook]] = {Any: _pass, object: _pass, None: _null, type(None): _null}


def _instance(value: object, cls: type[object]) -> object:
    if isinstance(value, cls):
        return value
    raise expected(describe(cls), value, table=_OBJECT)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError from None


_FROM_TEXT: Final[Mapping[object, Callable[[str], object]]] = {
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    time: time.fromisoformat,
    Decimal: _decimal,
    UUID: UUID,
}
"""Types that messages carry as strings."""


def _from_text(cls: object) -> Hook:
    parse = _FROM_TEXT[cls]

    def read(value: object, _: object) -> object:
        if isinstance(value, str):
            try:
                return parse(value)
            except ValueError:
                raise expected(describe(cls), value) from None
        if cls is Decimal and isinstance(value, int) and not isinstance(value, bool):
            return Decimal(value)
        return PLAIN[cls](value) if cls in PLAIN else _instance(value, cast("type[object]", cls))

    return read


def _self_validated(validate: Callable[[object], object], value: object) -> object:
    """Call a model's own validation; its errors are asked for places and texts, which hold no payload."""
    try:
        return validate(value)
    except ValueError as exc:
        errors: object = getattr(exc, "errors", None)
        if not callable(errors):
            raise
        found = cast("list[dict[str, Any]]", errors())
    raise WrongPartsError((tuple(error["loc"]), WrongValueError(cut(error["msg"], MAX_TEXT))) for error in found)
