"""Values that are equal by their fields, as attrs would have it if it wrote the methods."""

from __future__ import annotations

import attrs
import pytest

from kernel import Event
from kernel._core.fields import ByFields


@attrs.frozen(eq=False)
class Place(ByFields):
    row: int
    items: object = ()
    note: str = attrs.field(default="", eq=False)


@attrs.frozen(eq=False)
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
