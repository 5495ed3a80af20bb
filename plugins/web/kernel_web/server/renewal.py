"""Certificates that are renewed while the service runs, each by itself: what is wrong with one keeps none of the others."""

from __future__ import annotations

import functools
import math
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, final

import attrs
import trio

from kernel.errors import StartupError

from .._config import TlsConfig
from ..wire.certificate import Loaded, Pair, load_authorities, load_pair
from .files import Log, Watched


@final
@attrs.define(eq=False, repr=False)
class Certificates:
    """The certificates of a server, as their files have them."""

    config: TlsConfig
    """Its paths are as the system has them."""
    h2: bool
    log: Log
    context: ssl.SSLContext = attrs.field(factory=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), init=False)
    """For new connections; it changes to another for those who ask for a name that has one."""
    _others: dict[str, ssl.SSLContext] = attrs.field(factory=dict[str, ssl.SSLContext], init=False)
    """By name."""
    _authorities: bytes = attrs.field(default=b"", init=False)
    """Of clients, the last that were good."""
    _is_open: bool = attrs.field(default=False, init=False)
    _ca: list[Watched[bytes]] = attrs.field(factory=list[Watched[bytes]], init=False)
    _pairs: list[Watched[Loaded]] = attrs.field(factory=list[Watched[Loaded]], init=False)

    async def open(self) -> None:
        """Read all files.

        Raises:
            StartupError: if one is no good.

        Cancellation: Is a checkpoint, and waits for no thread.
        """
        await trio.lowlevel.checkpoint()
        if self.config.ca:
            ca = Watched("tls.ca", [self.config.ca], self._read_ca, self._take_ca, self.log)
            self._authorities, self._ca = await ca.first(), [ca]
        pairs: dict[str, Pair] = {"": self.config, **self.config.names}
        for name, pair in pairs.items():
            watched = self._watched(name, pair)
            loaded = await watched.first()
            if loaded.is_expired:
                self.log.warning("no client takes this certificate", cert=pair.cert, reason=loaded.expired)
            await self._take(name, loaded)
            self._pairs.append(watched)
        self._is_open = True

    async def renew(self) -> Sequence[str]:
        """Read all files again; return why those are not taken that are no good: what was there before them stays.

        Cancellation: Is a checkpoint, and waits for no thread.
        """
        refused = [await ca.look(anew=True) for ca in self._ca]
        refused += await self._read_pairs()
        return [reason for reason in refused if reason]

    async def keep(self) -> None:
        """Look again and again whether files have changed, until cancelled."""
        async with trio.open_nursery() as nursery:
            for ca in self._ca:
                nursery.start_soon(self._keep, ca)
            for pair in self._pairs:
                nursery.start_soon(self._keep, pair)

    async def _keep(self, watched: Watched[Any]) -> None:
        while True:
            await trio.sleep(self.config.reload or math.inf)
            await watched.look(anew=False)

    async def _read_pairs(self) -> list[str]:
        """Read all certificates again, beside each other; return why some are not taken."""
        refused: list[str] = []

        async def look(pair: Watched[Loaded]) -> None:
            refused.append(await pair.look(anew=True))

        async with trio.open_nursery() as nursery:
            for pair in self._pairs:
                nursery.start_soon(look, pair)
        return refused

    # --- what is watched --------------------------------------------------------------------------------------------

    def _watched(self, name: str, pair: Pair) -> Watched[Loaded]:
        where = f'tls.names."{name}"' if name else "tls"

        def read() -> Loaded:
            loaded = load_pair(self.config, pair, where, authorities=self._authorities, h2=self.h2)
            if loaded.is_expired and self._is_open:  # at the start there is nothing better
                raise StartupError(f'{where}.cert = "{pair.cert}": {loaded.expired}')
            return loaded

        return Watched(where, [pair.cert, pair.key], read, functools.partial(self._take, name), self.log)

    def _read_ca(self) -> bytes:
        return load_authorities(self.config.ca)

    async def _take_ca(self, authorities: bytes) -> None:
        """Have clients of all certificates judged by other authorities."""
        await trio.lowlevel.checkpoint()
        if authorities != self._authorities:
            self._authorities = authorities
            await self._read_pairs()

    async def _take(self, name: str, loaded: Loaded) -> None:
        await trio.lowlevel.checkpoint()
        if name:
            self._others[name] = loaded.context
        else:
            loaded.context.sni_callback = functools.partial(_choose, self._others)
            self.context = loaded.context


def _choose(
    others: Mapping[str, ssl.SSLContext], connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext
) -> None:
    wanted = (name or "").lower()
    found = others.get(wanted) or others.get(f"*.{wanted.partition('.')[2]}")
    if found is not None:
        connection.context = found
