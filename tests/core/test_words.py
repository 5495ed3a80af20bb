"""Facts about how a problem says what a validator found: the rule whole, the value cut."""

from __future__ import annotations

import attrs
import pytest
from attrs import validators

from kernel._core.words import MAX_SHOWN, MAX_TEXT, field_and_text

LONG = "x" * 200
CHOICES = [f"choice number {number}" for number in range(8)]


def own(_instance: object, attribute: object, value: object) -> None:
    raise ValueError(f"'{attribute.name}' must be {'a word, ' * 20}got {value!r:.60}")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("validator", "rule"),
    [
        (own, "a word, " * 20),
        (validators.in_(CHOICES), ", ".join(map(repr, CHOICES))),
        (validators.matches_re("a{1,3}|" * 20), "a{1,3}|" * 20),
    ],
    ids=["own", "one of", "matches"],
)
def test_a_rule_is_whole_and_a_value_is_cut(validator: object, rule: str) -> None:
    cls = attrs.make_class("Table", {"key": attrs.field(validator=validator)})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="key") as caught:
        cls(key=LONG)

    name, text = field_and_text(caught.value)

    assert name == "key"
    assert rule in text
    assert "x" * (MAX_SHOWN + 1) not in text


def test_a_rule_without_an_end_is_cut_too() -> None:
    _, text = field_and_text(ValueError(f"'key' must be {'a word ' * 1000}"))

    assert len(text) == MAX_TEXT + len("...")
