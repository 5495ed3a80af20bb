"""Making a connection: which host, TCP, TLS, and the handshake of AMQP, each with one clear error."""

from __future__ import annotations

import math
import os
import random
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, cast, final

import attrs
import trio

from .._errors import LinkError, LoginRefusedError
from ..core import Closed, Connection, Event, Opened, Settings

CHUNK: Final = 64 * 1024
"""Bytes that are read at once."""
CLOSE_TIMEOUT: Final = 2.0
_QUESTIONS: Final = 3
"""Round trips of a handshake: header and start, start-ok and tune, open and open-ok."""
_REFUSED: Final = (403, 530)
"""Reply codes: access refused, not allowed. Source: AMQP 0-9-1, constants."""


@final
@attrs.frozen(kw_only=True, repr=False)
class LinkSettings:
    """Where a broker is, and how to talk to it."""

    hosts: tuple[tuple[str, int], ...] = attrs.field(validator=attrs.validators.min_len(1))
    """Hosts and ports of one broker or of the nodes of one cluster; tried in random order."""
    core: Settings
    """Of the protocol. `heartbeat` is H where a dead peer is to be found within 2 H seconds."""
    tls: ssl.SSLContext | None = None
    """None for a connection in the clear."""
    server_name: str = ""
    """The name that the certificate must be for; empty for the host."""
    connect_timeout: float = 10.0
    """Seconds for each host, from the first packet to the open connection; at most two heartbeats, so that an attempt
    that began while nothing came through is given up as soon as a connection is."""
    close_timeout: float = CLOSE_TIMEOUT
    """Seconds for the last words, of ours and of the broker's, when the connection is closed."""


@final
@attrs.frozen(kw_only=True, repr=False)
class Joined:
    """A connection that is open."""

    stream: trio.abc.Stream
    connection: Connection
    where: str
    """`host:port`."""
    early: Sequence[Event]
    """What came together with the end of the handshake."""
    round_trip: float
    """Seconds that the broker took for an answer, during the handshake."""


async def join(settings: LinkSettings) -> Joined:
    """Connect to the first host that answers.

    Raises:
        LinkError: if none does; says why for each.
        LoginRefusedError: if one refuses the login; the others would, too.

    Cancellation: Is a checkpoint. If cancelled, nothing stays open.
    """
    settings = attrs.evolve(settings, core=_in_time(settings.core))
    failures: list[LinkError] = []
    for host, port in random.sample(settings.hosts, len(settings.hosts)):
        try:
            return await _join_host(host, port, settings)
        except LinkError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    raise LinkError("no host could be reached: " + "; ".join(map(str, failures))) from failures[0]


def _in_time(core: Settings) -> Settings:
    """Return settings with a heartbeat with which both sides find a dead peer within twice what was asked for.

    RabbitMQ looks once an interval and ends the connection at the second look that finds nothing, so it can take three.
    With 1 s, the least that the wire can say, it has to; the link finds out by itself, as long as it can probe.
    """
    asked = core.heartbeat
    return attrs.evolve(core, heartbeat=max(1, asked * 2 // 3)) if asked else core


async def _join_host(host: str, port: int, settings: LinkSettings) -> Joined:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    seconds = min(settings.connect_timeout, 2 * settings.core.heartbeat or math.inf)
    with trio.move_on_after(seconds):
        async with AsyncExitStack() as stack:
            stream = await _open_stream(host, port, where, settings, stack)
            joined = await shake_hands(stream, where, settings.core)
            stack.pop_all()
            return joined
    raise LinkError(f"{where} did not open a connection within {seconds:g} s")


async def _open_stream(
    host: str, port: int, where: str, settings: LinkSettings, stack: AsyncExitStack
) -> trio.abc.Stream:
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise LinkError(f"{where} cannot be reached: {_first_cause(error)}") from error
    stack.push_async_callback(trio.aclose_forcefully, stream)
    if settings.tls is None:
        return stream
    return await encrypt(stream, settings.tls, name=settings.server_name or host, where=where)


async def encrypt(
    stream: trio.abc.Stream, context: ssl.SSLContext, *, name: str, where: str
) -> trio.SSLStream[trio.abc.Stream]:
    """Start TLS on a stream.

    Args:
        stream: What carries it.
        context: Says what is verified.
        name: The name that the certificate must be for.
        where: `host:port`, for errors.

    Raises:
        LinkError: if the certificate is not accepted, or the other side speaks no TLS.

    Cancellation: Is a checkpoint.
    """
    encrypted = trio.SSLStream(stream, context, server_hostname=name)
    try:
        await encrypted.do_handshake()
    except trio.BrokenResourceError as error:
        raise LinkError(f"{where}: {_tls_failure(error.__cause__)}") from error
    return encrypted


async def shake_hands(stream: trio.abc.Stream, where: str, settings: Settings) -> Joined:
    """Open the AMQP connection on a stream.

    Raises:
        LinkError: if the peer ends it, or is no broker.
        LoginRefusedError: if the broker refuses user, password or virtual host.

    Cancellation: Is a checkpoint.
    """
    connection = Connection(settings)
    connection.start()
    began = trio.current_time()
    try:
        early = await _negotiate(stream, connection, where)
    except trio.BrokenResourceError as error:
        raise LinkError(f"{where} broke the connection off while it was being opened{_why(error)}") from error
    round_trip = (trio.current_time() - began) / _QUESTIONS
    return Joined(stream=stream, connection=connection, where=where, early=early, round_trip=round_trip)


async def _negotiate(stream: trio.abc.Stream, connection: Connection, where: str) -> Sequence[Event]:
    while True:
        await stream.send_all(connection.data_to_send())
        data = bytes(await stream.receive_some(CHUNK))
        if not data:
            raise LinkError(f"{where} closed the connection while it was being opened; does it expect TLS, or not?")
        events = connection.receive(data)
        for index, event in enumerate(events):
            if isinstance(event, Closed):
                await stream.send_all(connection.data_to_send())
                raise _refusal(event, where)
            if isinstance(event, Opened):
                return events[index + 1 :]


def _refusal(event: Closed, where: str) -> Exception:
    # A limit of connections has the code of a wrong virtual host, but passes by itself.
    if event.code in _REFUSED and "limit" not in event.text:
        return LoginRefusedError(where, code=event.code, text=event.text)
    return LinkError(f"{where} opened no connection: {event.code} {event.text}")


def _tls_failure(error: BaseException | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS could not be agreed upon: {error.reason or error}"
    return "it broke the connection off during the TLS handshake; does it speak TLS there?"


def _why(error: BaseException) -> str:
    return f": {error.__cause__}" if error.__cause__ is not None else ""


def _first_cause(error: BaseException) -> str:
    """Return what one attempt failed with, where several addresses were tried."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cast("BaseExceptionGroup[BaseException]", cause).exceptions[0]
    number = cause.errno if isinstance(cause, OSError) else None
    return os.strerror(number) if number is not None and number > 0 else str(cause or error)
