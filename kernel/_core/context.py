"""What the kernel hands to a component when it is built; public through `kernel.abc`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, final
from typing import Protocol as Protocol_

import attrs

from ..errors import StartupError
from .broker import Broker
from .contract import Contract
from .crew import ALONE, Crew
from .fields import ByFields
from .interceptors import Intercept

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from .components import Protocol
    from .event import Event
    from .snapshot import Backlog, Snapshot, Usage


class Subscribe(Protocol_):
    """How one hears events: see `EventHub.subscribe`."""

    def __call__(
        self,
        hook: Callable[[Event], object],
        *types: type[Event],
        but: tuple[type[Event], ...] = (),
        unless: Callable[[Any], bool | Mapping[str, object]] | None = None,
    ) -> Callable[[], None]:
        """Pass events of these types (all, if none is named) but those to a hook; returns what ends it."""
        ...


@contextmanager
def hearing(context: Context, *hooks: tuple[Callable[..., object], type[Event]]) -> Generator[None]:
    """Hear events while inside: each function those of one type."""
    ends = [context.subscribe(hook, kind) for hook, kind in hooks]
    try:
        yield
    finally:
        for end in ends:
            end()


def _hear_nothing(
    hook: Callable[[Event], object],
    *types: type[Event],
    but: tuple[type[Event], ...] = (),
    unless: Callable[[Any], bool | Mapping[str, object]] | None = None,
) -> Callable[[], None]:
    """Subscribe to nothing: there is no kernel."""
    del hook, types, but, unless
    return lambda: None


def _pass_by(kind: type[Event], end: type[Event], about: object) -> bool:
    """Nobody can tell: there is no kernel."""
    del kind, end, about
    return False


def _begin_nothing(event: Event) -> None:
    """Nobody asks for the end: there is no kernel."""
    del event


def _tell_nobody(usage: Callable[[], Usage]) -> None:
    """Nobody looks: there is no kernel."""
    del usage


def _pass_on_unseen(backlog: Callable[[], Backlog | None]) -> None:
    """Nobody looks: there is no kernel."""
    del backlog


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Context(ByFields):
    """What a component is given when it is built, besides its `Config`."""

    id: str
    """`kind/name`, as in every log, event and error."""
    name: str
    """The key of its table in the manifest."""
    service: str
    """`[kernel] name`."""
    log: FilteringBoundLogger
    """Bound to the component."""
    emit: Callable[[Event], None]
    """Reports an event; never raises, never blocks."""
    report_degraded: Callable[[str], None]
    """Says that the component works badly, and why. A driver that lost its connection calls it. Ignored while it is to
    stop, with the service or to be started again."""
    report_ready: Callable[[], None]
    """Says that a degraded component works well again."""
    driver: object = None
    """The resource of the driver named by `driver = "..."`; None if the manifest names none."""
    protocol_or_none: Protocol | None = None
    stop_timeout: float = 2.0
    """Seconds that closing may take, all in all."""
    contract: Contract | None = None
    """What a driver with `sends = True` holds all that it sends against; None where the manifest names none."""
    directory: Path = Path()
    """The manifest's folder."""
    intercept: Intercept | None = None
    """What a driver with `intercepts = True` sends each message within; None where the manifest names no interceptors."""
    hears: Callable[[type[Event]], object] = bool
    """Whether anybody hears events of a type, by the truth of what it returns: what happens as often as a request need
    not be made into an event for nobody. Where nobody can tell, somebody does."""
    begin: Callable[[Event], Callable[[Event], None] | None] = _begin_nothing
    """Reports the first event of a pair; returns what is to be called with the second, None if nobody asks for that.
    The second is reported with `emit` besides, if anybody hears it."""
    passes_by: Callable[[type[Event], type[Event], object], bool | Mapping[str, object]] = _pass_by
    """Returns what is not False if nobody wants to know of a passage that is about to happen, though somebody hears
    such: called with its type and that of its end, before it is made. See `EventHub.passes_by`."""
    report_usage: Callable[[Callable[[], Usage]], None] = _tell_nobody
    """Has a function asked for how the component's connections are used whenever somebody looks at the service, while
    the component is up. It must return at once, and may be called from any thread; if it raises, nothing is shown."""
    report_backlog: Callable[[Callable[[], Backlog | None]], None] = _pass_on_unseen
    """Has a function asked in the same way for what the component has to pass on; None is that it does not know."""
    subscribe: Subscribe = _hear_nothing
    """Has events passed to a function as `[kernel] hooks` has; returns what ends it. Call that when the life ends."""
    snapshot: Callable[[], Snapshot] = attrs.field(default=lambda: _empty_snapshot())  # noqa: PLW0108  defined below
    """Returns what the service looks like now. May be called from any thread, also while the event loop is blocked."""
    mask: Callable[[str], str] = str
    """Returns a text without the secrets of the manifest that stand in it, in whatever form. For all that leaves the
    process and that the component did not write itself, such as the text of an exception. May be called from any
    thread."""
    crew: Crew = ALONE
    """The processes of the service: for what only one of them may do, and for what they do together."""

    def __repr__(self) -> str:
        return f"<Context of {self.id} in {self.service}>"

    def path(self, name: str) -> Path:
        """Return where a file is that the configuration names: a relative path begins at the manifest's folder.

        A field of a `Config` that is annotated `Path` has been given such a path already.

        Raises:
            StartupError: if no file can have the name.
        """
        if "\0" in name:
            raise StartupError(f"{self.id}: a name of a file has the character NUL in it: {name!r}")
        return self.directory / name

    @property
    def broker(self) -> Broker:
        """The broker named by `driver = "..."`.

        Raises:
            StartupError: if the driver is not a broker. `kernel check` finds this for a class whose `needs` is
                `Broker`.
        """
        if not isinstance(self.driver, Broker):
            raise StartupError(f"{self.id} needs a broker as its driver")
        return self.driver

    @property
    def protocol(self) -> Protocol:
        """The protocol named by `protocol = "..."`.

        Raises:
            StartupError: if the manifest names none. `kernel check` finds this for a class with `speaks = True`.
        """
        if self.protocol_or_none is None:
            raise StartupError(f"{self.id} needs a protocol")
        return self.protocol_or_none


def _empty_snapshot() -> Snapshot:
    from .snapshot import Snapshot  # noqa: PLC0415  `kernel check` imports this module, and runs nothing

    return Snapshot(service="")
