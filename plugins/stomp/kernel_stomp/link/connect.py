"""Making a connection: which host, TCP, TLS, and the handshake of STOMP, each with one clear error."""

from __future__ import annotations

import math
import os
import random
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Final, cast, final

import attrs
import trio

from .._errors import LinkError, LoginRefusedError
from ..core import Frame, FrameError, Limits, Parser, StompError, encode

CHUNK: Final = 64 * 1024
"""Bytes that are read at once."""
_SERVER: Final = frozenset({"CONNECTED", "MESSAGE", "RECEIPT", "ERROR"})
_VERSIONS: Final = ("1.2", "1.1")
_PASSING: Final = ("limit", "quota", "starting", "shutting")
"""Words in an answer to a login that pass by themselves: it is the server that cannot, and not the user that may not."""


@final
@attrs.frozen(kw_only=True, repr=False)
class LinkSettings:
    """Where a server is, and how to talk to it."""

    hosts: tuple[tuple[str, int], ...] = attrs.field(validator=attrs.validators.min_len(1))
    """Hosts and ports of one server or of the nodes of one cluster; tried in random order."""
    headers: Mapping[str, str]
    """Of CONNECT: `login`, `passcode`, `host`; those that are missing are not sent, but for `host`."""
    heartbeat: float = 10.0
    """Seconds; a dead peer is found within two of them."""
    limits: Limits = attrs.field(factory=Limits)
    tls: ssl.SSLContext | None = None
    """None for a connection in the clear."""
    server_name: str = ""
    """The name that the certificate must be for; empty for the host."""
    connect_timeout: float = 10.0
    """Seconds for each host, from the first packet to the open connection; at most two heartbeats."""


@final
@attrs.frozen(kw_only=True, repr=False)
class Joined:
    """A connection that is open."""

    stream: trio.abc.Stream
    parser: Parser
    where: str
    """`host:port`."""
    beat: float
    """Seconds between two signs of life of ours, at most."""
    hears: bool
    """Whether the server sends signs of life."""


async def join(settings: LinkSettings) -> Joined:
    """Connect to the first host that answers.

    Raises:
        LinkError: if none does; says why for each.
        LoginRefusedError: if one refuses the login; the others would, too.

    Cancellation: Is a checkpoint. If cancelled, nothing stays open.
    """
    failures: list[LinkError] = []
    for host, port in random.sample(settings.hosts, len(settings.hosts)):
        try:
            return await _join_host(host, port, settings)
        except LinkError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    raise LinkError("no host could be reached: " + "; ".join(map(str, failures))) from failures[0]


async def _join_host(host: str, port: int, settings: LinkSettings) -> Joined:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    seconds = min(settings.connect_timeout, 2 * settings.heartbeat)
    with trio.move_on_after(seconds):
        async with AsyncExitStack() as stack:
            stream = await _open_stream(host, port, where, settings, stack)
            joined = await shake_hands(stream, where, settings, host=host)
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
    encrypted = trio.SSLStream(stream, settings.tls, server_hostname=settings.server_name or host)
    try:
        await encrypted.do_handshake()
    except trio.BrokenResourceError as error:
        raise LinkError(f"{where}: {_tls_failure(error.__cause__)}") from error
    return encrypted


async def shake_hands(stream: trio.abc.Stream, where: str, settings: LinkSettings, *, host: str) -> Joined:
    """Open the session on a stream.

    Raises:
        LinkError: if the peer ends it, or speaks no STOMP.
        LoginRefusedError: if the server refuses user, passcode or host.

    Cancellation: Is a checkpoint.
    """
    milliseconds = math.ceil(settings.heartbeat * 1000)
    headers = {
        "accept-version": ",".join(_VERSIONS),
        "heart-beat": f"{milliseconds},{milliseconds}",
        "host": host,
        **settings.headers,
    }
    parser = Parser(_SERVER, settings.limits)
    try:
        await stream.send_all(encode(Frame("CONNECT", headers), _VERSIONS[0]))
        answer = await _answer(stream, parser, where)
    except trio.BrokenResourceError as error:
        raise LinkError(f"{where} broke the connection off while it was being opened{_why(error)}") from error
    except (StompError, FrameError) as error:
        raise LinkError(f"{where} speaks no STOMP, or another: {error}") from error
    return _agreed(stream, parser, where, answer, settings.heartbeat)


async def _answer(stream: trio.abc.Stream, parser: Parser, where: str) -> Frame:
    while (frame := parser.next_frame()) is None:
        data = await stream.receive_some(CHUNK)
        if not data:
            raise LinkError(f"{where} closed the connection while it was being opened; does it expect TLS, or not?")
        parser.feed(data)
    if frame.command == "ERROR":
        raise _refusal(said(frame), where)
    if frame.command != "CONNECTED":
        raise LinkError(f"{where} answered the login with {frame.command}")
    return frame  # noqa: ASYNC910  it has read what the peer answered


def _agreed(stream: trio.abc.Stream, parser: Parser, where: str, answer: Frame, wanted: float) -> Joined:
    version = answer.headers.get("version", "1.0")
    if version not in _VERSIONS:
        raise LinkError(f"{where} speaks STOMP {version[:20]}: 1.2 or 1.1 is needed")
    parser.version = version
    sends, wants = _beats(answer.headers.get("heart-beat", "0,0"))
    return Joined(
        stream=stream,
        parser=parser,
        where=where,
        beat=wanted if not wants else max(wanted, wants / 1000),
        hears=sends > 0,
    )


def _beats(text: str) -> tuple[int, int]:
    """Return what the server sends and wants, in milliseconds; nonsense is none."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() and len(part) < 12 for part in parts):
        return 0, 0
    return int(parts[0]), int(parts[1])


def said(frame: Frame) -> str:
    """Return what the server says in an ERROR, on one line and not too long."""
    texts = (frame.headers.get("message", ""), frame.body.decode(errors="replace"))
    return " ".join(": ".join(text for text in texts if text.strip()).split())[:500]


def _refusal(text: str, where: str) -> Exception:
    if any(word in text.lower() for word in _PASSING):
        return LinkError(f"{where} opened no connection: {text}")
    return LoginRefusedError(where, text)


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
