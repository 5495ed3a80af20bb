"""Making a connection: which host, TCP, TLS, the login and the open of AMQP, each with one clear error."""

from __future__ import annotations

import os
import random
import ssl
from contextlib import AsyncExitStack
from typing import Final, cast, final

import attrs
import trio

from .._errors import LinkError, LoginRefusedError
from .engine import Engine, EngineSettings
from .proton import Proton
from .wire import CHUNK, Bell

_DENIED: Final = ("unauthorized-access", "not-allowed", "not_allowed")
"""What a broker says that lets us in, and then not to the virtual host."""


@final
@attrs.frozen(kw_only=True, repr=False)
class LinkSettings:
    """Where a broker is, and how to talk to it."""

    hosts: tuple[tuple[str, int], ...] = attrs.field(validator=attrs.validators.min_len(1))
    """Hosts and ports of one broker or of the nodes of one cluster; tried in random order."""
    engine: EngineSettings
    """`hostname` may be empty for the host that is connected to."""
    tls: ssl.SSLContext | None = None
    """None for a connection in the clear."""
    server_name: str = ""
    """The name that the certificate must be for; empty for the host."""
    connect_timeout: float = 10.0
    """Seconds for each host, from the first packet to the open connection; at most two idle timeouts."""
    close_timeout: float = 2.0
    """Seconds for the last words."""


@final
@attrs.frozen(kw_only=True, repr=False)
class Joined:
    """A connection that is open."""

    stream: trio.abc.Stream
    engine: Engine
    bell: Bell
    where: str
    """`host:port`."""


async def join(proton: Proton, settings: LinkSettings) -> Joined:
    """Connect to the first host that answers.

    Raises:
        LinkError: if none does; says why for each.
        LoginRefusedError: if one refuses the login; the others would, too.

    Cancellation: Is a checkpoint. If cancelled, nothing stays open.
    """
    failures: list[LinkError] = []
    for host, port in random.sample(settings.hosts, len(settings.hosts)):
        try:
            return await _join_host(proton, host, port, settings)
        except LinkError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    raise LinkError("no host could be reached: " + "; ".join(map(str, failures))) from failures[0]


async def _join_host(proton: Proton, host: str, port: int, settings: LinkSettings) -> Joined:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    seconds = min(settings.connect_timeout, 2 * settings.engine.idle_timeout)
    with trio.move_on_after(seconds):
        async with AsyncExitStack() as stack:
            stream = await _open_stream(host, port, where, settings, stack)
            bell = Bell()
            core = settings.engine if settings.engine.hostname else attrs.evolve(settings.engine, hostname=host)
            engine = Engine(proton, core, bell.ring)
            await _shake_hands(stream, engine, where)
            stack.pop_all()
            return Joined(stream=stream, engine=engine, bell=bell, where=where)
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


async def _shake_hands(stream: trio.abc.Stream, engine: Engine, where: str) -> None:
    await trio.lowlevel.checkpoint()
    try:
        while not engine.is_open and not engine.is_refused and engine.over is None:
            while data := engine.data_to_send():
                await stream.send_all(data)
            received = bytes(await stream.receive_some(CHUNK))
            if received:
                engine.receive(received)
            else:
                engine.receive_end()
    except trio.BrokenResourceError as error:
        raise LinkError(f"{where} broke the connection off while it was being opened") from error
    if not engine.is_open or engine.over is not None:
        raise _refusal(engine, where)


def _refusal(engine: Engine, where: str) -> Exception:
    why = engine.over or f"{engine.settings.mechanism} is not accepted"
    if engine.is_refused or any(word in why for word in _DENIED):
        return LoginRefusedError(where, why)
    return LinkError(f"{where} opened no connection: {why}; does it speak AMQP 1.0 there, and TLS or not?")


def _tls_failure(error: BaseException | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS could not be agreed upon: {error.reason or error}"
    return "it broke the connection off during the TLS handshake; does it speak TLS there?"


def _first_cause(error: BaseException) -> str:
    """Return what one attempt failed with, where several addresses were tried."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cast("BaseExceptionGroup[BaseException]", cause).exceptions[0]
    number = cause.errno if isinstance(cause, OSError) else None
    return os.strerror(number) if number is not None and number > 0 else str(cause or error)
