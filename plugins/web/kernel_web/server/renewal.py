"""Certificates that are renewed while the service runs: their files are looked at, and read again when they change."""

from __future__ import annotations

import functools
import itertools
import math
import os
from typing import TYPE_CHECKING, Protocol, TypeAlias, final

import attrs
import trio

from kernel import KernelReloaded
from kernel.errors import StartupError

from .._config import TlsConfig
from ..wire.listen import tls_context

if TYPE_CHECKING:
    import ssl

    from ..asgi.shared import Shared


_Stamps: TypeAlias = list[tuple[int, int, int] | None]


class Secured(Protocol):
    """The server, as far as its certificate goes."""

    shared: Shared
    tls: ssl.SSLContext | None


@final
@attrs.frozen(eq=False, repr=False)
class Certificates:
    """What was read, and what its files were when that began: who changes them next is noticed."""

    config: TlsConfig
    h2: bool
    stamps: _Stamps
    context: ssl.SSLContext

    @classmethod
    def read(cls, config: TlsConfig, *, h2: bool) -> Certificates:
        """Read the files of a table, whose paths are as the system has them.

        Raises:
            StartupError: if one is no good.
        """
        return cls(config, h2, _stamps(_files(config)), tls_context(config, h2=h2))


async def renew(server: Secured, certificates: Certificates) -> None:
    """Give new connections the certificate that the files hold, until cancelled; at a reload of the service at once.

    Files that are no good, such as a certificate whose key has not come yet, change nothing; the log says so.
    """
    config, seen = certificates.config, certificates.stamps
    limiter = trio.CapacityLimiter(1)  # its own: sync endpoints may have taken all others
    asked = trio.lowlevel.ParkingLot()
    forget = server.shared.context.subscribe(lambda _event: asked.unpark_all(), KernelReloaded)
    try:
        while True:
            with trio.move_on_after(config.reload or math.inf):
                await asked.park()
            stamps = await trio.to_thread.run_sync(_stamps, _files(config), limiter=limiter)
            if stamps != seen:
                seen = stamps
                await _read_again(server, config, limiter, h2=certificates.h2)
    finally:
        forget()


async def _read_again(  # noqa: ASYNC910  suspends only to wait
    server: Secured, config: TlsConfig, limiter: trio.CapacityLimiter, *, h2: bool
) -> None:
    log = server.shared.context.log
    try:
        server.tls = await trio.to_thread.run_sync(functools.partial(tls_context, config, h2=h2), limiter=limiter)
    except StartupError as error:
        log.warning("the new certificate is not taken", reason=str(error))
    else:
        log.info("the certificate was read again", cert=config.cert)


def _files(config: TlsConfig) -> list[str]:
    pairs = [(config.cert, config.key), *((each.cert, each.key) for each in config.names.values())]
    return [path for path in (*itertools.chain.from_iterable(pairs), config.ca) if path]


def _stamps(files: list[str]) -> _Stamps:
    """Return what tells whether files have changed."""
    return [_stamp(path) for path in files]


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
