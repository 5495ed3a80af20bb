"""What Autobahn asks of a server, as far as one that does not echo can be asked: its sections 5, 6 and 7.

Source: the cases of autobahntestsuite 0.8, which `wsproto` and `websockets` run too.
"""

from __future__ import annotations

import json

import pytest
import trio

from .service import double, serving, url_of
from .strangers import REQUEST, masked, raw, read_all, read_head

pytestmark = [pytest.mark.usefixtures("either_way"), pytest.mark.slow]
CALL = '{"jsonrpc": "2.0", "method": "double", "params": [4], "id": "κόσμε"}'.encode()


async def answered_to(sent: bytes) -> bytes:
    """Return all that a server says after the handshake to what is sent, and to the close that follows."""
    async with serving({"double": double}) as service, raw(url_of(service)) as stream:
        await stream.send_all(REQUEST)
        await read_head(stream)
        await stream.send_all(sent)
        with trio.fail_after(10):
            return await read_all(stream)


def code_in(said: bytes) -> int | None:
    """Return the code of the close frame that ends what was said; 1005 is a frame without one."""
    at = said.rfind(b"\x88")
    return None if at < 0 else int.from_bytes(said[at + 2 : at + 4], "big") or 1005


@pytest.mark.parametrize("size", [1, 2, 7, len(CALL)], ids=["5.19 bytes", "in twos", "in sevens", "whole"])
@pytest.mark.parametrize("between", [b"", masked(0x89, b"ping")], ids=["5.3", "5.6 with pings"])
async def test_a_text_in_parts_is_one_text(size: int, between: bytes) -> None:
    parts = [CALL[at : at + size] for at in range(0, len(CALL), size)]
    first = [1, *[0] * (len(parts) - 1)]
    frames = [masked(opcode | (0x80 * (part is parts[-1])), part) for opcode, part in zip(first, parts, strict=True)]
    async with serving({"double": double}) as service, raw(url_of(service)) as stream:
        await stream.send_all(REQUEST)
        await read_head(stream)
        await stream.send_all(between.join(frames))
        said = b""
        with trio.fail_after(10):
            while b"}" not in said:
                said += await stream.receive_some()

    assert said.count(b"ping") == (len(parts) - 1 if between else 0)
    assert json.loads(said[said.index(b"{") :])["result"] == 8


@pytest.mark.parametrize(
    "text",
    [
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\x80",
        b"\xbf",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xed\xbf\xbf",
        b"\xc3",
        b"\xf0\x90\x80",
    ],
    ids=lambda text: text.hex(),
)
@pytest.mark.parametrize("is_cut", [False, True], ids=["6.3 whole", "6.4 cut"])
async def test_a_text_that_is_not_utf_8_ends_the_connection(text: bytes, is_cut: bool) -> None:
    frames = masked(0x01, text[:1]) + masked(0x80, text[1:]) if is_cut else masked(0x81, text)

    assert code_in(await answered_to(frames)) == 1007


@pytest.mark.parametrize(
    "code",
    [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999],
    ids=lambda code: f"7.7 {code}",
)
async def test_a_close_is_answered_with_its_code(code: int) -> None:
    assert code_in(await answered_to(masked(0x88, code.to_bytes(2, "big") + b"reason"))) == code


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999], ids=lambda code: f"7.9 {code}")
async def test_a_close_with_a_code_that_nobody_may_send_is_a_mistake(code: int) -> None:
    assert code_in(await answered_to(masked(0x88, code.to_bytes(2, "big")))) == 1002


async def test_an_empty_close_is_answered() -> None:
    assert code_in(await answered_to(masked(0x88, b""))) in {1000, 1005}


async def test_what_comes_after_a_close_is_not_looked_at() -> None:
    said = await answered_to(masked(0x88, b"\x03\xe8") + masked(0x81, CALL) + masked(0x89, b"late"))

    assert b"result" not in said
    assert b"late" not in said
