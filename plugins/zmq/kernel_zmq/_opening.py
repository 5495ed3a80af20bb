"""From a table to an open socket, and its end: what is not sent yet has the time that the table gives, and no more."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final, cast

import trio
import zmq

from kernel import Listening
from kernel.abc import Context, why_not_listening
from kernel.errors import StartupError, UnavailableError

from ._access import guard
from ._config import LimitsConfig, endpoint, place
from ._socket import Socket

_HOPELESS: Final = frozenset({zmq.EINVAL, zmq.EPROTONOSUPPORT, zmq.ENOCOMPATPROTO, errno.ENODEV})
_RECONNECT_FIRST: Final = 100
_RECONNECT_MOST: Final = 5000
"""Milliseconds between tries to connect: the first, and the longest."""
_HANDSHAKE: Final = 5000
"""Milliseconds in which a peer must have shaken hands; libzmq's own 30 s are as long a silence where a peer is restarted
just then."""
_MORE: Final = 0.25
"""Seconds beyond `linger` that libzmq may take to end its thread."""


@asynccontextmanager
async def open_socket(
    kind: int,
    config: LimitsConfig,
    context: Context,
    *,
    bind: tuple[str, ...],
    connect: tuple[str, ...],
    options: Mapping[zmq.SocketOption, int] | None = None,
) -> AsyncGenerator[Socket]:
    """Open a socket of ZeroMQ.

    Args:
        kind: Of socket, as `zmq.ROUTER`.
        config: Of the component.
        context: Of the component.
        bind: Where peers connect to us.
        connect: Where we connect to.
        options: Options of libzmq beside those of the table.

    Raises:
        StartupError: if an endpoint can never be bound or connected, or a key is none.
        UnavailableError: if it cannot be bound now.

    Cancellation: Is a checkpoint on entry. The exit is shielded, and takes `linger` and a quarter of a second at most.
    """
    await trio.lowlevel.checkpoint()
    is_shared = any(text.startswith("inproc:") for text in (*bind, *connect))  # only within one of libzmq's contexts
    owner = cast("zmq.Context[zmq.Socket[bytes]]", zmq.Context.instance() if is_shared else zmq.Context())
    linger = min(config.linger, context.stop_timeout / 2)
    raw: zmq.Socket[bytes] | None = None
    try:
        raw = owner.socket(kind)
        _set_options(raw, config, options or {})
        async with guard(owner, raw, config.curve, context):
            for text in bind:
                await _bind(raw, context, endpoint(text))
            _connect(raw, context, connect)
            yield Socket(raw)
    finally:
        if raw is not None:
            raw.close(round(linger * 1000))
        if not is_shared:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + linger + _MORE):
                await trio.to_thread.run_sync(owner.term, abandon_on_cancel=True)


def _set_options(raw: zmq.Socket[bytes], config: LimitsConfig, options: Mapping[zmq.SocketOption, int]) -> None:
    raw.setsockopt(zmq.SNDHWM, config.send_high_water)
    raw.setsockopt(zmq.RCVHWM, config.receive_high_water)
    raw.setsockopt(zmq.MAXMSGSIZE, config.max_bytes)
    raw.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_FIRST)
    raw.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MOST)
    raw.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE)
    raw.setsockopt(zmq.IPV6, 1)
    if config.heartbeat:
        raw.setsockopt(zmq.HEARTBEAT_IVL, round(config.heartbeat * 1000))
        raw.setsockopt(zmq.HEARTBEAT_TIMEOUT, round(config.heartbeat * 2000))
    for option, value in options.items():
        raw.setsockopt(option, value)


async def _bind(  # noqa: ASYNC910  suspends only to say why it cannot
    raw: zmq.Socket[bytes], context: Context, address: str
) -> None:
    try:
        raw.bind(address)
    except zmq.ZMQError as error:
        kind = StartupError if error.errno in _HOPELESS else UnavailableError
        raise kind(f"{context.id} cannot bind {address}: {await _why_not(error, address)}") from error
    context.emit(Listening(component=context.id, address=last_endpoint(raw)))


async def _why_not(error: zmq.ZMQError, address: str) -> str:
    await trio.lowlevel.checkpoint()
    where = place(address)
    if where is None:
        return error.strerror
    failure = OSError(error.errno, error.strerror)
    return await trio.to_thread.run_sync(why_not_listening, failure, where, abandon_on_cancel=True)


def _connect(raw: zmq.Socket[bytes], context: Context, connect: tuple[str, ...]) -> None:
    for text in connect:
        address = endpoint(text)
        try:
            raw.connect(address)
        except zmq.ZMQError as error:
            raise StartupError(f"{context.id} cannot connect to {address}: {error.strerror}") from error


def last_endpoint(raw: zmq.Socket[bytes]) -> str:
    """Return what the socket was bound to last, with the port that the system has chosen."""
    return raw.getsockopt_string(zmq.LAST_ENDPOINT)
