"""The quick ways around the parser and the encoder: they take what is usual, and mean what the slow ways mean."""

from __future__ import annotations

import pytest
from kernel_stomp.core import Frame, FrameError, Limits, encode, encode_ack, named
from kernel_stomp.core.quick import read_quickly

from .far_side import COMMANDS, cut, read

LIMITS = Limits()
BODY = b"content-length:2\n\nab\0"
QUICK = {
    "plain": (b"MESSAGE\na:b\n" + BODY, {"a": "b", "content-length": "2"}),
    "colons": (b"MESSAGE\nack:ID\\cvm-1\\c2\n" + BODY, {"ack": "ID:vm-1:2", "content-length": "2"}),
    "a bare colon": (b"MESSAGE\na:b:c\n" + BODY, {"a": "b:c", "content-length": "2"}),
    "beats before": (b"\n\nMESSAGE\na:\n" + BODY, {"a": "", "content-length": "2"}),
    "not escaped": (b"CONNECTED\na:\\c\n" + BODY, {"a": "\\c", "content-length": "2"}),
}
SLOW = {
    "a backslash before a c": b"MESSAGE\na:\\\\c\n" + BODY,
    "a line feed": b"MESSAGE\na:b\\nc\\cd\n" + BODY,
    "an escaped name": b"MESSAGE\na\\cb:c\n" + BODY,
    "an escape of nothing": b"MESSAGE\na:\\t\\c\n" + BODY,
    "a header twice": b"MESSAGE\na:b\na:c\n" + BODY,
    "no name": b"MESSAGE\n:b\n" + BODY,
    "no colon": b"MESSAGE\na\n" + BODY,
    "a carriage return": b"MESSAGE\na:b\r\n" + BODY,
    "an end with a carriage return": b"MESSAGE\na:b\n\r\nab\n\n\0" + BODY,
    "a NUL": b"MESSAGE\na:\0b\nmessage-id:1\n" + BODY,
    "no UTF-8": b"MESSAGE\na:\xff\nmessage-id:1\n" + BODY,
    "no length": b"MESSAGE\na:b\n\nab\0",
    "no number": b"MESSAGE\ncontent-length:-2\n\nab\0",
    "another length": b"MESSAGE\ncontent-length:1\n\nab\0",
    "no such command": b"ACK\na:b\n" + BODY,
}


@pytest.mark.parametrize(("data", "headers"), QUICK.values(), ids=QUICK)
def test_what_is_usual_is_read_in_one_go_and_as_the_parser_reads_it(data: bytes, headers: dict[str, str]) -> None:
    quick = read_quickly(bytearray(data), 0, COMMANDS, LIMITS)
    slow = read(cut(data, range(len(data))), limits=LIMITS)

    assert quick is not None
    assert (quick[0].headers, quick[0].body, quick[1]) == (headers, b"ab", len(data))
    assert slow == read([data], limits=LIMITS) == ([(quick[0].command, headers, b"ab", 0)], False)


@pytest.mark.parametrize("data", SLOW.values(), ids=SLOW)
def test_whatever_else_comes_is_left_to_the_parser(data: bytes) -> None:
    assert read_quickly(bytearray(data), 0, COMMANDS, LIMITS) is None
    assert read([data], limits=LIMITS) == read(cut(data, range(len(data))), limits=LIMITS)


@pytest.mark.parametrize("end", range(len(QUICK["plain"][0])))
def test_what_is_not_whole_is_left_to_the_parser(end: int) -> None:
    assert read_quickly(bytearray(QUICK["plain"][0][:end]), 0, COMMANDS, LIMITS) is None


@pytest.mark.parametrize(
    "limits",
    [Limits(line=10), Limits(head=10), Limits(headers=1), Limits(body=1)],
    ids=["line", "head", "headers", "body"],
)
def test_what_is_beyond_a_limit_is_left_to_the_parser(limits: Limits) -> None:
    assert read_quickly(bytearray(QUICK["plain"][0]), 0, COMMANDS, limits) is None


@pytest.mark.parametrize("version", ["1.2", "1.1"])
@pytest.mark.parametrize("name", ["T_1@@a@@1", "ID:vm-1:2", "a\\b:c\nd\re", "\\c", "\u00e4", "", "x:" * 2000])
def test_an_acknowledgement_is_written_as_every_other_frame(name: str, version: str) -> None:
    message = Frame("MESSAGE", {"ack": name, "message-id": "1", "subscription": "s"})

    assert encode_ack(message, version) == encode(Frame("ACK", named(message)), version)


def test_one_that_has_no_place_in_a_frame_is_not_written() -> None:
    with pytest.raises(FrameError):
        encode_ack(Frame("MESSAGE", {"ack": "a\0"}), "1.2")


def test_a_message_of_the_version_before_is_named_by_two_headers() -> None:
    message = Frame("MESSAGE", {"message-id": "1", "subscription": "s"})

    assert encode_ack(message, "1.1") == b"ACK\nmessage-id:1\nsubscription:s\n\n\0"
