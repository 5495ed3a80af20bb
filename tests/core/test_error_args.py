"""What an error was raised with, as a peer may get it: always something that JSON can say, and never too much."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from kernel import error_args


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")


class UnlistedError(Exception):
    @property
    def args(self) -> Any:
        raise RuntimeError("no arguments")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((), []),
        ((None, True, 7, 1.5, "straße"), [None, True, 7, 1.5, "straße"]),
        (([1, (2, 3)], {"a": [4]}), [[1, [2, 3]], {"a": [4]}]),
        (({1: "one"},), [{"1": "one"}]),
        ((b"\xff", {1}), ["b'\\xff'", "{1}"]),
        ((2**63, -(2**63), math.inf), ["9223372036854775808", "-9223372036854775808", "inf"]),
        (([[[1]]],), [[["[1]"]]]),
        ((list(range(40)),), [list(range(32))]),
        ((dict.fromkeys(map(str, range(40))),), [dict.fromkeys(map(str, range(32)))]),
        (tuple(range(40)), list(range(32))),
        ((Broken(),), ["its text cannot be made: RuntimeError"]),
    ],
)
def test_arguments_become_what_json_can_say(given: tuple[object, ...], told: list[object]) -> None:
    found = error_args(ValueError(*given))

    assert found == told
    json.dumps(found, allow_nan=False)


def test_an_error_that_does_not_tell_its_arguments_has_none() -> None:
    assert error_args(UnlistedError()) == []
