"""Types with named fields: attrs classes, dataclasses, `TypedDict` and `NamedTuple`, as a node of one kind.

cattrs writes the code that fills attrs classes and dataclasses from messages, which is twice as quick as a loop over
their fields; everything else of a class is here.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast, final, get_args, get_origin

import attrs

from .._core.words import unknown
from .annotations import NotUnderstoodError, hints_of, loaded, origin_of, qualifiers
from .leaves import Read, Schema, written
from .nodes import Node, built
from .strict import WrongValueError, is_array, is_table
from .walk import WRONG, At, Book, Policy, Walk, described

if TYPE_CHECKING:
    from cattrs import BaseConverter

_NOTHING: Final = attrs.NOTHING
_RESERVED: Final = frozenset({"cl", "converter"})
"""Names that the parameters of cattrs' function have themselves."""


@final
class Field:
    """One field of a class."""

    __slots__ = ("argument", "attribute", "default", "is_required", "key", "type")

    def __init__(
        self,
        key: str,
        type_: object,
        *,
        argument: str = "",
        default: object = _NOTHING,
        attribute: attrs.Attribute[Any] | None = None,
        is_required: bool | None = None,
    ) -> None:
        self.key = key
        self.type = type_
        self.argument = argument or key
        """Its name as a parameter of the class."""
        self.default = default
        self.is_required = default is _NOTHING if is_required is None else is_required
        self.attribute = attribute

    @property
    def name(self) -> str:
        """Its name as an attribute of an instance."""
        return self.attribute.name if self.attribute else self.key


def fields_of(annotation: object) -> list[Field] | None:
    """Return the fields of a class by its kind; None if it is of no kind that has any.

    Raises:
        NotUnderstoodError: if the types of its fields cannot be resolved, or it takes more than fields.
    """
    cls = origin_of(annotation)
    if not isinstance(cls, type):
        return None
    for matches, read in _KINDS:
        if matches(cls):
            return list(read(cast("Any", cls), _hints(cls, get_args(annotation))))
    return None


@functools.lru_cache(maxsize=1024)
def _hints_of(cls: type[object]) -> dict[str, Any]:
    return hints_of(cls)


def _hints(cls: type[object], arguments: tuple[object, ...]) -> dict[str, object]:
    """Return the types of the fields of a class, with what stands for its parameters put in."""
    given: dict[object, object] = dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=False))
    for base in getattr(cls, "__orig_bases__", ()):
        given |= dict(zip(getattr(get_origin(base), "__parameters__", ()), get_args(base), strict=False))
    return {name: _filled(hint, given) if given else hint for name, hint in _hints_of(cast("Any", cls)).items()}


def _filled(hint: object, given: Mapping[object, object]) -> object:
    while isinstance(hint, typing.TypeVar) and hint in given and given[hint] is not hint:
        hint = given[hint]
    parameters: tuple[object, ...] = getattr(hint, "__parameters__", ())
    filled = tuple(_filled(one, given) for one in parameters)
    return cast("Any", hint)[filled] if parameters and get_args(hint) else hint


def _of_attrs(cls: type[Any], hints: Mapping[str, object]) -> Iterator[Field]:
    for field in attrs.fields(cls):
        if field.init:
            key = field.alias or field.name
            type_ = hints.get(field.name, object if field.type is None else field.type)
            yield Field(key, type_, default=field.default, attribute=field)


def _of_dataclass(cls: type[Any], hints: Mapping[str, object]) -> Iterator[Field]:
    if any(isinstance(hint, dataclasses.InitVar) for hint in hints.values()):
        raise NotUnderstoodError(f"{cls.__qualname__} has an InitVar, which is no field")
    for field in dataclasses.fields(cls):
        if field.init:
            default = field.default if field.default_factory is dataclasses.MISSING else None
            yield Field(field.name, hints[field.name], default=_NOTHING if default is dataclasses.MISSING else default)


def _of_typed_dict(cls: type[Any], hints: Mapping[str, object]) -> Iterator[Field]:
    """Yield the keys of a `TypedDict`; Python itself takes `NotRequired` in a string for required."""
    for key, hint in hints.items():
        around = qualifiers(hint)
        is_required = "Required" in around or (key in cls.__required_keys__ and "NotRequired" not in around)
        yield Field(key, hint, is_required=is_required)


def _of_named_tuple(cls: type[Any], hints: Mapping[str, object]) -> Iterator[Field]:
    for name in cls._fields:
        yield Field(name, hints.get(name, object), default=cls._field_defaults.get(name, _NOTHING))


