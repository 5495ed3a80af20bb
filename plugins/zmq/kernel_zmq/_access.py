"""CURVE: the keys of a socket, and on the server's side who may connect."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import trio
import zmq

from kernel.abc import Context, Seldom
from kernel.errors import StartupError

from ._config import CurveConfig
from ._monitor import UNFIT, Monitor, open_monitor
from ._socket import Socket

_ZAP: Final = "inproc://zeromq.zap.01"
_VERSION: Final = b"1.0"
_CURVE: Final = b"CURVE"


@asynccontextmanager
async def guard(
    owner: zmq.Context[zmq.Socket[bytes]], raw: zmq.Socket[bytes], curve: CurveConfig | None, context: Context
) -> AsyncGenerator[None]:
    """Give a socket its keys; inside, those who connect are asked for theirs.

    libzmq asks a socket at a fixed address about each that connects. Source: ZeroMQ RFC 27, ZAP.

    Raises:
        StartupError: if a key is none.

    Cancellation: Is a checkpoint.
    """
    await trio.lowlevel.checkpoint()
    if curve is None:
        yield
        return
    try:
        raw.curve_secretkey = curve.secret_key.reveal().encode()
        raw.curve_publickey = zmq.curve_public(curve.secret_key.reveal().encode())
        if curve.server_key:
            raw.curve_serverkey = curve.server_key.encode()
    except (zmq.ZMQError, ValueError) as error:  # without the text, which may hold the key
        raise StartupError(f"{context.id}: a key of `curve` is no key of CURVE") from error
    if curve.server_key:
        yield
        return
    raw.curve_server = True
    raw.zap_domain = b"kernel"
    asked = owner.socket(zmq.REP)
    try:
        asked.bind(_ZAP)
        seldom = Seldom(context)
        with open_monitor(Socket(raw), UNFIT) as monitor:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_answer, Socket(asked), {zmq_key(key) for key in curve.allowed_keys}, seldom)
                nursery.start_soon(_tell_of_unfit, monitor, seldom)
                yield
                nursery.cancel_scope.cancel()
    finally:
        asked.close(0)


def zmq_key(text: str) -> bytes:
    """Return the 32 bytes of a key in Z85."""
    from zmq.utils import z85  # noqa: PLC0415  only where there are keys

    return z85.decode(text.encode())


async def _answer(socket: Socket, allowed: set[bytes], seldom: Seldom) -> None:
    while True:
        version, request, _domain, address, _identity, mechanism, *credentials = await socket.recv()
        is_allowed = version == _VERSION and mechanism == _CURVE and credentials[:1] and credentials[0] in allowed
        if not is_allowed:
            facts = {"address": address, "mechanism": mechanism}
            seldom.warn("peer_refused", **{name: value.decode("ascii", "replace") for name, value in facts.items()})
        status = (b"200", b"") if is_allowed else (b"400", b"not allowed")
        await socket.send([_VERSION, request, *status, b"", b""])


async def _tell_of_unfit(monitor: Monitor, seldom: Seldom) -> None:
    """Warn of peers that no key was asked of, since they do not speak CURVE; libzmq does not say where they are."""
    while True:
        await monitor.next()
        seldom.warn("peer_refused", mechanism="not CURVE")
