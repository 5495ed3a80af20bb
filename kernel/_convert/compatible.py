"""Whether all that one type is written as can be read as another: what is promised, held against what is taken.

Decided by the nodes that read: a type without parts is tried with values of each form in which it is written, and the
others part by part. Nothing is said where nothing is known, as of `object`; limits and validators are about values and
not about types, and are left to whoever reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, final

from .annotations import dotted
from .classes import Fields, is_named_tuple, is_typed_dict
from .compiler import compile_type
from .foreign import Foreign
from .leaves import read_any
from .nodes import Array, Fixed, Late, Limited, Node, Table
from .single import Choice
from .unions import Union
from .walk import MESSAGES, At

Fault: TypeAlias = tuple[At, str]
Parts: TypeAlias = Mapping[str, tuple[Node, bool]]
"""Key -> its type, and whether it is always there, or must be."""

_SAMPLES: Final[Mapping[str, tuple[object, ...]]] = {
    "builtins.NoneType": (None,),
    "builtins.bool": (True, False),
    "builtins.int": (0, -1, 10_000),
    "builtins.float": (0.5, -1.25),
    "builtins.str": ("", "a b", "\u00e4"),
    "builtins.bytes": ("YQ==", b"a"),
    "builtins.bytearray": ("YQ==", b"a"),
    "datetime.datetime": ("2020-02-03T04:05:06", "2020-02-03T04:05:06+00:00"),
    "datetime.date": ("2020-02-03",),
    "datetime.time": ("04:05:06",),
    "datetime.timedelta": ("PT1.5S",),
    "decimal.Decimal": ("1.50", "-3"),
    "uuid.UUID": ("12345678-1234-5678-1234-567812345678",),
    "pathlib.Path": ("a/b", "."),
    "pathlib.PurePath": ("a/b", "."),
    "zoneinfo.ZoneInfo": ("UTC",),
    "ipaddress.IPv4Address": ("127.0.0.1",),
    "ipaddress.IPv6Address": ("::1",),
    "ipaddress.IPv4Network": ("127.0.0.0/8",),
    "ipaddress.IPv6Network": ("::/64",),
    "ipaddress.IPv4Interface": ("127.0.0.1/8",),
    "ipaddress.IPv6Interface": ("::1/64",),
}
"""Type without parts -> values of each form in which it is written."""


def mismatches(sent: object, taken: object) -> list[Fault]:
    """Return why values of one type may not be read as another, with the places inside; nothing if they always can.

    Args:
        sent: The type of what is sent, or the node of one.
        taken: The type that it is to be read as.
    """
    return list(_Comparison().compare(_understood(sent), _understood(taken), ()))


def parts_of(annotation: object) -> Parts | None:
    """Return the parts by name that values of a type are written with; None if they have none."""
    return _written_parts(_bare(_understood(annotation)))


def takes_anything(annotation: object) -> bool:
    """Return whether nothing is known of a type, or it is not understood."""
    return _bare(_understood(annotation)).read is read_any


@final
class _Comparison:
    """One comparison; types that contain themselves are looked at once."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()

    def compare(self, sent: Node, taken: Node, at: At) -> Iterator[Fault]:
        sent, taken = _bare(sent), _bare(taken)
        key = (id(sent), id(taken))
        if sent is taken or read_any in {sent.read, taken.read} or key in self._seen:
            return
        self._seen.add(key)
        if isinstance(sent, Union):
            for option in sent.options:
                yield from self.compare(option, taken, at)
            if sent.is_optional and not _reads(taken, None):
                yield at, f"may be null, and {taken.words()} is taken"
        elif isinstance(taken, Union):
            yield from self._one_of(sent, taken, at)
        elif (compare := _BY_KIND.get(type(sent))) is not None:
            yield from compare(self, sent, taken, at)
        else:
            yield from _tried(sent, taken, at)

    def _one_of(self, sent: Node, taken: Union, at: At) -> Iterator[Fault]:
        if sent.asked is type(None):
            if not taken.is_optional:
                yield _other(sent, taken, at)
            return
        tried = [(option, list(_Comparison().compare(sent, option, at))) for option in taken.options]
        if all(faults for _, faults in tried):
            alike = [faults for option, faults in tried if option.kind == sent.kind != "scalar"]
            yield from alike[0] if alike else [_other(sent, taken, at)]

    # --- with parts ---

    def array(self, sent: Node, taken: Node, at: At) -> Iterator[Fault]:
        if not isinstance(taken, Array):
            yield _other(sent, taken, at)
            return
        for item in sent.parts():
            yield from self.compare(item, next(taken.parts()), (*at, 0))

    def fixed(self, sent: Node, taken: Node, at: At) -> Iterator[Fault]:
        items = list(sent.parts())
        if isinstance(taken, Array):
            wanted = list(taken.parts()) * len(items)
        elif isinstance(taken, Fixed) or _is_named_tuple(taken):
            wanted = list(taken.parts())
        else:
            yield _other(sent, taken, at)
            return
        if len(items) != len(wanted):
            yield at, f"is an array of {len(items)}, and one of {len(wanted)} is taken"
        for index, (item, other) in enumerate(zip(items, wanted, strict=False)):
            yield from self.compare(item, other, (*at, index))

    def table(self, sent: Node, taken: Node, at: At) -> Iterator[Fault]:
        key, item = sent.parts()
        if isinstance(taken, Table):
            wanted_key, wanted = taken.parts()
            yield from self.compare(key, wanted_key, at)
            yield from self.compare(item, wanted, (*at, "*"))
        elif (parts := _read_parts(taken)) is None:
            yield from () if isinstance(taken, Foreign) else [_other(sent, taken, at)]
        else:
            for name, (part, is_required) in parts.items():
                if is_required:
                    yield (*at, name), "may be missing"
                yield from self.compare(item, part, (*at, name))

    def fields(self, sent: Node, taken: Node, at: At) -> Iterator[Fault]:
        given = _written_parts(sent)
        if given is None:
            yield from self.fixed(sent, taken, at) if _is_named_tuple(sent) else ()
        elif isinstance(taken, Table):
            key, item = taken.parts()
            for name, (part, _) in given.items():
                if not _reads(key, name):
                    yield (*at, name), f"is no key: {key.words()} is taken"
                yield from self.compare(part, item, (*at, name))
        elif (wanted := _read_parts(taken)) is None:
            yield from () if isinstance(taken, Foreign) else [_other(sent, taken, at)]
        else:
            yield from self._parts(given, wanted, at)

    def _parts(self, given: Parts, wanted: Parts, at: At) -> Iterator[Fault]:
        for name, (part, is_required) in wanted.items():
            mine, is_there = given.get(name, (None, False))
            if is_required and not is_there:
                yield (*at, name), "is missing" if mine is None else "may be missing"
            if mine is not None:
                yield from self.compare(mine, part, (*at, name))


