"""What a type is compiled to: nodes that read values, say in words what they take, explain what is wrong, and have a schema.

Each kind of type is one class of node. `read` is quick and says nothing: it raises, whatever it be. `explain` reads the
same value again with everything that is wrong reported at its place; it is all that the manifest needs, and for messages
it runs only after `read` has failed.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, cast

from .leaves import Read, Schema, read_any, read_str
from .limits import Check, check, limited
from .strict import FromOutside, WrongValueError, is_array, is_table
from .walk import WRONG, At, Book, Policy, Walk, described

_NO_SCALARS: Final = frozenset({"", "[", "{", '"'})
"""How a text begins that is JSON but no number, bool or null."""
_ONLY_STRINGS: Final = frozenset({str})
_ARRAYS: Final[tuple[type[object], ...]] = (list, tuple)
_ARRAYS_OF_OURS: Final[tuple[type[object], ...]] = (list, tuple, set, frozenset, deque)
"""What is written as an array."""


class Node:
    """A type without parts, and the base of all others."""

    kind = "scalar"
    """`scalar`, `array` or `table`: the plain values that it takes."""
    rank = 2
    """Where a union tries it: what takes the fewest values comes first."""

    def __init__(self, words: str, read: Read, schema: Schema, *, rank: int = 2) -> None:
        self._words = words
        self.read = read
        self._schema = schema
        self.rank = rank
        self.name = "value"
        self.asked: object = None
        """The type, of one that has no parts."""

    def words(self) -> str:
        """Return what it takes."""
        return self._words

    def explain(self, value: object, at: At, walk: Walk) -> object:
        """Return what a value becomes, or `WRONG` when all its problems have been reported."""
        given = value
        if isinstance(value, FromOutside):
            value = self._reading_of(value)
        try:
            return walk.placed(self.read(value))
        except WrongValueError as error:
            return walk.wrong(at, str(error)) if error.args else walk.refuse(at, self.words(), given)
        except (ValueError, OverflowError, ArithmeticError):
            return walk.refuse(at, self.words(), given)
        except Exception as error:  # noqa: BLE001  the type's own code
            return walk.failed(at, described(error))

    def _reading_of(self, value: FromOutside) -> object:
        """Return the first reading that it takes; the string if it takes none."""
        for reading in value.readings():
            with suppress(Exception):
                self.read(reading)
                return reading
        return str(value)

    def schema(self, book: Book) -> Schema:
        """Return its JSON Schema."""
        return dict(self._schema)

    def parts(self) -> Iterator[Node]:
        """Yield the nodes of its parts."""
        yield from ()

    def has_hash(self) -> bool:
        """Return whether what it makes can be in a set, as far as that is known."""
        return True


class Late(Node):
    """A type inside itself: its node is known only when it is finished."""

    def __init__(self) -> None:
        super().__init__("", self._read, {})
        self.target: Node = self

    def _read(self, value: object, _: object = None) -> object:
        return self.target.read(value)

    def settle(self, target: Node) -> None:
        """Say whose place it takes."""
        self.target, self.kind, self.rank, self.name = target, target.kind, target.rank, target.name

    def words(self) -> str:
        return self.target.words()

    def explain(self, value: object, at: At, walk: Walk) -> object:
        return self.target.explain(value, at, walk)

    def schema(self, book: Book) -> Schema:
        return book.of(self.target)

    def parts(self) -> Iterator[Node]:
        yield self.target


class Limited(Node):
    """A type with constraints."""

    def __init__(self, inner: Node, limits: Sequence[Check]) -> None:
        self.inner, self._limits = inner, limits

        def read(value: object, _: object = None) -> object:
            made = inner.read(value)
            if made is not None:
                check(made, limits)
            return made

        super().__init__("", read, {}, rank=inner.rank)
        self.kind, self.name = inner.kind, inner.name

    def words(self) -> str:
        return self.inner.words()

    def explain(self, value: object, at: At, walk: Walk) -> object:
        made = self.inner.explain(value, at, walk)
        if made is WRONG or made is None:
            return made
        try:
            check(made, self._limits)
        except WrongValueError as error:
            return walk.wrong(at, str(error))
        except Exception as error:  # noqa: BLE001  a predicate's own code
            return walk.failed(at, described(error))
        return made

    def schema(self, book: Book) -> Schema:
        return limited(book.of(self.inner), self._limits)

    def parts(self) -> Iterator[Node]:
        yield self.inner


class Array(Node):
    """An array of any length."""

    kind = "array"

    def __init__(self, make: Callable[[list[object]], object], item: Node, policy: Policy) -> None:
        self._make, self._item = make, item
        self._takes = _ARRAYS_OF_OURS if policy.is_outgoing else _ARRAYS
        read_item, takes = item.read, self._takes

        def read(value: object, _: object = None) -> object:
            if isinstance(value, takes):
                made = [read_item(part) for part in cast("list[object]", value)]
                return made if make is list else make(made)
            raise WrongValueError

        super().__init__("an array", read, {})

    def has_hash(self) -> bool:
        return self._make in {tuple, frozenset} and self._item.has_hash()

    def explain(self, value: object, at: At, walk: Walk) -> object:
        if not isinstance(value, self._takes):
            return walk.refuse(at, self.words(), value)
        parts = enumerate(cast("Iterable[object]", value))
        items = [self._item.explain(part, (*at, index), walk) for index, part in parts]
        return WRONG if any(item is WRONG for item in items) else built(self._make, items, at, walk)

    def schema(self, book: Book) -> Schema:
        items = book.of(self._item)
        return {"type": "array"} | ({"items": items} if items else {})

    def parts(self) -> Iterator[Node]:
        yield self._item


def built(make: Callable[[Any], object], parts: object, at: At, walk: Walk) -> object:
    """Return what is made of parts, reporting what the type itself finds."""
    try:
        return make(parts)
    except WrongValueError as error:
        return walk.wrong(at, str(error))
    except Exception as error:  # noqa: BLE001  such as an item that cannot be hashed
        return walk.failed(at, described(error))


class Fixed(Node):
    """An array with a type for each place."""

    kind = "array"

    def __init__(self, items: Sequence[Node]) -> None:
        self._items = items
        reads = [item.read for item in items]

        def read(value: object, _: object = None) -> object:
            if is_array(value):
                return tuple([read_item(part) for read_item, part in zip(reads, value, strict=True)])
            raise WrongValueError

        super().__init__("an array", read, {})

    def explain(self, value: object, at: At, walk: Walk) -> object:
        if not is_array(value):
            return walk.refuse(at, self.words(), value)
        if len(value) != len(self._items):
            return walk.wrong(at, f"must be an array of {len(self._items)}, got {len(value)}")
        pairs = enumerate(zip(self._items, value, strict=True))
        items = [item.explain(part, (*at, index), walk) for index, (item, part) in pairs]
        return WRONG if any(item is WRONG for item in items) else tuple(items)

    def schema(self, book: Book) -> Schema:
        length = len(self._items)
        items = {"prefixItems": [book.of(item) for item in self._items]} if self._items else {}
        return {"type": "array", **items, "minItems": length, "maxItems": length}

    def parts(self) -> Iterator[Node]:
        yield from self._items


class Table(Node):
    """A mapping from keys to values of one type."""

    kind = "table"

    def __init__(self, make: Callable[[dict[object, object]], object], key: Node, item: Node, policy: Policy) -> None:
        self._make, self._key, self._item = make, key, item
        read_key, read_item = key.read, item.read
        takes_any = make is dict and read_key is read_str and read_item is read_any

        def read(value: object, _: object = None) -> object:
            if not is_table(value):
                raise WrongValueError
            if takes_any and set(map(type, value)) <= _ONLY_STRINGS:
                return dict(value)
            made = {read_key(key): read_item(part) for key, part in value.items()}
            return checked(made, value)

        def checked(made: dict[object, object], value: Mapping[str, object]) -> object:
            if len(made) < len(value):
                raise WrongValueError("has two keys that mean the same")
            return made if make is dict else make(made)

        super().__init__(policy.table, read, {}, rank=8)
        self._checked = checked

    def has_hash(self) -> bool:
        return False

    def explain(self, value: object, at: At, walk: Walk) -> object:
        if not is_table(value):
            return walk.refuse(at, self.words(), value)
        keys = [self._key.explain(key, (*at, str(key)), walk) for key in value]
        items = [self._item.explain(part, (*at, str(key)), walk) for key, part in value.items()]
        if any(part is WRONG for part in (*keys, *items)):
            return WRONG
        return built(lambda pairs: self._checked(dict(pairs), value), zip(keys, items, strict=True), at, walk)

    def schema(self, book: Book) -> Schema:
        return {"type": "object", "additionalProperties": book.of(self._item) or True}

    def parts(self) -> Iterator[Node]:
        yield self._key
        yield self._item


def key_of(node: Node) -> Node:
    """Return the node of a key: in JSON it is a string, also where it stands for a number."""
    inner = node.read
    if inner in {read_any, read_str}:
        return node

    def read(value: object, _: object = None) -> object:
        try:
            return inner(value)
        except Exception:
            if not isinstance(value, str) or value[:1] in _NO_SCALARS:
                raise
        plain: object = json.loads(value)
        if json.dumps(plain) != value:
            raise WrongValueError
        return inner(plain)

    return Node(node.words(), read, {})
