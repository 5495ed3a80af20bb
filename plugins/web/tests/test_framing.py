"""Heads of answers without I/O: one that is known again says what it would say if nobody had said it before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_web.http1 import framing
from kernel_web.http1.framing import Framing, WrongAnswerError

COMMON = b"date: today\r\n"
NAMES = st.sampled_from([b"content-length", b"Content-Length", b"connection", b"x", b"X", b"x y", b"transfer-encoding"])
VALUES = st.sampled_from([b"1", b"0", b"close", b"", b"a\r\nb", b"z" * 600])
ANSWERS = st.lists(st.tuples(st.sampled_from([200, 204, 304, 404]), st.lists(st.tuples(NAMES, VALUES), max_size=3)))


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    framing._KNOWN.clear()
    yield
    framing._KNOWN.clear()


def answer(status: int, headers: Any, data: bytes = b"1") -> tuple[bytes, bool] | None:
    """Return what an answer is sent as, and whether its connection ends; None if it is refused."""
    framed = Framing("GET", "1.1")
    try:
        framed.start({"type": "http.response.start", "status": status, "headers": headers})
        return framed.body(data, more=False, common=COMMON), framed.last
    except WrongAnswerError:
        return None


@settings(max_examples=300, deadline=None)
@given(ANSWERS)
def test_a_head_says_the_same_however_often_it_is_said(answers: list[Any]) -> None:
    framing._KNOWN.clear()
    fresh = []
    for each in answers:
        fresh.append(answer(*each))
        framing._KNOWN.clear()
    assert [answer(*each) for each in answers * 2] == fresh * 2


@pytest.mark.parametrize(
    "made",
    [
        list, tuple, iter, lambda fields: [list(field) for field in fields],
        lambda fields: [(name, bytearray(value)) for name, value in fields],
        lambda fields: ((name, value) for name, value in fields),
        lambda fields: [(memoryview(name).tobytes(), value) for name, value in fields],
    ],
    ids=["list", "tuple", "iterator", "lists", "bytearrays", "generator", "copies"],
)  # fmt: skip
def test_fields_may_be_whatever_they_can_be_read_from(made: Any) -> None:
    fields = [(b"X-Name", b"1"), (b"Content-Length", b"1")]
    wanted = (b"HTTP/1.1 200 OK\r\nx-name: 1\r\ncontent-length: 1\r\ndate: today\r\n\r\n1", False)
    assert [answer(200, made(fields)) for _ in range(3)] == [wanted] * 3


def test_what_an_application_changes_is_not_what_was_known() -> None:
    value = bytearray(b"1")
    fields = [(b"x", value)]
    first = answer(200, fields)
    value[:] = b"2"
    second = answer(200, fields)

    assert first is not None
    assert b"x: 1" in first[0]
    assert second is not None
    assert b"x: 2" in second[0]


def test_what_is_remembered_has_a_bound() -> None:
    for number in range(10 * framing._KNOWN_MAX):
        answer(200, [(b"x", b"%d" % number)])
        answer(200, [(b"cookie", b"%d" % number * 600)])
    assert len(framing._KNOWN) <= framing._KNOWN_MAX
    assert max(len(block) for block, _, _ in framing._KNOWN.values()) <= framing._KNOWN_BYTES


@pytest.mark.parametrize(
    ("status", "headers", "data", "more", "said"),
    [
        (200, [], b"four", False, b"content-length: 4\r\n"),
        (200, [(b"content-length", b"9")], b"four", False, b"content-length: 9\r\n"),
        (200, [], b"", False, None),
        (200, [], b"four", True, None),
        (304, [], b"four", False, None),
        (204, [], b"four", False, None),
    ],
)
def test_an_answer_to_head_says_how_long_that_to_get_is(
    status: int, headers: Any, data: bytes, more: bool, said: bytes | None
) -> None:
    framed = Framing("HEAD", "1.1")
    framed.start({"type": "http.response.start", "status": status, "headers": headers})
    head = framed.body(data, more=more, common=COMMON)

    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"content-length") == (said is not None)
    assert said is None or said in head
