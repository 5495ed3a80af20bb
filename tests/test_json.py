"""Reading and writing JSON for all protocols; the tests of `plugins/json` hold most of the facts."""

from __future__ import annotations

import json

import pytest

from kernel import read_json, write_json
from kernel._json_writing import _encoder
from kernel.errors import MAX_ERROR_TEXT, DecodeError, EncodeError, error_text

LIMITS = {"max_bytes": 1000, "max_depth": 8}


class TextlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_keys_are_sorted_or_stay_as_they_are() -> None:
    value = {"b": 1, "a": [{"d": None, "c": "é"}]}

    assert write_json(value, **LIMITS) == '{"a":[{"c":"é","d":null}],"b":1}'.encode()
    assert write_json(value, sort_keys=False, **LIMITS) == '{"b":1,"a":[{"d":null,"c":"é"}]}'.encode()


@pytest.mark.parametrize("sort_keys", [True, False])
def test_keys_that_would_collide_are_refused(sort_keys: bool) -> None:
    with pytest.raises(EncodeError, match="which could collide"):
        write_json([{"1": "a", 1: "b"}], sort_keys=sort_keys, **LIMITS)


def test_what_is_said_to_be_something_else_is_not_read() -> None:
    with pytest.raises(DecodeError, match="content type text/plain is not JSON"):
        read_json(b"{}", content_type="text/plain", **LIMITS)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad\ud800"), "bad\\ud800"),
        (ValueError("x" * 5000), "x" * MAX_ERROR_TEXT),
        (TextlessError(), "its text cannot be made: RuntimeError"),
    ],
    ids=["surrogate", "long", "textless"],
)
def test_any_error_has_a_text_that_can_be_sent(error: Exception, text: str) -> None:
    assert error_text(error) == text


@pytest.mark.parametrize("sort_keys", [True, False])
def test_an_interpreter_without_an_encoder_in_c_writes_the_same(
    monkeypatch: pytest.MonkeyPatch, *, sort_keys: bool
) -> None:
    value = {"b": [1, 2.5, None, True, "é\n"], "a": {"set": {3}, "text": ""}}
    with_c = _encoder(sort_keys=sort_keys)
    monkeypatch.setattr(json.encoder, "c_make_encoder", None)
    without = _encoder(sort_keys=sort_keys)

    assert without(value) == with_c(value)
    assert without.__func__ is json.JSONEncoder.encode  # type: ignore[attr-defined]