_BY_KIND: Final[Mapping[type[Node], Callable[[_Comparison, Any, Node, At], Iterator[Fault]]]] = {
    Array: _Comparison.array,
    Fixed: _Comparison.fixed,
    Table: _Comparison.table,
    Fields: _Comparison.fields,
    Foreign: _Comparison.fields,
}


def _bare(node: Node) -> Node:
    while isinstance(node, Late | Limited):
        node = node.target if isinstance(node, Late) else node.inner
    return node


def _tried(sent: Node, taken: Node, at: At) -> Iterator[Fault]:
    """Try a type without parts with values of each form in which it is written."""
    if isinstance(taken, Foreign) and taken.keys is None:
        return  # what it takes is known to its own code alone
    samples: Sequence[object] = sent.options if isinstance(sent, Choice) else _SAMPLES.get(_name_of(sent.asked), ())
    if not all(_reads(taken, sample) for sample in samples):
        yield _other(sent, taken, at)


def _name_of(asked: object) -> str:
    return dotted(type(None) if asked is None else asked)


def _reads(node: Node, value: object) -> bool:
    try:
        node.read(value)
    except Exception:  # noqa: BLE001  whatever it raises, it does not take it
        return False
    return True


def _other(sent: Node, taken: Node, at: At) -> Fault:
    return at, f"is {sent.words()}, and {taken.words()} is taken"


def _is_named_tuple(node: Node) -> bool:
    return isinstance(node, Fields) and is_named_tuple(node.cls)


def _written_parts(node: Node) -> Parts | None:
    """Return what a class is written with; None of one that is written as an array, or does not say."""
    if not isinstance(node, Fields):
        parts = _foreign_parts(node)
        return parts and {key: (part, True) for key, (part, _) in parts.items()}
    if is_named_tuple(node.cls):
        return None
    may_lack = is_typed_dict(node.cls)
    return {key: (part, field.is_required or not may_lack) for key, (field, part) in node.fields.items()}


def _read_parts(node: Node) -> Parts | None:
    if not isinstance(node, Fields):
        return _foreign_parts(node)
    return {key: (part, field.is_required) for key, (field, part) in node.fields.items()}


def _foreign_parts(node: Node) -> Parts | None:
    if not isinstance(node, Foreign) or node.keys is None:
        return None
    return {key: (_understood(hint), is_required) for key, (hint, is_required) in node.keys.items()}


def _understood(annotation: object) -> Node:
    """Return the node of a type; that of `object` for one of which nothing is known, which who needs it reports."""
    if isinstance(annotation, Node):
        return annotation
    try:
        return compile_type(annotation, MESSAGES).node
    except TypeError:
        return compile_type(object, MESSAGES).node