def is_typed_dict(cls: type[object]) -> bool:
    """Return whether a type is a `TypedDict` of whichever module."""
    return typing.is_typeddict(cls) or bool((te := loaded("typing_extensions")) and te.is_typeddict(cls))


def is_named_tuple(cls: type[object]) -> bool:
    """Return whether a type is a `NamedTuple`."""
    return hasattr(cls, "_fields") and issubclass(cls, tuple)


_KINDS: Final[tuple[tuple[Callable[[type[object]], object], Callable[..., Iterator[Field]]], ...]] = (
    (attrs.has, _of_attrs),
    (dataclasses.is_dataclass, _of_dataclass),
    (is_typed_dict, _of_typed_dict),
    (is_named_tuple, _of_named_tuple),
)


class Fields(Node):
    """A type with named fields."""

    kind = "table"

    def __init__(self, annotation: object, fields: Mapping[str, tuple[Field, Node]], policy: Policy) -> None:
        self.cls = cast("type[Any]", origin_of(annotation))
        self.fields = fields
        self._as_array = is_named_tuple(self.cls)
        self._passes = not is_typed_dict(self.cls)
        self._looks_inside = policy.is_outgoing and self._passes
        fill = self._fill if policy.is_strict or policy.is_outgoing else self._filler(annotation)
        super().__init__(policy.table, self._reader(fill), {}, rank=3)
        self.name = self.cls.__name__

    # --- quickly ---

    def _reader(self, fill: Read) -> Read:
        cls, looks_inside = self.cls, self._looks_inside
        if not self._passes:
            return fill

        def read(value: object, _: object = None) -> object:
            if type(value) is not dict:  # most are
                if isinstance(value, cls):
                    return self._looked_into(value) if looks_inside else value
                if not isinstance(value, Mapping):
                    return self._read_array(value)
            return fill(value, cls)

        return read

    def _filler(self, annotation: object) -> Read:
        names = {field.name for field, _ in self.fields.values()}
        by_cattrs = attrs.has(self.cls) or dataclasses.is_dataclass(self.cls)
        if not by_cattrs or names & _RESERVED or any(name.startswith("_cattrs") for name in names):
            return self._fill
        from cattrs.gen import make_dict_structure_fn, override  # noqa: PLC0415  dear, and not for configurations

        hooks = {
            field.name: override(struct_hook=cast("Any", node.read), rename=field.key)
            for field, node in self.fields.values()
        }
        try:
            return make_dict_structure_fn(
                cast("Any", annotation),
                _converter(),
                _cattrs_forbid_extra_keys=False,
                _cattrs_detailed_validation=False,
                **cast("Any", hooks),
            )
        except Exception:  # noqa: BLE001  a type that it does not know; the loop does
            return self._fill

    def _fill(self, value: object, _: object = None) -> object:
        if not is_table(value):
            raise WrongValueError
        given: dict[str, object] = {}
        for key, (field, node) in self.fields.items():
            if key in value:
                given[field.argument] = node.read(value[key])
            elif field.is_required:
                raise WrongValueError
        return self.cls(**given)

    def _looked_into(self, value: object) -> object:
        """Return an instance, each of whose fields is of its type."""
        for field, node in self.fields.values():
            node.read(getattr(value, field.name))
        return value

    def _read_array(self, value: object) -> object:
        if not self._as_array or not is_array(value) or len(value) > len(self.fields):
            raise WrongValueError
        nodes = [node for _, node in self.fields.values()]
        return self.cls(*[node.read(part) for node, part in zip(nodes, value, strict=False)])

    def has_hash(self) -> bool:
        return self._passes and self.cls.__hash__ is not None

    # --- with explanations ---

    def explain(self, value: object, at: At, walk: Walk) -> object:
        if self._passes and isinstance(value, self.cls):
            return self._explain_inside(value, at, walk) if self._looks_inside else value
        if self._as_array and is_array(value):
            if len(value) > len(self.fields):
                return walk.wrong(at, f"must be an array of {len(self.fields)}, got {len(value)}")
            value = dict(zip(self.fields, value, strict=False))
        if not is_table(value):
            return walk.refuse(at, self.words(), value)
        is_wrong = strangers(value, self.fields, at, walk)
        values: dict[str, object] = {}
        for key, (field, node) in self.fields.items():
            if key in value:
                values[key] = node.explain(value[key], (*at, key), walk)
            elif field.is_required:
                must_be = f"; it must be {node.words()}" if walk.policy.is_strict else ""
                values[key] = walk.wrong((*at, key), f"is missing{must_be}")
        good = {key: made for key, made in values.items() if made is not WRONG}
        if is_wrong or len(good) < len(values):
            self._report_refused(good, at, walk)
            return WRONG
        return self._build(good, at, walk)

    def _explain_inside(self, value: object, at: At, walk: Walk) -> object:
        made = [
            node.explain(getattr(value, field.name), (*at, key), walk) for key, (field, node) in self.fields.items()
        ]
        return WRONG if any(one is WRONG for one in made) else value

    def _build(self, values: Mapping[str, object], at: At, walk: Walk) -> object:
        """Call the class; if it refuses, find out which fields' validators do."""
        given = {self.fields[key][0].argument: value for key, value in values.items()}
        try:
            return self.cls(**given)
        except Exception:  # noqa: BLE001  validators are somebody else's; whatever they raise is a problem
            if self._report_refused(values, at, walk):
                return WRONG
        return built(lambda given: self.cls(**given), given, at, walk)

    def _report_refused(self, values: Mapping[str, object], at: At, walk: Walk) -> bool:
        """Run the validators of single fields of attrs, and report those that refuse.

        They get an object that is filled as far as there are values, since attrs stops at the first that refuses.
        """
        known = [(field.attribute, key) for key, (field, _) in self.fields.items() if field.attribute and key in values]
        if not known:
            return False
        draft = object.__new__(self.cls)
        for attribute, key in known:
            object.__setattr__(draft, attribute.name, _converted(attribute, values[key]))
        is_wrong = False
        for attribute, key in known:
            if attribute.validator is not None:
                try:
                    attribute.validator(draft, attribute, getattr(draft, attribute.name))
                except AttributeError:  # it looked at a field that is itself wrong or left to its default
                    continue
                except Exception as error:  # noqa: BLE001  as above
                    walk.failed((*at, key), described(error))
                    is_wrong = True
        return is_wrong

    # --- as a schema ---

    def schema(self, book: Book) -> Schema:
        notes = book.notes(self.cls)
        properties: Schema = {}
        for key, (field, node) in self.fields.items():
            note = notes.get(field.name)
            properties[key] = _field_schema(field, node, book) | ({"description": note} if note else {})
        required = [key for key, (field, _) in self.fields.items() if field.is_required]
        schema: Schema = {"type": "object", "properties": properties}
        schema |= {"additionalProperties": False} if book.policy.is_strict else {}
        schema |= {"required": required} if required else {}
        return {"anyOf": [_array_schema(properties, required), schema]} if self._as_array else schema

    def parts(self) -> Iterator[Node]:
        for _, node in self.fields.values():
            yield node


