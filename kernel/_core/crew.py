"""The processes of one service, as one of them sees the others; public through `kernel.abc`."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, final

import attrs
from typing_extensions import override

from .fields import ByFields

if TYPE_CHECKING:
    import trio

STATE: Final = "state"
"""What each process offers, as JSON: `busy`, the seconds of the present turn of its event loop; `ready`; and `restarts`,
how often its essential components were started again."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Endpoint(ByFields):
    """Where a crew is to listen: an address, the path of a unix socket, or a descriptor that its parent was given."""

    host: str = ""
    """A numeric address."""
    port: int = 0
    """0 lets the system choose: one for all processes."""
    path: str = ""
    mode: int = 0o600
    """Permissions of a unix socket."""
    fd: int | None = None
    backlog: int = 128
    """Connections that the system holds until one of the processes accepts them."""


class Crew(ABC):
    """The processes that one `kernel run --processes` has started, as one of them sees them."""

    __slots__ = ()

    number: int = 0
    """Of this process, from 0. The one that takes its place has the same."""
    size: int = 1
    """How many processes there are when all are up."""

    @abstractmethod
    async def wait_leading(self) -> None:
        """Wait until this process leads: for what is to happen in one process only, such as timers.

        There is one at a time that does. When it has ended, another one leads, and no sooner.

        Cancellation: Is a checkpoint.
        """

    @abstractmethod
    def listener(self, owner: str, endpoint: Endpoint) -> socket.socket | None:
        """Return a socket that listens and that all processes share; None if this process binds its own.

        What waits at it is accepted by any of them, and outlives each. The caller has a copy of its own, to be closed.
        It blocks for a moment: call it in a thread.

        Args:
            owner: Id of the component. Those of the same owner and endpoint are the same.
            endpoint: Where.

        Raises:
            OSError: as binding it would.
        """

    @abstractmethod
    async def open_tcp_listeners(self, owner: str, port: int, *, host: str) -> list[trio.SocketListener]:
        """Return what listens at a port and is shared, as `trio.open_tcp_listeners` does for one process.

        Raises:
            OSError: as that does.

        Cancellation: Is a checkpoint.
        """

    @abstractmethod
    def offer(self, name: str, tell: Callable[[], str]) -> Callable[[], None]:
        """Have a function called when one of the processes collects what goes by a name; returns what ends it.

        Args:
            name: Of what is told; one function has it at a time.
            tell: Called in a thread; it must not wait.
        """

    @abstractmethod
    def collect(self, name: str) -> Mapping[int, str]:
        """Return what each process tells by a name, by its number; it is left out if it does not within a second.

        It blocks for that long at most: call it in a thread.
        """


@final
class Alone(Crew):
    """One process, without any other."""

    __slots__ = ()

    @override
    async def wait_leading(self) -> None:
        import trio  # noqa: PLC0415  `kernel check` imports this module, and runs nothing

        await trio.lowlevel.checkpoint()

    @override
    def listener(self, owner: str, endpoint: Endpoint) -> socket.socket | None:
        return None

    @override
    async def open_tcp_listeners(self, owner: str, port: int, *, host: str) -> list[trio.SocketListener]:
        import trio  # noqa: PLC0415  as above

        return await trio.open_tcp_listeners(port, host=host)

    @override
    def offer(self, name: str, tell: Callable[[], str]) -> Callable[[], None]:
        return lambda: None

    @override
    def collect(self, name: str) -> Mapping[int, str]:
        return {}


ALONE: Final = Alone()
