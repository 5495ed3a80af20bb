"""Files that others change while the service runs: looked at in a thread of their own, which may hang for ever.

One thread at a time looks at what belongs together. If it does not come back, that is told once, nobody waits for it,
and the look after its return is as any other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Protocol, TypeAlias, TypeVar, final

import attrs
import trio

from kernel.errors import StartupError

LOOK_WITHIN: Final = 5.0
"""Seconds after which files that do not answer are told."""
_Stamps: TypeAlias = list[tuple[int, int, int] | None]
ReadT = TypeVar("ReadT")


class Log(Protocol):
    """What is told of files."""

    def info(self, event: str, **values: object) -> object:
        """Tell what is well."""

    def warning(self, event: str, **values: object) -> object:
        """Tell what is not."""


@final
@attrs.define(eq=False, repr=False)
class Watched(Generic[ReadT]):
    """Files that belong together, such as a certificate and its key."""

    name: str
    """What they are, as the manifest calls it."""
    paths: Sequence[str]
    read: Callable[[], ReadT]
    """Reads them, in a thread. Raises `StartupError` for what is no good."""
    taken: Callable[[ReadT], Awaitable[None]]
    """Called with what was read."""
    log: Log
    within: float = LOOK_WITHIN
    _seen: _Stamps | None = attrs.field(default=None, init=False)
    """What the files were when they were read last; None if they have not been."""
    _refused: str = attrs.field(default="", init=False)
    """Why what they hold is not taken."""
    _silent_since: float = attrs.field(default=0.0, init=False)
    """In seconds since 1970; 0 if they answer."""
    _at: str = attrs.field(default="", init=False)
    """What a thread looks at."""
    # Its own, since sync endpoints may have taken all others; and of one, so that what hangs keeps no second thread.
    _limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1), init=False)
    _one: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    async def first(self) -> ReadT:
        """Return what the files hold when the service starts.

        Raises:
            StartupError: if that is no good.

        Cancellation: Is a checkpoint, and waits for no thread.
        """
        stamps, found = await self._in_thread(None)
        self._seen = stamps
        if isinstance(found, StartupError):
            raise found
        assert found is not None  # they have not been seen
        return found

    async def look(self, *, anew: bool) -> str:
        """Take what the files hold, if they have changed; return why what they hold is not taken, empty if it is.

        Args:
            anew: Whether they are read although they seem not to have changed.

        Cancellation: Is a checkpoint, and waits for no thread.
        """
        async with self._one:
            answer = None
            with trio.move_on_after(self.within):
                answer = await self._in_thread(None if anew else self._seen)
            if answer is None:
                return self._tell_silent()
            self._tell_answered()
            await self._judge(*answer)
            return self._refused

    async def _in_thread(self, seen: _Stamps | None) -> tuple[_Stamps, ReadT | StartupError | None]:
        return await trio.to_thread.run_sync(self._look, seen, limiter=self._limiter, abandon_on_cancel=True)

    def _look(self, seen: _Stamps | None) -> tuple[_Stamps, ReadT | StartupError | None]:
        """Return what the files are, and what they hold, or why that is no good; None if they are as before."""
        stamps = [self._stamp(path) for path in self.paths]
        if stamps == seen:
            return stamps, None
        self._at = ", ".join(self.paths)
        try:
            return stamps, self.read()
        except StartupError as error:
            return stamps, error

    def _stamp(self, path: str) -> tuple[int, int, int] | None:
        self._at = path
        try:
            found = os.stat(path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    async def _judge(self, stamps: _Stamps, found: ReadT | StartupError | None) -> None:
        await trio.lowlevel.checkpoint()
        if found is None:
            return
        is_change, self._seen = stamps != self._seen, stamps
        if isinstance(found, StartupError):
            self._refuse(str(found), is_change=is_change)
            return
        self._refused = ""
        await self.taken(found)
        if is_change:
            self.log.info("the certificate was read again", table=self.name, files=list(self.paths))

    def _refuse(self, reason: str, *, is_change: bool) -> None:
        is_new, self._refused = is_change or reason != self._refused, reason
        if is_new:
            self.log.warning("the new certificate is not taken", reason=reason)

    def _tell_silent(self) -> str:
        reason = f'{self.name}: "{self._at}" does not answer'
        if not self._silent_since:
            self._silent_since = time.time() - self.within
            self.log.warning("a file does not answer, its changes are not noticed", path=self._at, since=self._since)
        return f"{reason} since {self._since}"

    def _tell_answered(self) -> None:
        if self._silent_since:
            self.log.info("a file answers again", path=self._at, silent_since=self._since)
            self._silent_since = 0.0

    @property
    def _since(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._silent_since))
