"""What no broker carries, and what each does."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from typing import Any

import pytest

from kernel import Envelope
from kernel.abc import check_envelope
from kernel.errors import EncodeError

GOOD: list[Any] = [None, True, 0, -(2**63), 2**63 - 1, 1.5, "", "snow \u2603", [1, ["a"]], (1, 2), {"a": {"b": None}}]


@pytest.mark.parametrize("value", GOOD, ids=repr)
def test_what_json_can_say_is_carried(value: Any) -> None:
    check_envelope(Envelope(subject="s", headers={"h": value}))

    json.dumps(value)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (b"x", "a value of bytes"),
        ([1, {"a": b"x"}], "a value of bytes"),
        ({1: "a"}, "1 as a name"),
        ({"a": {None: 1}}, "None as a name"),
        (math.nan, "nan"),
        ([-math.inf], "-inf"),
        (2**63, "an integer of more than 64 bits"),
        ("\ud800", "text with half a character"),
        ({"\ud800": 1}, "text with half a character"),
        (decimal.Decimal(1), "a value of Decimal"),
        (datetime.date(2026, 1, 1), "a value of date"),
        ({1}, "a value of set"),
    ],
    ids=repr,
)
def test_what_json_cannot_say_is_refused_and_named(value: Any, fault: str) -> None:
    with pytest.raises(EncodeError) as raised:
        check_envelope(Envelope(subject="s", headers={"good": 1, "h": value}))

    assert str(raised.value) == f"header 'h' is nothing that JSON can say: {fault}"


def test_a_header_without_an_end_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)

    with pytest.raises(EncodeError, match="more than 32 levels"):
        check_envelope(Envelope(subject="s", headers={"h": endless}))


@pytest.mark.parametrize("id_", [3, None, b"a", ""], ids=repr)
def test_an_id_that_is_no_text_is_refused(id_: Any) -> None:
    with pytest.raises(EncodeError, match="the id of a message is text, not "):
        check_envelope(Envelope(subject="s", id=id_))


@pytest.mark.parametrize("priority", [-1, 10])
def test_a_priority_is_0_to_9(priority: int) -> None:
    with pytest.raises(ValueError, match="a priority is 0 to 9"):
        check_envelope(Envelope(subject="s", priority=priority))
