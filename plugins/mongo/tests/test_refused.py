"""Servers that are no MongoDB of ours: whoever does not let us in, and whoever has another name.

The emulator knows neither passwords nor TLS; what a server says there is played.
"""

from __future__ import annotations

import ssl
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import bson
import pytest
import trio
import trustme

from kernel import ComponentFailed, Secret
from kernel.errors import StartupError, UnavailableError
from kernel.testing import OpenKernel

from .conftest import Server, manifest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
PASSWORD = "yellow-feathers"
HEAD = struct.Struct("<iiii")
REPLY, QUERY, MESSAGE = 1, 2004, 2013
"""Opcodes. Source: MongoDB wire protocol."""
HELLO = {
    "ok": 1.0,
    "helloOk": True,
    "isWritablePrimary": True,
    "ismaster": True,
    "minWireVersion": 0,
    "maxWireVersion": 21,
    "maxBsonObjectSize": 2**24,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
    "saslSupportedMechs": ["SCRAM-SHA-256"],
}
REFUSED = {"ok": 0.0, "code": 18, "codeName": "AuthenticationFailed", "errmsg": "Authentication failed."}


async def refuse(stream: trio.abc.Stream) -> None:
    """Greet who connects, and let nobody in."""
    held = bytearray()
    while data := await stream.receive_some():
        held += data
        while len(held) >= HEAD.size and len(held) >= (length := HEAD.unpack_from(held)[0]):
            message = bytes(held[:length])
            del held[:length]
            await stream.send_all(answer_to(message))


def answer_to(message: bytes) -> bytes:
    _, id_, _, opcode = HEAD.unpack_from(message)
    if opcode == QUERY:  # flags, name, two numbers, document
        asked = bson.decode(message[message.index(b"\0", HEAD.size + 4) + 9 :])
        head, kind = struct.pack("<iqii", 8, 0, 0, 1), REPLY
    else:
        asked = bson.decode(message[HEAD.size + 5 :][: struct.unpack_from("<i", message, HEAD.size + 5)[0]])
        head, kind = struct.pack("<iB", 0, 0), MESSAGE
    body = head + bson.encode(HELLO if next(iter(asked)).lower() in {"hello", "ismaster"} else REFUSED)
    return HEAD.pack(HEAD.size + len(body), 0, id_, kind) + body


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    async def serve(stream: trio.abc.Stream) -> None:
        try:
            await refuse(stream)
        except trio.BrokenResourceError:  # the other side did not trust us
            return

    listen: Any = trio.serve_tcp if tls is None else partial(trio.serve_ssl_over_tcp, ssl_context=tls)
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(listen, serve, 0, host="127.0.0.1"))
        yield getattr(listener, "transport_listener", listener).socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_a_wrong_password_is_not_tried_again(server: Server, open_kernel: OpenKernel) -> None:
    async with serving() as port:
        dsn = f"mongodb://127.0.0.1:{port}"
        table = manifest(server, dsn=dsn, username="me", password=Secret(PASSWORD), essential=False)
        async with open_kernel(table, ready=False, expected=StartupError) as service:
            failed = await service.wait_event(ComponentFailed)

    assert failed.restart_in is None
    assert str(failed.error) == "driver/mongo: the server does not let us in: Authentication failed."


async def test_a_certificate_for_another_name_is_refused(
    server: Server, open_kernel: OpenKernel, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    async with serving(context) as port:
        ca = str(tmp_path / "ca.pem")
        table = manifest(server, dsn=f"mongodb://127.0.0.1:{port}", ca=ca, connect_timeout=1.0)
        async with open_kernel(table, ready=False, expected=(StartupError, UnavailableError)) as service:
            failed = await service.wait_event(ComponentFailed)

    assert "certificate verify failed" in str(failed.error)
    assert "elsewhere.example" in str(failed.error) or "IP address mismatch" in str(failed.error)
