"""The contract of what many processes agree through on who does something; public in `kernel.abc`.

A lease is one short text with a version, in a place that all processes see. Whoever writes over the version that it has
read is the only one that does: the text tells the others what it has taken, and a process that slept meanwhile finds
that its version is an old one. So the version is also what is called a fencing token.

No clock is compared between processes: whoever waits for the end of another one sees whether the version still grows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import attrs

from .fields import ByFields


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class LeaseState(ByFields):
    """What a lease says at one moment."""

    version: int = 0
    """Grows by one with each write; 0 if nothing was ever written."""
    value: str = attrs.field(default="", repr=False)
    now: float | None = None
    """The time that the place has, in seconds since 1970; None if it has no clock for others."""


class Lease(ABC):
    """One lease. Safe to share between tasks."""

    __slots__ = ()

    @abstractmethod
    async def read(self) -> LeaseState:
        """Return what was written last, by whatever process.

        Raises:
            KernelError: `UnavailableError` or `StorageError`, if the place cannot be asked.

        Cancellation: Is a checkpoint.
        """

    @abstractmethod
    async def write(self, value: str, *, after: int) -> bool:
        """Write, if nobody has since a version was read; returns whether it was written, as version `after + 1`.

        Args:
            value: At most 64 KiB of UTF-8.
            after: The version that it is written over; 0 for what was never written.

        Raises:
            KernelError: as `read`; `UnknownOutcomeError` if it may or may not have been written. Who puts something
                into the value that nobody else writes, and reads again, knows.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been written.

        Ordering: of several that write over one version, in whatever processes, exactly one succeeds.
        """


class Leasing(ABC):
    """A resource that keeps leases, for as long as it keeps anything."""

    __slots__ = ()

    @abstractmethod
    def lease(self, name: str) -> Lease:
        """Return the lease of a name; processes that give the same name have the same one.

        Args:
            name: At most 200 characters: letters, digits, `.`, `_` and `-`.

        Raises:
            ValueError: if it is no such name.
        """


def check_lease_name(name: str) -> str:
    """Return a name that is one of a lease.

    Raises:
        ValueError: if it is none.
    """
    plain = name.replace(".", "").replace("_", "").replace("-", "")
    if not (0 < len(name) <= _LONGEST and plain.isascii() and plain.isalnum()):
        raise ValueError(f"a lease is named by 1 to {_LONGEST} letters, digits, '.', '_' and '-', not by {name!r}")
    return name


_LONGEST = 200
