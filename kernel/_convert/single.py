"""Nodes of single values that have no parts: one of some options, a secret, and what is imported by its name."""

from __future__ import annotations

import builtins
import enum
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, cast, final, get_args

from .._core.secret import Secret
from .._core.words import listed, shown
from .annotations import NotUnderstoodError, origin_of
from .imports import NotImportableError, import_object
from .leaves import Read, Schema, written
from .nodes import Node
from .strict import WrongValueError, is_array
from .walk import At, Book, Walk

FROM_OUTSIDE: Final[Schema] = {"type": "string", "pattern": r"\$\{"}
"""A string that will be substituted may become any other."""
_SECRET: Final = {
    "description": "a secret: from the environment, or from a file",
    "oneOf": [
        {
            "type": "object",
            "properties": {key: {"type": "string", "minLength": 1}},
            "required": [key],
            "additionalProperties": False,
        }
        for key in ("env", "file")
    ],
}


def choice(options: Mapping[tuple[type, object], object], other: Read | None, *, is_open: bool = False) -> Node:
    """Return the node of an enumeration or a `Literal`.

    Args:
        options: Type and value of what is written -> what it becomes.
        other: What reads a value that is none of these.
        is_open: Whether values that are none of these may be read at all.
    """
    values = [value for _, value in options]

    def read(value: object, _: object = None) -> object:
        try:
            return options[type(value), value]
        except (KeyError, TypeError):
            pass
        with suppress(KeyError, TypeError):
            if is_array(value):
                return options[tuple, _frozen(value)]
        if other is None:
            raise WrongValueError
        return other(value)

    words = listed([shown(value) for value in values], last="or")
    schema: Schema = {"enum": [list(value) if is_array(value) else value for value in values]}
    return Choice(words, read, {} if is_open else schema, rank=0)


def _frozen(value: Sequence[object]) -> tuple[object, ...]:
    return tuple(_frozen(part) if is_array(part) else part for part in value)


class Choice(Node):
    """One of some values."""

    def schema(self, book: Book) -> Schema:
        if not book.policy.is_strict or not any(isinstance(value, str) for value in self._schema.get("enum", ())):
            return dict(self._schema)
        return {"anyOf": [dict(self._schema), dict(FROM_OUTSIDE)]}

    @property
    def options(self) -> Sequence[object]:
        """What it takes."""
        return cast("list[object]", self._schema.get("enum", []))


def literal(options: Sequence[object]) -> Node:
    """Return the node of a `Literal`, whose options may be members of enumerations."""
    plain = [_plain(option) for option in options]

    def other(value: object, _: object = None) -> object:
        for option in options:
            if type(option) is type(value) and option == value:
                return option
        raise WrongValueError

    written_ = {(type(one), one): option for one, option in zip(plain, options, strict=True)}
    return choice(written_, other)


def _plain(option: object) -> object:
    """Return the plain value that an option is written as.

    Raises:
        TypeError: if it is none.
    """
    if isinstance(option, enum.Enum):
        return _plain(cast("object", option.value))
    if isinstance(option, tuple):
        return tuple(_plain(part) for part in cast("tuple[object, ...]", option))
    try:
        return written(option)
    except TypeError:
        raise NotUnderstoodError(f"no message holds {option!r}") from None


def enumeration(cls: type[enum.Enum]) -> Node:
    """Return the node of an enumeration, which is read by value."""
    is_flag = issubclass(cls, enum.Flag)
    is_open = is_flag or getattr(cls._missing_, "__func__", None) is not getattr(enum.Enum._missing_, "__func__", None)

    def other(value: object, _: object = None) -> object:
        made: object = value
        if not isinstance(value, bool | cls):
            made = cls(value) if is_flag and isinstance(value, int) else cls._missing_(value)
        if isinstance(made, cls):
            return made
        raise WrongValueError

    return choice(
        {(type(plain), plain): member for member in cls for plain in [_plain(member)]}, other, is_open=is_open
    )


@final
class SecretNode(Node):
    """A secret, which comes from outside of the manifest."""

    def __init__(self) -> None:
        super().__init__('a secret: { env = "NAME" } or { file = "/path" }', _unread, _SECRET)

    def explain(self, value: object, at: At, walk: Walk) -> object:
        # The value is not shown: somebody may have put the secret itself here.
        if isinstance(value, Secret):
            return value
        return walk.wrong(at, 'must be a secret: write { env = "NAME" } or { file = "/path/to/it" }')


@final
class Imported(Node):
    """A class or function that a string names; one that is given as it is passes too."""

    def __init__(self, annotation: object) -> None:
        words = 'a class, as "module:Name"' if origin_of(annotation) is type else 'a function, as "module:name"'
        super().__init__(words, _unread, {"type": "string"})
        self._annotation = annotation

    def explain(self, value: object, at: At, walk: Walk) -> object:
        try:
            found = _named(value, walk.directory) if isinstance(value, str) else value
        except NotImportableError as error:
            return walk.wrong(at, str(error))
        if origin_of(self._annotation) is not type:
            return found if callable(found) else walk.refuse(at, "a function", value)
        bound = origin_of((*get_args(self._annotation), object)[0])
        if isinstance(found, type) and (not isinstance(bound, type) or issubclass(found, bound)):
            return found
        return walk.refuse(at, f"a class derived from {getattr(bound, '__name__', bound)}", value)


def _unread(_value: object, _: object = None) -> object:
    raise WrongValueError


def _named(path: str, directory: Path | None) -> object:
    if ":" not in path and hasattr(builtins, path):
        return getattr(builtins, path)
    return import_object(path, directory=directory)
