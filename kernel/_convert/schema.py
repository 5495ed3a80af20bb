"""Types -> JSON Schema (2020-12), by way of the same nodes that read their values.

Descriptions of fields are the strings that stand under them in the source, which is where docs/style.md puts them and
where editors look; Python keeps them nowhere else.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator, Mapping

from .compiler import compile_type
from .leaves import Schema
from .walk import MANIFEST, MESSAGES, Book


def open_book() -> Book:
    """Return what collects the definitions of a schema of a manifest."""
    return Book(MANIFEST, _notes)


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
    return _made(annotation, Book(MESSAGES, _notes), is_whole=True)


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
