"""Values that are equal by their fields, as attrs would have it if it wrote the methods."""

from __future__ import annotations

import attrs
import pytest

from kernel import Event, discover, resolve
from kernel._core.fields import ByFields
from kernel._manifest.manifest import from_mapping


@attrs.frozen(eq=False, repr=False)
class Place(ByFields):
    row: int
    items: object = ()
    note: str = attrs.field(default="", eq=False)


@attrs.frozen(eq=False, repr=False)
class Other(Place):
    pass


@attrs.frozen(kw_only=True)
class Happened(Event):
    """As a plugin defines it, with the methods of attrs."""

    number: int


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (Place(1), Place(1), True),
        (Place(1), Place(2), False),
        (Place(1, "a"), Place(1, "b"), False),
        (Place(1, note="a"), Place(1, note="b"), True),
        (Place(1), Other(1), False),
        (Other(1), Place(1), False),
        (Place(1), 1, False),
        (Happened(component="x", number=1), Happened(component="x", number=1), True),
        (Happened(component="x", number=1), Happened(component="x", number=2), False),
    ],
)
def test_values_are_equal_if_class_and_fields_are(one: object, other: object, *, equal: bool) -> None:
    assert (one == other) is equal
    assert (one != other) is not equal


def test_equal_values_are_one_key() -> None:
    assert len({Place(1, note="a"), Place(1, note="b"), Place(2), Other(1)}) == 3


def test_what_holds_what_has_no_hash_has_none() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Place(1, []))


@attrs.frozen
class OfAttrs:
    row: int
    items: object = ()
    note: str = ""
    hidden: str = attrs.field(default="x", repr=False)


@attrs.frozen(eq=False, repr=False)
class ByBase(ByFields):
    row: int
    items: object = ()
    note: str = ""
    hidden: str = attrs.field(default="x", repr=False)


def test_a_value_is_shown_as_attrs_shows_it() -> None:
    shown = repr(ByBase(1, [OfAttrs(2)], "a'b"))

    assert shown == repr(OfAttrs(1, [OfAttrs(2)], "a'b")).replace("OfAttrs", "ByBase", 1)


def test_a_plan_shows_nothing_of_what_it_holds() -> None:
    plan = resolve(from_mapping({"protocols": {"json": {}}}), discover())

    assert repr(plan) == object.__repr__(plan)
    assert all(repr(one) == object.__repr__(one) for one in plan.protocols.values())
