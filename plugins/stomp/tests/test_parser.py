from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_stomp.core import Frame, FrameError, Limits, Parser, StompError, encode

from .far_side import COMMANDS, cut, read, told
from .fuzzing import check

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
HEADERS = st.dictionaries(TEXT.filter(bool).filter(lambda key: key != "content-length"), TEXT, max_size=4)


@pytest.mark.parametrize(
    ("data", "frames"),
    [
        (b"RECEIPT\nreceipt-id:1\n\n\0", [("RECEIPT", {"receipt-id": "1"}, b"", 0)]),
        (b"\n\r\n\nRECEIPT\n\n\0\n", [("RECEIPT", {}, b"", 0)]),
        (b"RECEIPT\r\na:b\r\n\r\n\0", [("RECEIPT", {"a": "b"}, b"", 0)]),
        (b"MESSAGE\na:b\na:c\n\n\0", [("MESSAGE", {"a": "b"}, b"", 0)]),
        (b"MESSAGE\na:b:c\n\n\0", [("MESSAGE", {"a": "b:c"}, b"", 0)]),
        (b"MESSAGE\na:\n\n\0", [("MESSAGE", {"a": ""}, b"", 0)]),
        (b"MESSAGE\n a : b \n\n\0", [("MESSAGE", {" a ": " b "}, b"", 0)]),
        (b"MESSAGE\na\\cb:\\n\\r\\\\\n\n\0", [("MESSAGE", {"a:b": "\n\r\\"}, b"", 0)]),
        (b"CONNECTED\nsession:a\\cb\n\n\0", [("CONNECTED", {"session": "a\\cb"}, b"", 0)]),
        (b"MESSAGE\n\na\nb\0", [("MESSAGE", {}, b"a\nb", 0)]),
        (b"MESSAGE\ncontent-length:3\n\na\0b\0", [("MESSAGE", {"content-length": "3"}, b"a\0b", 0)]),
        (b"MESSAGE\ncontent-length:0\n\n\0", [("MESSAGE", {"content-length": "0"}, b"", 0)]),
        (b"MESSAGE\ncontent-length:21\n\n" + b"x" * 21 + b"\0", [("MESSAGE", {"content-length": "21"}, b"", 21)]),
        (b"MESSAGE\n\n" + b"x" * 20 + b"\0", [("MESSAGE", {}, b"x" * 20, 0)]),
        (b"RECEIPT\n\n\0RECEIPT\n\n", [("RECEIPT", {}, b"", 0)]),
        (b"RECEIPT", []),
        (b"\r", []),
    ],
)
def test_what_is_stomp_is_read(data: bytes, frames: list[object]) -> None:
    assert read([data]) == (frames, False)
    assert read(cut(data, range(len(data)))) == (frames, False)


@pytest.mark.parametrize(
    "data",
    [
        b"SUBSCRIBE\n\n\0",
        b"message\n\n\0",
        b"MESSAGE\nno colon\n\n\0",
        b"MESSAGE\n:no name\n\n\0",
        b"MESSAGE\na:\\t\n\n\0",
        b"MESSAGE\na:b\\\n\n\0",
        b"MESSAGE\na:b\rc\n\n\0",
        b"MESSAGE\na:\xff\n\n\0",
        b"MESSAGE\na:b\0\n\n\0",
        b"\0",
        b"\rMESSAGE\n\n\0",
        b"MESSAGE\ncontent-length:x\n\n\0",
        b"MESSAGE\ncontent-length:-1\n\n\0",
        b"MESSAGE\ncontent-length:1\n\nab\0",
        b"MESSAGE\ncontent-length:9999999999999\n\n\0",
        b"MESSAGE\n\n" + b"x" * 21,
        b"MESSAGE\na:" + b"x" * 29 + b"\n\n\0",
        b"MESSAGE\n" + b"a:b\n" * 5 + b"\n\0",
        b"MESSAGE\n" + b"aaaaaaaaaa:b\n" * 20,
    ],
)
def test_what_is_none_ends_it_for_good(data: bytes) -> None:
    parser = Parser(COMMANDS, Limits(headers=4, line=30, head=60, body=20))
    parser.feed(data)
    with pytest.raises(StompError):
        parser.next_frame()
    parser.feed(b"RECEIPT\n\n\0")

    with pytest.raises(StompError):
        parser.next_frame()
    assert read(cut(data, range(len(data))))[1]


def test_the_version_before_has_one_escape_less_and_no_carriage_returns_at_line_ends() -> None:
    assert read([b"MESSAGE\na:b\r\n\n\0"], version="1.1") == ([("MESSAGE", {"a": "b\r"}, b"", 0)], False)
    assert read([b"MESSAGE\na:\\r\n\n\0"], version="1.1") == ([], True)
    assert encode(Frame("SEND", {"a": "b\r\\r"}), "1.1") == b"SEND\na:b\r\\\\r\ncontent-length:0\n\n\0"


