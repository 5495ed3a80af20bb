"""Unions: the option that fits a value best, and what is wrong in the one that was meant.

Options are tried from the one that takes the fewest values to the one that takes the most, and in their order where
that is equal. Of several tables a tag decides, which is a key with another `Literal` in each; without one, the option
that leaves out the fewest keys of the value, and lacks the fewest.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, get_args, get_origin

from .._core.words import listed, shown
from .annotations import NotUnderstoodError
from .classes import Fields
from .foreign import Foreign
from .leaves import EXACT, Read, Schema, written
from .nodes import Late, Limited, Node
from .single import Choice
from .strict import FromOutside, WrongValueError, is_array, is_table
from .walk import WRONG, At, Book, Walk

Keys = Mapping[str, tuple[Sequence[object], bool]]
"""Key -> the only values that it takes, if there are, and whether it must be there."""
_OPEN: Final = (1 << 30, 0)


class Union(Node):
    """One of several types, or null if `is_optional`."""

    def __init__(self, options: Sequence[Node], *, is_optional: bool, tag: str = "", types: Sequence[object]) -> None:
        super().__init__("", _or_null(options[0].read) if is_optional and len(options) == 1 else self._first, {})
        self.options = options
        self._declared = options
        self.tag = tag
        self._must_have_tag = bool(tag)
        self.is_optional = is_optional
        self._types = types
        self._keys: dict[int, Keys] = {}
        self._tagged: dict[tuple[type, object], Node] = {}
        self._exact: frozenset[object] = frozenset()
        self._cyclic: frozenset[int] = frozenset()

    def settle(self) -> None:
        """Look at the options, now that all of them are finished.

        Raises:
            NotUnderstoodError: if the tag that somebody named is none.
        """
        self.options = sorted(self.options, key=lambda option: option.rank)
        self.kind = self.options[0].kind if len({option.kind for option in self.options}) == 1 else "scalar"
        self.rank = max(option.rank for option in self.options)
        self._keys = {id(option): keys for option in self.options if (keys := _keys_of(option)) is not None}
        self._find_tag()
        if not any(option.rank == 0 for option in self.options):
            self._exact = EXACT.intersection(self._types)
        self._cyclic = frozenset(id(option) for option in self.options if _reaches(option, self))

    def _find_tag(self) -> None:
        wanted = [self.tag] if self.tag else list(dict.fromkeys(key for keys in self._keys.values() for key in keys))
        for tag in wanted if len(self._keys) > 1 or self.tag else ():
            found: dict[tuple[type, object], Node] = {}
            tables = [option for option in self.options if id(option) in self._keys]
            for option in tables:
                for value in self._keys[id(option)].get(tag, ((), False))[0]:
                    found[type(value), value] = option
            total = sum(len(self._keys[id(option)].get(tag, ((), False))[0]) for option in tables)
            if len(found) == total and {id(option) for option in found.values()} == {id(option) for option in tables}:
                self.tag, self._tagged = tag, found
                return
        if self.tag:
            raise NotUnderstoodError(
                f'"{self.tag}" tells the options of a union not apart: it must be another Literal in each'
            )

    # --- choosing ---

    def _first(self, value: object, _: object = None) -> object:
        if type(value) in self._exact:
            return value
        if value is None and self.is_optional:
            return None
        for option in self._fitting(value):
            try:
                return option.read(value)
            except Exception:  # noqa: BLE001  the next may take it; if none does, `explain` says why
                continue
        raise WrongValueError

    def _fitting(self, value: object) -> Sequence[Node]:
        """Return the options in the order in which they are to be tried."""
        if not is_table(value) or len(self._keys) == 0:
            options = self.options
        elif (meant := self._by_tag(value)) is not None:
            return [meant]
        elif self._must_have_tag:
            return []
        else:
            options = sorted(self.options, key=lambda option: self._distance(option, value))
        return self._without_forks(options, value) if len(self._cyclic) > 1 else options

    def _by_tag(self, value: Mapping[str, object]) -> Node | None:
        if not self._tagged or self.tag not in value:
            return None
        try:
            return self._tagged.get((type(value[self.tag]), value[self.tag]))
        except TypeError:
            return None

    def _distance(self, option: Node, value: Mapping[str, object]) -> tuple[int, int, int]:
        """Return how many keys an option leaves out, how many it lacks, and how many more it knows."""
        keys = self._keys.get(id(option))
        if keys is None:
            return (0, 0, _OPEN[0]) if option.kind == "table" else (*_OPEN, option.rank)
        known = sum(key in keys for key in value)
        missing = sum(is_required and key not in value for key, (_, is_required) in keys.items())
        return (len(value) - known + missing, missing, 0)

    def _without_forks(self, options: Sequence[Node], value: object) -> Sequence[Node]:
        """Keep one of those that lead back to this union: to try several at each depth would take forever."""
        kind = "table" if is_table(value) else "array" if is_array(value) else "scalar"
        forks = [option for option in options if id(option) in self._cyclic and option.kind in {kind, "scalar"}]
        return [option for option in options if id(option) not in self._cyclic or option in forks[:1]]

    # --- with explanations ---

    def words(self) -> str:
        words = [option.words() for option in self._declared] or ["null"]
        return listed(dict.fromkeys(words), last="or")

    def explain(self, value: object, at: At, walk: Walk) -> object:
        if value is None and self.is_optional:
            return None
        if isinstance(value, FromOutside) and str in self._exact:
            value = str(value)
        if type(value) in self._exact:
            return value
        options = self._fitting(value)
        quiet = walk.quiet()
        if len(options) > 1:
            for option in options:
                if (made := option.explain(value, at, quiet)) is not WRONG:
                    return made
        if walk.is_quiet and len(options) > 1:
            return WRONG
        meant = self._meant(options, value)
        if self.tag and self._tagged and is_table(value) and self._by_tag(value) is None and meant is None:
            return self._explain_tag(value, at, walk)
        return walk.refuse(at, self.words(), value) if meant is None else meant.explain(value, at, walk)

    def _meant(self, options: Sequence[Node], value: object) -> Node | None:
        if len(options) == 1:
            return options[0]
        kind = "table" if is_table(value) else "array" if is_array(value) else ""
        fitting = [option for option in options if option.kind == kind]
        return None if kind == "table" and self._tagged else next(iter(fitting), None)

    def _explain_tag(self, value: Mapping[str, object], at: At, walk: Walk) -> object:
        allowed = listed([shown(tag) for _, tag in self._tagged], last="or")
        if self.tag not in value:
            return walk.wrong((*at, self.tag), f"is missing; it must be {allowed}")
        return walk.refuse((*at, self.tag), allowed, value[self.tag])

    # --- as a schema ---

    def schema(self, book: Book) -> Schema:
        schemas = [book.of(option) for option in self.options]
        if self.is_optional and not book.policy.is_strict:
            schemas.append({"type": "null"})
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}

    def parts(self) -> Iterator[Node]:
        yield from self.options


def _or_null(only: Read) -> Read:
    def read(value: object, _: object = None) -> object:
        return None if value is None else only(value)

    return read


def _keys_of(node: Node) -> Keys | None:
    """Return the keys that a table knows; None if it knows none in particular."""
    match node:
        case Late():
            return _keys_of(node.target)
        case Limited():
            return _keys_of(node.inner)
        case Fields():
            return {key: (_values_of(part), field.is_required) for key, (field, part) in node.fields.items()}
        case Foreign() if node.keys is not None:
            return {key: (_literals(hint), is_required) for key, (hint, is_required) in node.keys.items()}
        case _:
            return None


def _values_of(node: Node) -> Sequence[object]:
    return node.options if isinstance(node, Choice) else ()


def _literals(annotation: object) -> Sequence[object]:
    if get_origin(annotation) is not typing.Literal:
        return ()
    return [written(getattr(option, "value", option)) for option in get_args(annotation)]


def _reaches(start: Node, goal: Node) -> bool:
    seen: set[int] = set()
    waiting = [start]
    while waiting:
        node = waiting.pop()
        if node is goal:
            return True
        if id(node) not in seen:
            seen.add(id(node))
            waiting += node.parts()
    return False
