"""One connection of AMQP 1.0 without I/O: bytes go in and come out, and whoever owns a link is told what happens to it.

The protocol itself is qpid-proton's: frames, sessions, credit, settlement, idle timeouts, SASL.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol, cast, final

import attrs

from .._errors import EndClosedError, LinkLostError
from .proton import (
    Collector,
    Condition,
    Core,
    EngineEvent,
    Proton,
    ProtonConnection,
    ProtonLink,
    ProtonSession,
    Sasl,
    Transport,
    load_core,
    pointer_of,
)

_READ: Final = 64 * 1024
_MAX_CHANNELS: Final = 4095


@final
@attrs.frozen(kw_only=True, repr=False)
class EngineSettings:
    """How to log in, and the bounds of what the other side may send."""

    container: str
    """What the connection is called in views of the broker."""
    hostname: str
    mechanism: Literal["PLAIN", "EXTERNAL", "ANONYMOUS"] = "PLAIN"
    username: str = ""
    password: str = ""
    idle_timeout: float = 10.0
    """Seconds in which the other side is asked to send something; after twice as many without, it is gone."""
    max_frame_bytes: int = 64 * 1024
    max_message_bytes: int = 16 * 1024 * 1024
    window_bytes: int = 4 * 1024 * 1024
    """Bytes of a session that may wait to be read."""


class Owner(Protocol):
    """Whose a link or session is. It only notes and wakes: it is called while bytes are read."""

    def opened(self) -> None:
        """The other side has opened it as well."""
        ...

    def flowed(self) -> None:
        """There may be credit."""
        ...

    def delivered(self, delivery: object) -> None:
        """Something came, or was settled: what the functions of the core take for it."""
        ...

    def lost(self, error: EndClosedError | LinkLostError) -> None:
        """It is gone; may come more than once."""
        ...

    def ended(self) -> None:
        """Its session is over on both sides, or the connection is; may come more than once.

        Whoever owns a link lets go of its deliveries, of the link and of the session here, in this order. The engine counts
        who refers to them; a session that has been freed takes along what is in it as soon as nobody refers to the session,
        and whoever lets go of that later frees it again. The garbage collector would take any order.
        """
        ...

    def close(self) -> None:
        """Give it up; may be called again."""
        ...


@final
@attrs.define(eq=False, repr=False)
class Engine:
    """One connection. What it is told goes out with `data_to_send`, for which it rings."""

    proton: Proton
    settings: EngineSettings
    _ring: Callable[[], None]
    is_open: bool = attrs.field(default=False, init=False)
    over: str | None = attrs.field(default=None, init=False)
    """Why the connection is over; None while it is not."""
    taken: int = attrs.field(default=0, init=False)
    """Bytes that were taken to be sent."""
    seen: int = attrs.field(default=0, init=False)
    """Of those, how many the other side has read for certain."""
    came: int = attrs.field(default=0, init=False)
    """Bytes that came."""
    _transport: Transport = attrs.field(init=False)
    _connection: ProtonConnection = attrs.field(init=False)
    _collector: Collector = attrs.field(init=False)
    _sasl: Sasl = attrs.field(init=False)
    core: Core = attrs.field(factory=load_core, init=False)
    _on: dict[int, Callable[[EngineEvent], None]] = attrs.field(init=False)
    """By the number of what happened."""
    _delivery: int = attrs.field(init=False)
    """The number of what happens with every message."""
    _links: dict[int, Owner] = attrs.field(factory=dict[int, Owner], init=False)
    """Where a link is in memory -> whose it is."""
    _owners: dict[Owner, None] = attrs.field(factory=dict[Owner, None], init=False)
    _names: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1), init=False)

    def __attrs_post_init__(self) -> None:
        proton, settings = self.proton, self.settings
        self._transport = transport = proton.Transport()
        self._connection = connection = proton.Connection()
        self._collector = proton.Collector()
        connection.collect(self._collector)
        connection.container, connection.hostname = settings.container, settings.hostname
        connection.properties = {"product": "kernel"}
        transport.max_frame_size = settings.max_frame_bytes
        transport.channel_max = _MAX_CHANNELS
        transport.idle_timeout = 2 * settings.idle_timeout  # of which the other side is told half
        sasl = transport.sasl()
        sasl.allowed_mechs(settings.mechanism)
        sasl.allow_insecure_mechs = True  # whether it is encrypted is the stream's affair
        if settings.mechanism == "PLAIN":
            connection.user, connection.password = settings.username, settings.password
        self._sasl = sasl
        events = proton.Event
        on: dict[Any, Callable[[EngineEvent], None]] = {
            events.CONNECTION_REMOTE_OPEN: self._connection_opened,
            events.CONNECTION_REMOTE_CLOSE: self._connection_closed,
            events.SESSION_REMOTE_OPEN: lambda event: _tell_opened(event.session),
            events.SESSION_REMOTE_CLOSE: self._session_ended,
            events.LINK_REMOTE_OPEN: lambda event: _tell_opened(event.link),
            events.LINK_REMOTE_CLOSE: lambda event: self._end(event.link),
            events.LINK_REMOTE_DETACH: lambda event: self._end(event.link),
            events.LINK_FLOW: _flowed,
            events.TRANSPORT_ERROR: self._transport_failed,
        }
        self._on = {kind.number: act for kind, act in on.items()}
        self._delivery = events.DELIVERY.number
        transport.bind(connection)
        connection.open()

    # --- bytes

    def receive(self, data: bytes) -> None:
        """Take what the other side has sent."""
        self.came += len(data)
        view = memoryview(data)
        while view and self.over is None:
            capacity = self._transport.capacity()
            if capacity <= 0:
                self._fail("the other side sent what AMQP has no place for")
                return
            self._push(bytes(view[:capacity]))
            view = view[capacity:]
            self.dispatch()
        self._ring()

    def _push(self, data: bytes) -> None:
        try:
            self._transport.push(data)
        except self.proton.ProtonException as error:
            self._fail(str(error))

    def receive_end(self) -> None:
        """Take note that the other side sends nothing any more."""
        self._fail("the other side ended the connection")

    @property
    def is_refused(self) -> bool:
        """Whether the login was refused: the other side may break the connection off without another word."""
        return not self.is_open and self._sasl.outcome not in {None, self.proton.SASL.OK}

    def data_to_send(self) -> bytes:
        """Return what has to be sent, a piece at a time; empty if there is nothing."""
        pending = self._transport.pending()
        if pending <= 0:
            return b""
        data = self._transport.peek(min(pending, _READ)) or b""
        self._transport.pop(len(data))
        self.taken += len(data)
        return data

    @property
    def pending(self) -> int:
        """Bytes that wait to be taken."""
        return max(0, self._transport.pending())

    def tick(self, now: float) -> float:
        """Do what the time asks for; return when it asks again, 0 for never."""
        due = self._transport.tick(now)
        self.dispatch()
        return due

    def dispatch(self) -> None:
        """Tell the owners what happened."""
        core, on = self.core, self._on
        collector = pointer_of(self._collector)
        while event := core.pn_collector_peek(collector):
            kind = core.pn_event_type(event)
            try:
                if kind == self._delivery:
                    self._deliver(event)
                elif (act := on.get(kind)) is not None and (seen := self._collector.peek()) is not None:
                    act(seen)
            except (ValueError, self.proton.ProtonException) as error:  # such as text that is no UTF-8
                self._fail(f"the other side said what cannot be read: {error}")
            core.pn_collector_pop(collector)

    def _deliver(self, event: object) -> None:
        owner = self._links.get(self.core.addressof(self.core.pn_event_link(event)))
        if owner is not None:
            owner.delivered(self.core.pn_event_delivery(event))

    def watch(self, link: ProtonLink, owner: Owner) -> None:
        """Tell an owner of what happens to a link, until it is disowned."""
        link.kernel_slot = owner
        self._links[self.core.addressof(pointer_of(link))] = owner

    # --- what is asked of it

    def new_session(self, owner: Owner | None) -> ProtonSession:
        """Begin a session."""
        session = self._connection.session()
        session.incoming_capacity = self.settings.window_bytes
        session.kernel_slot = owner
        session.open()
        if owner is not None:
            self._owners[owner] = None
        self._ring()
        return session

    def new_name(self) -> str:
        """Return a name for a link that no other of this container has."""
        return f"{self.settings.container}-{next(self._names)}"

    def disown(self, owner: Owner) -> None:
        """Tell an owner nothing any more when the connection is lost."""
        self._owners.pop(owner, None)
        for address in [address for address, known in self._links.items() if known is owner]:
            del self._links[address]

    def note_seen(self, taken: int) -> None:
        """Take note that the other side has answered what was said when so much had been taken."""
        self.seen = max(self.seen, taken)

    def ring(self) -> None:
        """Have sent what there is to send."""
        self._ring()

    def put_in_order(self) -> None:
        """Have what was said until now go out before what is said from here on."""
        self._transport.pending()

    @property
    def has_sessions(self) -> bool:
        """Whether a session has not ended on both sides."""
        return self.over is None and bool(self._owners)

    def end_sessions(self) -> None:
        """Give up every link; the end that the other side answers comes when it has taken all that was said before."""
        for owner in list(self._owners):
            owner.close()

    def close(self) -> None:
        """Say the last words; they go out with `data_to_send`."""
        if self.over is None:
            self.over = "it was closed"
            self._connection.close()
            self._lose()

    def fail(self, why: str) -> None:
        """Take note that the connection is over."""
        self._fail(why)

    # --- what happens

    def _connection_opened(self, _: EngineEvent) -> None:
        self.is_open = True

    def _connection_closed(self, _: EngineEvent) -> None:
        why = told(lambda: self._connection.remote_condition)
        self._fail(f"the broker closed the connection{': ' + why if why else ''}")

    def _transport_failed(self, _: EngineEvent) -> None:
        self._fail(told(lambda: self._transport.condition) or "the transport failed")

    def _fail(self, why: str) -> None:
        if self.over is None:
            self.over = why
            self._lose()
            self._ring()

    def _lose(self) -> None:
        owners, self._owners = list(self._owners), {}
        self._links.clear()
        for owner in owners:
            owner.lost(LinkLostError(f"the connection is lost: {self.over}"))
            owner.ended()

    def _session_ended(self, event: EngineEvent) -> None:
        session = event.session
        owner = _owner(session)
        self._end(session)
        if owner is not None:
            self.disown(owner)
            owner.ended()
        session.free()

    def _end(self, end: ProtonSession | ProtonLink) -> None:
        owner = _owner(end)
        if owner is not None:
            end.close()
            owner.lost(EndClosedError(*_read(lambda: end.remote_condition)))


def told(condition: Callable[[], Condition | None]) -> str:
    """Return what a condition says, on one line."""
    return " ".join(" ".join(_read(condition)).split())[:500]


def _read(condition: Callable[[], Condition | None]) -> tuple[str, str]:
    """Return what a condition is called, and what it says.

    That it is no text must not end the connection: whoever made the broker say it would connect again, and ask again.
    """
    try:
        found = condition()
    except ValueError:
        return "", "for a reason that cannot be read: it is no UTF-8"
    return ("", "") if found is None else (found.name, found.description or "")


def _owner(end: ProtonSession | ProtonLink) -> Owner | None:
    return cast("Owner | None", getattr(end, "kernel_slot", None))


def _tell_opened(end: ProtonSession | ProtonLink) -> None:
    if (owner := _owner(end)) is not None:
        owner.opened()


def _flowed(event: EngineEvent) -> None:
    if (owner := _owner(event.link)) is not None:
        owner.flowed()
