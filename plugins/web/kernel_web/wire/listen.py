"""Listening sockets: everything that can be wrong with them is a `StartupError` that says so."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Final, final

import attrs
import trio

from kernel.abc import Context, Endpoint, why_not_listening
from kernel.errors import StartupError

from .._config import Address, WebConfig

NAME_TIMEOUT: Final = 5.0
"""Seconds that the system may take to look a host's name up."""
UNSENT_BYTES: Final = 128 * 1024
"""That the system keeps for a client beyond what is on its way: without a bound it takes megabytes for one that does not
read, and hundreds of those cost more time than all other clients. What is on its way has the client's own bound."""


@final
@attrs.define(eq=False, repr=False)
class Listener:
    """A socket that listens; `close` may be called again."""

    socket: socket.socket
    """Does not block."""
    address: Address
    _inode: int = 0
    """Of a unix socket's file, so that the file of a successor is not removed."""
    is_shared: bool = False
    """Whether other processes of the service accept from it, too."""

    @property
    def shown(self) -> str:
        """Where it listens, the port that the system chose included."""
        if self.address.path:
            return str(self.address)
        host, port = self.socket.getsockname()[:2]
        return str(Address(host=host, port=port))

    def close(self) -> None:
        """Stop listening at once; connections that nobody accepted are reset."""
        if self.socket.fileno() == -1:
            return
        trio.lowlevel.notify_closing(self.socket)
        self.socket.close()
        if self.address.path and self._inode:
            with suppress(OSError):
                if os.stat(self.address.path).st_ino == self._inode:
                    os.unlink(self.address.path)


@asynccontextmanager
async def binding(config: WebConfig, context: Context) -> AsyncGenerator[list[Listener]]:
    """Listen at every address of the configuration, or at none; with other processes, if the service has several.

    Raises:
        StartupError: if one of them is in use, not allowed, or not of this machine.

    Cancellation: Is a checkpoint on entry.
    """
    with ExitStack() as stack:
        listeners: list[Listener] = []
        for address in config.addresses:
            for place in await _resolve(address):
                listener = await _listen(place, address, config, context)
                stack.callback(listener.close)
                listeners.append(listener)
        yield listeners


async def _resolve(address: Address) -> list[Address]:
    """Return the numeric addresses of a host: those of IPv4 if it has any, else those of IPv6."""
    await trio.lowlevel.checkpoint()
    if address.path or address.fd is not None:
        return [address]
    try:
        with trio.fail_after(NAME_TIMEOUT):
            found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, trio.TooSlowError) as error:
        raise StartupError(f'{address}: the host "{address.host}" cannot be found') from error
    family = socket.AF_INET if any(entry[0] is socket.AF_INET for entry in found) else socket.AF_INET6
    hosts = dict.fromkeys(str(entry[4][0]) for entry in found if entry[0] is family)
    return [Address(host=host, port=address.port) for host in hosts]


async def _listen(place: Address, address: Address, config: WebConfig, context: Context) -> Listener:
    try:
        shared = await trio.to_thread.run_sync(context.crew.listener, context.id, _endpoint(place, config))
        if shared is not None:
            return _shared(shared, place, config)
        if place.fd is not None:
            return _inherit(place.fd, config)
        return _bind(place, config)
    except OSError as error:
        failure = error
    reason = await trio.to_thread.run_sync(why_not_listening, failure, _endpoint(place, config), abandon_on_cancel=True)
    raise StartupError(f"{address}: {reason}") from failure


def _endpoint(place: Address, config: WebConfig) -> Endpoint:
    return Endpoint(
        host=place.host,
        port=place.port,
        path=place.path,
        fd=place.fd,
        mode=config.unix_mode,
        backlog=config.backlog,
    )


def _shared(raw: socket.socket, place: Address, config: WebConfig) -> Listener:
    """Take a socket that all processes of the service share."""
    if place.fd is not None:
        return attrs.evolve(_checked(raw, place.fd, config), is_shared=True)
    _prepare(raw)
    return Listener(raw, place, is_shared=True)


def _inherit(number: int, config: WebConfig) -> Listener:
    """Take a socket that another process has bound, such as systemd; a copy of it, so that a restart finds it again."""
    try:
        raw = socket.socket(fileno=os.dup(number))
    except OSError as error:
        raise StartupError(f"fd:{number}: {(error.strerror or str(error)).lower()}") from error
    if not raw.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raw.close()
        raise StartupError(f"fd:{number}: is no socket that listens")
    return _checked(raw, number, config)


def _checked(raw: socket.socket, number: int, config: WebConfig) -> Listener:
    name = raw.getsockname()
    address = Address(path=str(name) or "(unnamed)") if raw.family is socket.AF_UNIX else Address(name[0], name[1])
    if config.tls is None and not config.insecure and not address.is_private:
        raw.close()
        raise StartupError(
            f'fd:{number}: "{address}" would speak plaintext that others can read: '
            'add a "tls" table, or set insecure = true'
        )
    _prepare(raw)
    return Listener(raw, address)


def _prepare(raw: socket.socket) -> None:
    raw.setblocking(False)  # noqa: FBT003
    if raw.family is not socket.AF_UNIX:
        # Whoever is accepted inherits both.
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def _family(place: Address) -> socket.AddressFamily:
    if place.path:
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in place.host else socket.AF_INET


def _bind(place: Address, config: WebConfig) -> Listener:
    raw = socket.socket(_family(place), socket.SOCK_STREAM)
    try:
        return _bound(raw, place, config)
    except OSError:
        raw.close()
        raise


def _bound(raw: socket.socket, place: Address, config: WebConfig) -> Listener:
    inode = 0
    if place.path:
        _remove_stale(place.path)
        raw.bind(place.path)
        # Nobody can connect before listen(), so there is no moment at which the permissions are too wide.
        os.chmod(place.path, config.unix_mode)
        inode = os.stat(place.path).st_ino
    else:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if config.reuse_port:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if raw.family is socket.AF_INET6:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        raw.bind((place.host, place.port))
    raw.listen(config.backlog)
    _prepare(raw)
    return Listener(raw, place, inode)


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that is gone; whatever else is there stays, and binding fails."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            return
