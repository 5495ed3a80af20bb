"""Reading and writing JSON for all protocols; the tests of `plugins/json` hold most of the facts."""

from __future__ import annotations

import enum
import json
import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, ItemsView, Iterator
from functools import partial
from itertools import accumulate
from types import MappingProxyType

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from kernel import read_json, write_json
from kernel._convert.json_reading import _UNREAD, _read, _read_fast, is_deeper
from kernel._convert.json_writing import _write, _write_fast
from kernel.errors import MAX_ERROR_TEXT, DecodeError, EncodeError, error_text

LIMITS = {"max_bytes": 1000, "max_depth": 8}


class TextlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Twice(dict[str, int]):
    """Shows other items than it holds."""

    @override
    def items(self) -> ItemsView[str, int]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return {key: value * 2 for key, value in super().items()}.items()


@attrs.define(init=False)
class Tagged(dict[str, int]):
    tag: str = "t"


@attrs.define
class Box:
    inner: object


class Name(str): ...


class Kind(str, enum.Enum):  # noqa: UP042  the older way
    NEW = "new"


class Number(float): ...


class Count(int): ...


class Rows(list[int]): ...


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


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (Twice(a=1), b'{"a":2}'),
        (Tagged(a=1), b'{"a":1}'),
        ([Name("x"), Kind.NEW, Number(1.5), Count(3), Rows([1])], b'["x","new",1.5,3,[1]]'),
        ({"a": None, "b": "null", "c": [1.5, (None,)]}, b'{"a":null,"b":"null","c":[1.5,[null]]}'),
        ({"a": 2**64, "b": 1.5}, b'{"a":18446744073709551616,"b":1.5}'),
        ({1: None, 2: [True]}, b'{"1":null,"2":[true]}'),
    ],
    ids=["items", "attrs", "subclasses", "null", "integer", "keys"],
)
def test_who_writes_makes_no_difference(value: object, body: bytes) -> None:
    assert write_json(value, **LIMITS) == _write(value, sort_keys=True) == body


@pytest.mark.parametrize("other", [OrderedDict, MappingProxyType, partial(defaultdict, int)])
def test_equal_values_give_equal_bytes(other: Callable[[dict[str, object]], object]) -> None:
    value: dict[str, object] = {"huge": 1e16, "none": None, "tiny": 1e-7}

    assert other(value) == value
    assert write_json(other(value), **LIMITS) == write_json(value, **LIMITS)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("beside", [None, "null", 1])
def test_what_is_no_number_is_refused_whatever_is_beside_it(number: float, beside: object) -> None:
    with pytest.raises(EncodeError, match=r"^payload\.b\[0\]: is (nan|inf|-inf), which is not a number of JSON"):
        write_json({"a": beside, "b": [number]}, **LIMITS)


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}, lambda value: (value,), Box])
def test_what_is_far_too_deep_is_refused_and_ends_nothing(wrap: Callable[[object], object]) -> None:
    """There are versions of orjson that end the process here: those are outside of the bounds in pyproject.toml."""
    value: object = 1
    for _ in range(100_000):
        value = wrap(value)

    with pytest.raises(EncodeError, match=r"nested too deep|RecursionError"):
        write_json(value, **LIMITS)


@pytest.mark.parametrize("sort_keys", [True, False])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["null", "\x1f\x7f\u2028"]),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner) | st.tuples(inner, inner),
        max_leaves=8,
    )
)
def test_both_writers_give_the_same_text(value: object, *, sort_keys: bool) -> None:
    assert _write_fast(value, sort_keys=sort_keys) in {b"", _write(value, sort_keys=sort_keys)}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_both_writers_give_the_same_number(value: float) -> None:
    assert read_json(_write_fast(value, sort_keys=True), **LIMITS) == value == float(_write(value, sort_keys=True))


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"b":[{}],"c":"\xc3\xa9 \\n","d":-1.5}',
        b'{"a": 1, "b": [null, true, "x  y"]}',
        b'{\r\n\t"a":\r\n\t\t[]\r\n}\n',
        b"18446744073709551615",
    ],
    ids=["compact", "spaced", "indented", "integer"],
)
def test_what_most_programs_write_is_read_fast(body: bytes) -> None:
    assert _read_fast(body) == _read(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b" :1}}',
        b'{"a":1,"\\u0061":1}',
        b"18446744073709551616",
        b"-9223372036854775809",
        b"NaN",
        b"1e999",
        b'"\\ud800"',
        b"[" * 500 + b"]" * 500,
        b"{} {}",
    ],
    ids=["key", "spaced key", "escaped key", "integer", "negative", "nan", "float", "surrogate", "deep", "two"],
)
def test_what_would_be_read_otherwise_is_not_read_fast(body: bytes) -> None:
    assert _read_fast(body) is _UNREAD


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
STYLES = st.sampled_from([{}, {"indent": 1}, {"ensure_ascii": False}, {"separators": (",", ":")}])


@given(
    text=st.builds(lambda value, style: json.dumps(value, **style), JSON, STYLES)
    | st.text(alphabet='[]{}",:\\ue012345678d8.-+ ', max_size=40)
)
def test_both_readers_read_the_same(text: str) -> None:
    body = text.encode("utf-8", "surrogatepass")
    value = _read_fast(body)

    assert value is _UNREAD or repr(value) == repr(_read(body))


@given(st.lists(st.sampled_from("[]{}"), max_size=60), st.integers(0, 3000), st.integers(1, 12))
def test_depth_is_the_most_brackets_that_are_open(brackets: list[str], pairs: int, limit: int) -> None:
    text = "[]" * pairs + "".join(brackets)
    depths = accumulate((1 if bracket in "[{" else -1 for bracket in text), initial=0)

    assert is_deeper(text.encode(), limit) is (max(depths) > limit)


def test_a_text_is_looked_at_no_further_than_to_where_it_is_too_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0

    def counted(steps: memoryview, *, initial: int) -> Iterator[int]:
        nonlocal seen
        seen += len(steps)
        return accumulate(steps, initial=initial)

    monkeypatch.setattr("kernel._convert.json_reading.accumulate", counted)

    assert is_deeper(b"[" * 1_000_000, 64)
    assert seen < 10_000
