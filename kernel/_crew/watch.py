"""The files of a service while it is developed: who watches them is told when one has changed. Knows watchfiles alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Final

import watchfiles

ENDINGS: Final = (".py", ".toml")
_AT_REST: Final = 50
"""Milliseconds without another change that end a row of them: editors write in several steps."""
_TOGETHER: Final = 250
"""Milliseconds after which a row is told although it goes on."""
_AT_MOST: Final = 250
"""Milliseconds for which a thread waits at a time: a cancellation, and so the end, waits for that thread."""


async def changes(folders: Iterable[Path]) -> AsyncGenerator[list[str]]:
    """Yield what has changed in folders and below, each time that something has.

    What is hidden, and what tools put there, such as `.venv` and `__pycache__`, is not looked at.

    Cancellation: Is a checkpoint.
    """
    looked_at = _Code()
    watch = watchfiles.awatch(
        *folders, watch_filter=looked_at, debounce=_TOGETHER, step=_AT_REST, rust_timeout=_AT_MOST
    )
    async with aclosing(watch) as all_found:
        async for found in all_found:
            yield sorted({Path(path).name for _, path in found})


class _Code(watchfiles.DefaultFilter):
    """Lets code and manifests through."""

    def __call__(self, change: watchfiles.Change, path: str) -> bool:
        """Whether a change is told."""
        return path.endswith(ENDINGS) and super().__call__(change, path)
