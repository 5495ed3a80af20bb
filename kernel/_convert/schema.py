"""Types -> JSON Schema (2020-12), by way of the same nodes that read their values.

Descriptions of fields are the strings that stand under them in the source, which is where docs/style.md puts them and
where editors look; Python keeps them nowhere else.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final, cast

from .compiler import compile_type
from .leaves import Schema
from .limits import with_keywords
from .single import FROM_OUTSIDE
from .walk import MANIFEST, MESSAGES, Book


def open_book() -> Book:
    """Return what collects the definitions of a schema of a manifest."""
    return Book(MANIFEST, _notes, _validated_as_written)


def table_schema(cls: object, book: Book | None = None) -> Schema:
    """Return the schema of the table of a manifest that a type is made of.

    Args:
        cls: The type, as `structure` takes it.
        book: Where definitions go that the schema refers to; None puts them into the schema itself.

    Raises:
        TypeError: if the type is not understood.
    """
    return _made(cls, book or open_book(), is_whole=book is None)


def type_schema(annotation: object) -> Schema:
    """Return the schema of the payloads that become a type, as `payload_converter` takes it.

    Raises:
        TypeError: if the type is not understood.
    """
    return _made(annotation, Book(MESSAGES, _notes, _validated), is_whole=True)


def _made(annotation: object, book: Book, *, is_whole: bool) -> Schema:
    schema = book.of(compile_type(annotation, book.policy).node)
    return schema | {"$defs": book.definitions} if is_whole and book.definitions else schema


def _notes(cls: type[object]) -> Mapping[str, str]:
    """Return the strings that stand under fields in the source, base classes included; none if there is no source."""
    notes: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        notes |= dict(_notes_in(tree.body[0]))
    return notes


def _notes_in(definition: ast.stmt) -> Iterator[tuple[str, str]]:
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    for field, text in itertools.pairwise(body):
        note = text.value if isinstance(text, ast.Expr) else None
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(note, ast.Constant):
            yield field.target.id, " ".join(inspect.cleandoc(str(note.value)).split())


# --- validators of attrs ------------------------------------------------------------------------------------------

_SAYS: Final = (
    (r"Length of .* must be >= (\d+): .*", ("minLength",)),
    (r"Length of .* must be <= (\d+): .*", ("maxLength",)),
    (r".* must be >= (\S+): .*", ("minimum",)),
    (r".* must be <= (\S+): .*", ("maximum",)),
    (r".* must be > (\S+): .*", ("exclusiveMinimum",)),
    (r".* must be < (\S+): .*", ("exclusiveMaximum",)),
    (r".* must be in ([\[({].*[\])}]) \(got .*", ("enum",)),
    (r".* must be .*above (\d+), .*", ("exclusiveMinimum",)),
    (r".* must be from (\d+) to (\d+), .*", ("minimum", "maximum")),
)
"""What validators say of what they refuse."""


class _Long(str):
    """A text that says that it is longer than any."""

    __slots__ = ()

    def __len__(self) -> int:
        return 1 << 31


def _validated(schema: Schema, validator: Callable[..., object] | None, field: object) -> Schema:
    """Return the schema of a field with what its validator allows, as far as it says so.

    The validator is asked: given what is beyond every bound, it names the bound. attrs has no other way that is public.
    """
    if validator is None:
        return schema
    for beyond in (-math.inf, math.inf, "", _Long(), "\0"):
        try:
            validator(None, field, beyond)
        except Exception as error:  # noqa: BLE001  somebody's validator, given what it cannot expect
            schema = with_keywords(schema, dict(_said(error)))
    return schema


def _validated_as_written(schema: Schema, validator: Callable[..., object] | None, field: object) -> Schema:
    """Return the same for a manifest, in which a text that will be substituted may become any that is allowed."""
    made = _validated(schema, validator, field)
    if made.get("type") != "string" or not made.keys() & {"enum", "pattern"}:
        return made
    return {"anyOf": [made, dict(FROM_OUTSIDE)]}


def _said(error: Exception) -> Iterator[tuple[str, object]]:
    """Yield what an error says is allowed: in its text, or as attrs' `matches_re` does, which has the pattern along."""
    for arg in error.args[1:]:
        if isinstance(arg, re.Pattern):  # in the text its backslashes are doubled
            yield "pattern", f"^(?:{cast('re.Pattern[str]', arg).pattern})$"
    text = str(error.args[0]) if error.args else ""
    for pattern, keys in _SAYS:
        if found := re.fullmatch(pattern, text, re.DOTALL):
            with suppress(ValueError, SyntaxError):  # a bound that is no plain value
                yield from zip(keys, map(_literal, found.groups()), strict=True)
            return


def _literal(text: str) -> object:
    value: object = ast.literal_eval(text)
    return sorted(cast("Iterable[object]", value), key=repr) if isinstance(value, tuple | list | set) else value