@functools.cache
def _converter() -> BaseConverter:
    """Return what cattrs' function wants to be given; there is one, since it takes 0.7 ms to make."""
    from cattrs import BaseConverter  # noqa: PLC0415  as above

    return BaseConverter()


def strangers(value: Mapping[str, object], fields: Mapping[str, object], at: At, walk: Walk) -> bool:
    """Report the keys of a table that are no fields, where they matter; return whether there are any."""
    if not walk.policy.is_strict:
        return False
    unwanted = [key for key in value if key not in fields]
    for key in unwanted:
        walk.report((*at, key), unknown("key", str(key), fields, () if at else walk.also))
    return bool(unwanted)


def _converted(field: attrs.Attribute[Any], value: object) -> object:
    converter: object = cast("Any", field).converter
    if not callable(converter) or isinstance(converter, attrs.Converter):
        return value
    try:
        return converter(value)
    except Exception:  # noqa: BLE001  building the object reports it
        return value


def _field_schema(field: Field, node: Node, book: Book) -> Schema:
    schema = book.of(node)
    if field.attribute is not None:
        schema = book.validated(schema, field.attribute.validator, field.attribute)
    default = None if field.default is _NOTHING else _plain(field.default)
    return schema if default is None else schema | {"default": default}


def _array_schema(properties: Schema, required: Sequence[str]) -> Schema:
    """Return the schema of the array that a `NamedTuple` is written as."""
    items = {"prefixItems": list(properties.values())} if properties else {}
    return {"type": "array", **items, "minItems": len(required), "maxItems": len(properties)}


def _plain(value: object) -> object:
    """Return a default as JSON has it, or None if it has no such value."""
    if isinstance(value, tuple | list):
        items = [_plain(item) for item in cast("list[object]", value)]
        return None if None in items else items
    try:
        return written(value.value if isinstance(value, enum.Enum) else value)
    except TypeError:
        return None