@given(headers=HEADERS, body=st.binary(max_size=300), version=st.sampled_from(["1.2", "1.1"]), places=st.data())
def test_what_is_written_is_read_however_it_is_cut(
    headers: dict[str, str], body: bytes, version: str, places: st.DataObject
) -> None:
    data = encode(Frame("SEND", headers, body), version) + b"\n"
    pieces = cut(data, places.draw(st.lists(st.integers(0, len(data)), max_size=5)))

    frames, is_wrong = read(pieces, limits=Limits(), version=version)

    assert not is_wrong
    assert frames == [("SEND", {**headers, "content-length": str(len(body))}, body, 0)]


@pytest.mark.parametrize(
    "frame", [Frame("SEND", {"a": "\0"}), Frame("CONNECT", {"passcode": "a\nb"}), Frame("SEND", {"a": "\ud800"})]
)
def test_what_has_no_place_in_a_frame_is_not_written(frame: Frame) -> None:
    with pytest.raises(FrameError):
        encode(frame, "1.2")


def test_a_frame_does_not_show_what_it_holds() -> None:
    assert repr(Frame("SEND", {"passcode": "hunter2"}, b"hunter2")) == "<Frame SEND, 1 headers, 7 bytes>"


def test_a_large_body_comes_in_pieces_and_whole() -> None:
    body = random.Random(1).randbytes(3_000_000)
    parser = Parser(COMMANDS)
    data = encode(Frame("MESSAGE", {"a": "b"}, body), "1.2")
    for begin in range(0, len(data), 65536):
        assert parser.next_frame() is None
        parser.feed(data[begin : begin + 65536])
    frame = parser.next_frame()

    assert frame is not None
    assert told(frame)[2] == body


def test_a_body_that_is_too_large_is_not_kept() -> None:
    parser = Parser(COMMANDS, Limits(body=1000))
    parser.feed(b"MESSAGE\ncontent-length:100000000\n\n")
    for _ in range(10):
        assert parser.next_frame() is None
        parser.feed(bytes(10_000_000))

    assert len(parser._buffer) == 0
    parser.feed(b"\0")
    frame = parser.next_frame()
    assert frame is not None
    assert frame.skipped == 100_000_000


NAMED = b"MESSAGE\nsubscription:1\nmessage-id:2\n"


@pytest.mark.parametrize(
    ("head", "flaw"),
    [
        (b"a:b\0c\n", "NUL"),
        (b"a:\xff\n", "no UTF-8"),
        (b"no colon\n", "no colon"),
        (b":no name\n", "no name"),
        (b"a:\\t\n", "escape"),
        (b"a:b\rc\n", "carriage return"),
        (b"a:b\n" * 50, "too many headers"),
        (b"a:" + b"x" * 300 + b"\n", "too long a one"),
        (b"a:" + b"x" * 900 + b"\n", "more than 400 bytes"),
    ],
)
@pytest.mark.parametrize("length", [b"", b"content-length:4\n"])
def test_a_message_that_cannot_be_read_is_named_and_ends_nothing(head: bytes, flaw: str, length: bytes) -> None:
    data = NAMED + head + length + b"\nbody\0RECEIPT\nreceipt-id:7\n\n\0"
    limits = Limits(headers=10, line=200, head=400, body=1000)
    names = {"subscription": "1", "message-id": "2", **({"content-length": "4"} if length else {})}

    parser = Parser(COMMANDS, limits)
    parser.feed(data)
    frames = [parser.next_frame(), parser.next_frame()]

    assert [frame and frame.command for frame in frames] == ["MESSAGE", "RECEIPT"]
    assert frames[0] is not None
    assert frames[0].headers == names
    assert flaw in frames[0].flaw
    assert frames[1] is not None
    assert not frames[1].flaw
    assert read(cut(data, range(len(data))), limits=limits) == read([data], limits=limits)


def test_headers_that_never_end_are_not_kept_for_ever() -> None:
    parser = Parser(COMMANDS, Limits(head=400, body=1000))
    parser.feed(NAMED + b"a:" + b"x" * 1400)

    with pytest.raises(StompError, match="more than 1400 bytes"):
        parser.next_frame()


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"a": "x" * 70_000}, 'header "a" has 70002 characters; 65536 are possible'),
        ({str(number): "x" * 30_000 for number in range(9)}, "its headers have 270"),
        ({str(number): "" for number in range(300)}, "it has 301 headers"),
    ],
)
def test_what_nobody_would_read_is_not_written(headers: dict[str, str], says: str) -> None:
    with pytest.raises(FrameError, match=says):
        encode(Frame("SEND", headers), "1.2")


@pytest.mark.parametrize("block", range(4))
def test_no_input_has_another_verdict_for_how_it_is_cut(block: int) -> None:
    for seed in range(block * 1500, (block + 1) * 1500):
        check(seed)
