"""Looks at the folders of a service while it is developed, and has more of them looked at as they become known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import final

import attrs
import trio


@final
@attrs.define(eq=False, repr=False)
class Looking:
    """Folders, with all that is below."""

    _changed: Callable[[list[str]], Awaitable[None]]
    """Called with the names of files that have changed; what changes meanwhile is told afterwards."""
    _folders: list[Path] = attrs.field(factory=list[Path], init=False)

    def at(self, folders: Iterable[Path], nursery: trio.Nursery) -> None:
        """Look at folders as well, from now on; those that are looked at go on to be, so that nothing is missed."""
        more = [one for one in folders if not any(one.is_relative_to(known) for known in self._folders)]
        if more:
            self._folders += more
            nursery.start_soon(self._look, more)

    async def _look(self, folders: list[Path]) -> None:  # noqa: ASYNC910  it waits for ever
        from .watch import changes  # noqa: PLC0415  what it needs is installed for development only

        async with aclosing(changes(folders)) as found:
            async for names in found:
                await self._changed(names)
