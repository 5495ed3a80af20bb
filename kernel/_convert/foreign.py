"""Types that validate themselves: models of pydantic, `Struct`s of msgspec, and whatever has `model_validate`.

Neither library is imported: who annotates with a type of theirs has done so. What is asked of them here is to read a
value, to say where it is wrong, and which keys they know, for those that may not be there and for unions.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias, cast

from .._core.secret import Secret
from .._core.words import MAX_TEXT, cut
from .annotations import loaded, origin_of
from .classes import strangers
from .leaves import Schema
from .nodes import Node
from .strict import is_array, is_table
from .walk import WRONG, At, Book, Policy, Walk, described

_PLACE: Final = r"(.*?)(?: - at `(.*)`)?"
_STEP: Final = r"\.(\w+)|\[(\d+)\]"
_MANY: Final = 50
_EXTRA: Final = "Extra inputs are not permitted"
"""What pydantic says of keys that have been reported already, and better."""

Validate: TypeAlias = Callable[[object], object]


class Foreign(Node):
    """A type whose own code reads its values."""

    def __init__(
        self, cls: object, validate: Validate, keys: Mapping[str, tuple[object, bool]] | None, schema: Callable[[], Any]
    ) -> None:
        def read(value: object, _: object = None) -> object:
            return validate(value)

        super().__init__("", read, {}, rank=3)
        self.keys = keys
        """Keys that it knows, with the type of each and whether it must be there; None if it does not say."""
        self.name = getattr(cls, "__name__", "value")
        self.kind = "scalar" if keys is None else "table"
        self._make_schema = schema

    def words(self) -> str:
        return f"what {self.name} takes"

    def explain(self, value: object, at: At, walk: Walk) -> object:
        is_strange = self.keys is not None and is_table(value) and strangers(value, self.keys, at, walk)
        try:
            made = self.read(_with_secrets(value) if walk.policy.is_strict else value)
        except Exception as error:  # noqa: BLE001  of the model
            for place, text in _faults(error):
                if not is_strange or text != _EXTRA:
                    walk.failed((*at, *place), text)
            return WRONG
        return WRONG if is_strange else made

    def schema(self, book: Book) -> Schema:
        schema: Schema = dict(self._make_schema())
        book.definitions |= schema.pop("$defs", {})
        return schema


def foreign(annotation: Any, policy: Policy) -> Foreign | None:  # noqa: ANN401  a type
    """Return the node of a type that validates itself; None if it does not.

    Raises:
        Exception: whatever its library raises for a type that it cannot read.
    """
    cls: Any = origin_of(annotation)
    if hasattr(cls, "__struct_config__"):
        return _struct(annotation, cls)
    if (pydantic := loaded("pydantic")) is not None and hasattr(cls, "__get_pydantic_core_schema__"):
        return adapted(annotation, policy)
    if pydantic is not None and hasattr(cls, "__pydantic_validator__"):
        return adapted(annotation, policy)
    validate = getattr(cls, "model_validate", None)
    return Foreign(cls, validate, None, dict) if callable(validate) else None


def adapted(annotation: object, policy: Policy) -> Foreign:
    """Return the node of a type that pydantic reads.

    Raises:
        Exception: whatever pydantic raises for a type that it cannot read.
    """
    adapter = loaded("pydantic").TypeAdapter(annotation)
    cls: Any = origin_of(annotation)
    fields: Mapping[str, Any] | None = getattr(cls, "__pydantic_fields__", None)
    config: Mapping[str, object] = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", {})
    options: dict[str, object] = {}
    if (
        policy.is_strict
        and config.get("extra") != "allow"
        and "extra" in inspect.signature(adapter.validate_python).parameters
    ):
        options["extra"] = "forbid"
    keys = {key: known for name in fields or () for key, known in _keys(name, (fields or {})[name], config)}
    return Foreign(
        cls,
        lambda value: adapter.validate_python(value, **options),
        None if fields is None or config.get("extra") == "allow" else keys,
        lambda: adapter.json_schema(ref_template="#/$defs/{model}"),
    )


def _keys(name: str, field: Any, config: Mapping[str, object]) -> Iterator[tuple[str, tuple[object, bool]]]:  # noqa: ANN401
    alias: Any = field.validation_alias or field.alias
    choices = getattr(alias, "choices", [alias])
    keys = [str(choice if isinstance(choice, str) else choice.path[0]) for choice in choices if choice is not None]
    by_name = not keys or config.get("populate_by_name") or config.get("validate_by_name")
    is_required = field.is_required() and len(keys) + bool(by_name) == 1
    for key in (*keys, *([name] if by_name else ())):
        yield key, (field.annotation, is_required)


def _struct(annotation: object, cls: Any) -> Foreign:  # noqa: ANN401  a `Struct`
    msgspec = loaded("msgspec")
    config = cls.__struct_config__
    keys: dict[str, tuple[object, bool]] = {
        field.encode_name: (field.type, field.required) for field in msgspec.structs.fields(cls)
    }
    if config.tag is not None:
        keys[config.tag_field] = (cast("Any", typing.Literal)[config.tag], False)

    def validate(value: object) -> object:
        return msgspec.convert(value, type=annotation, str_keys=True)

    return Foreign(cls, validate, None if config.array_like else keys, lambda: msgspec.json.schema(annotation))


def _with_secrets(value: object) -> object:
    """Return a table with the kernel's secrets as pydantic's, which its fields take where they are secret too."""
    if isinstance(value, Secret):
        pydantic = loaded("pydantic")
        return value if pydantic is None else pydantic.SecretStr(value.reveal())
    if is_table(value):
        return {key: _with_secrets(part) for key, part in value.items()}
    return [_with_secrets(part) for part in value] if is_array(value) else value


def _faults(error: Exception) -> Iterator[tuple[At, str]]:
    """Yield where and what; a model is asked for places and texts, which hold no payload."""
    errors: object = getattr(error, "errors", None)
    if callable(errors) and isinstance(error, ValueError):
        for fault in cast("list[dict[str, Any]]", errors())[:_MANY]:
            yield tuple(fault["loc"]), cut(str(fault["msg"]), MAX_TEXT)
    elif (found := re.fullmatch(_PLACE, str(error), re.DOTALL)) and type(error).__module__.partition(".")[
        0
    ] == "msgspec":
        steps = re.findall(_STEP, found[2] or "")
        yield tuple(int(index) if index else key for key, index in steps), cut(found[1], MAX_TEXT)
    else:
        yield (), described(error)
