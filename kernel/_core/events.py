"""What happens in a running service, as frozen records, and the hub that passes them on.

Logs, readiness, the live tree of the command line and tests all hang on these events and on nothing else.
An event is not a message: it never leaves the process by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast, final

import attrs

from .event import Event as Event
from .event import Passage as Passage
from .event import frozen
from .interrupt import is_from_terminal

if TYPE_CHECKING:
    from .envelope import Outcome
from .lifecycle import State, SwitchState


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class StateChanged(Event):
    """A component moved along its lifecycle."""

    old: State
    new: State
    reason: str = ""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class ComponentFailed(Event):
    """A component's life ended in an error."""

    error: BaseException
    restart_in: float | None
    """Seconds until it is started again, 0 if that is as soon as what it depends on is back; None if it is not."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Listening(Event):
    """A component accepts connections."""

    address: str
    """A URL, such as `http://127.0.0.1:8080`."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class KernelReady(Event):
    """The service is ready for the first time."""

    seconds: float


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class KernelReloaded(Event):
    """The service has read its manifest again, and is what it says; all that is named are ids, in start order."""

    changed: tuple[str, ...] = ()
    """What is specified in another way."""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    """What was changed, and what restarted with it."""
    failed: tuple[tuple[str, str], ...] = ()
    """What is not up, and what was to end and has been left behind, each with the reason."""
    refused: tuple[tuple[str, str], ...] = ()
    """What goes on with what it had, since something that it read again is no good, each with the reason."""
    left: tuple[str, ...] = ()
    """What stays at brokers although the manifest asks for it no more: `driver/name: ...`, each with what to do."""
    undone: bool = False
    """Whether it is again what it was before, since something essential of the new manifest cannot start."""
    seconds: float = 0.0
    """From the request until all was up again, or was known not to be."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class ReloadFailed(Event):
    """The manifest was read again and is not taken: the service goes on as it was."""

    error: Exception
    """An `InvalidError` lists every problem."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class StopRequested(Event):
    """The service was told to stop."""

    reason: str


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class KernelStopped(Event):
    """The last event of a service."""

    status: int
    """The exit status: see `kernel.ExitStatus`."""
    seconds: float
    """From the stop request."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class DrainTimedOut(Event):
    """Deliveries were still in flight at the drain deadline, or when their dispatcher broke, and were cancelled."""

    culprits: tuple[str, ...]
    """Each `worker/name delivery-id file:line`."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class StopTimedOut(Event):
    """A component did not stop within its `stop_timeout` and was left behind."""

    where: str
    """`file:line` at which it hangs, innermost frame of the user's code."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class GracePeriodOver(Event):
    """The grace period is over, and the service waits for what it cannot end; `kernel run` ends the process now."""

    culprits: tuple[str, ...]
    """Each `kind/name at file:line`."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class LoopBlocked(Event):
    """Something kept the event loop from running."""

    seconds: float
    where: str
    """`file:line` of the code that did."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class KillSwitchChanged(Event):
    """A worker is paused because too many of its calls failed, is tried, or goes on. The component is the worker."""

    state: SwitchState
    reason: str


@frozen(kw_only=True)
class DeliverySettled(Event):
    """A delivery came to its end. The component is the dispatcher."""

    worker: str
    """`worker/name`; empty if none was found, or if several decided together."""
    delivery_id: str
    subject: str
    attempt: int
    outcome: Outcome
    error: BaseException | None
    """What the handler raised, if it did; a group of what several workers raised."""
    seconds: float
    """From being taken to the outcome."""
    failure_worker: str = ""
    """`worker/name` of the one that took what the worker had failed at for good; empty if none did."""
    queued: float | None = None
    """Seconds from being sent to being taken; None where the source does not tell, and from the second attempt on."""


@final
@frozen(kw_only=True)
class DeliveryDone(DeliverySettled):
    """A delivery was acknowledged and nothing was wrong with it: the usual end, which is not made if nobody hears it."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeliveryRevoked(Event):
    """A delivery was acknowledged because nobody waits for it any more. The component is the dispatcher."""

    delivery_id: str
    subject: str
    error: BaseException | None
    """What the handler raised while it was cancelled, if it did."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class SettleFailed(Event):
    """The source did not take the outcome; it will deliver again. The component is the dispatcher.

    There is no `DeliverySettled` of such a delivery.
    """

    delivery_id: str
    error: BaseException
    outcome: Outcome | None = None
    """What it did not take."""
    raised: BaseException | None = None
    """What the handler raised, if it did."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class HookFailed(Event):
    """A hook raised, and so has missed an event. Told of its 1st, 10th, 100th failure and so on."""

    hook: str
    """`module:name`."""
    error: BaseException
    times: int
    """How often it has raised so far."""


Hook: TypeAlias = Callable[[Event], object]
"""Receives events in order, synchronously; it must return at once, and what it raises is dropped, counted and told."""
Sieve: TypeAlias = "Callable[[Any], bool | Mapping[str, object]]"
"""Is asked before the first of a pair is made, in its context, and returns False if its hook wants this one.

It is called with the deliveries that a handler is called with, or with what a message takes along that is sent; and may
return what is taken along instead, which costs less than to `carry` it.
"""
_Entry: TypeAlias = tuple[tuple[type[Event], ...], tuple[type[Event], ...], Hook, "Sieve | None"]


@final
@attrs.define(eq=False, repr=False)
class EventHub:
    """Passes each event to the hooks that asked for its type."""

    _hooks: list[_Entry] = attrs.field(factory=list[_Entry], init=False)
    _heard: dict[type[Event], tuple[Hook, ...]] = attrs.field(factory=dict[type[Event], tuple[Hook, ...]], init=False)
    _sieves: dict[type[Event], Sieve | None] = attrs.field(factory=dict["type[Event]", "Sieve | None"], init=False)
    """Of types that only hooks with sieves hear; asks them all."""
    dropped: int = attrs.field(default=0, init=False)
    """How often a hook raised."""
    _failures: dict[int, int] = attrs.field(factory=dict[int, int], init=False)
    """How often each did, by its `id`: a hook need not be hashable."""

    def subscribe(
        self, hook: Hook, *types: type[Event], but: tuple[type[Event], ...] = (), unless: Sieve | None = None
    ) -> Callable[[], None]:
        """Pass events of these types to a hook, but those; returns what ends it.

        If none is named, or `Event` is, those are all but `Passage`s, which have to be named.

        Args:
            hook: Hears them.
            types: Which.
            but: Which not.
            unless: Of `HandlerCalled` or `Sending`: says before it is made that the hook does not want this one, as
                `Sieve` has it, and may set context variables as the hook may. Where another hears them too, the hook
                may be called all the same.
        """
        if not types or Event in types:
            types, but = types or (Event,), (*but, *({Passage} - {*types}))
        entry = (types, but, hook, unless)
        self._hooks.append(entry)
        self._forget()

        def unsubscribe() -> None:
            self._hooks = [one for one in self._hooks if one is not entry]
            self._failures.pop(id(hook), None)
            self._forget()

        return unsubscribe

    def _forget(self) -> None:
        self._heard.clear()
        self._sieves.clear()

    def hears(self, kind: type[Event]) -> tuple[Hook, ...]:
        """Return the hooks for a type: empty means that nobody would hear it, and it need not be made."""
        hooks = self._heard.get(kind)
        if hooks is None:
            hooks = self._heard[kind] = tuple(hook for hook, _ in self._those_of(kind))
        return hooks

    def _those_of(self, kind: type[Event]) -> Iterator[tuple[Hook, Sieve | None]]:
        for types, but, hook, unless in self._hooks:
            if issubclass(kind, types) and not issubclass(kind, but):
                yield hook, unless

    def passes_by(self, kind: type[Event], end: type[Event], about: object) -> bool | Mapping[str, object]:
        """Return what is not False if nobody who hears of a pair wants this one, so that it need not be made.

        Nobody is asked where somebody wants them all.

        Args:
            kind: The first of them.
            end: The second.
            about: What it is about, as `Sieve` says.
        """
        try:
            sieve = self._sieves[kind]
        except KeyError:
            sieve = self._sieves[kind] = None if self.hears(end) else _all_of(list(self._those_of(kind)))
        if sieve is None:
            return False
        try:
            return sieve(about)
        except BaseException as error:  # noqa: ASYNC103, BLE001  as below
            self._drop(cast("Hook", sieve), error)
            return False

    def emit(self, event: Event) -> None:
        """Pass an event on."""
        self.emit_to(self.hears(type(event)), event)

    def emit_to(self, hooks: tuple[Hook, ...], event: Event) -> None:
        """Pass an event on to those who hear its type, for whom it was made."""
        for hook in hooks:
            try:
                hook(event)
            except BaseException as error:  # noqa: ASYNC103, BLE001  a broken log must never break the flow of messages
                self._drop(hook, error)

    def begin(self, event: Event) -> Callable[[Event], None] | None:
        """Pass the first of a pair on; return what is to be called with the second, None if nobody asks for that.

        A hook of the first asks by returning a function, which is called as a hook is. So the second is made for those
        who care for this one of many, and for those who have subscribed to all.
        """
        ends: list[Hook] | None = None  # of most there are none
        for hook in self.hears(type(event)):
            try:
                end = hook(event)
            except BaseException as error:  # noqa: ASYNC103, BLE001  as above
                self._drop(hook, error)
            else:
                if end is not None and callable(end):
                    ends = [*(ends or ()), cast("Hook", end)]
        return None if ends is None else partial(self._end, ends)

    def _end(self, ends: Sequence[Hook], event: Event) -> None:
        for end in reversed(ends):
            try:
                end(event)
            except BaseException as error:  # noqa: ASYNC103, BLE001  as above
                self._drop(end, error)

    def _drop(self, hook: Hook, error: BaseException) -> None:
        """Count what a hook has missed; tell it seldom enough that one that always fails fills no log."""
        if issubclass(type(error), KeyboardInterrupt) and is_from_terminal():
            raise error
        self.dropped += 1
        times = self._failures[id(hook)] = self._failures.get(id(hook), 0) + 1
        if str(times).rstrip("0") == "1":
            self.emit(HookFailed(component="kernel", hook=_name(hook), error=error, times=times))


def _all_of(hooks: Sequence[tuple[Hook, Sieve | None]]) -> Sieve | None:
    """Return what says whether no hook wants one; None if one wants them all."""
    sieves = [unless for _, unless in hooks if unless is not None]
    if len(sieves) < len(hooks):
        return None
    return sieves[0] if len(sieves) == 1 else partial(_any_false, sieves) if sieves else _by_nobody


def _by_nobody(_about: object) -> bool:
    return True


def _any_false(sieves: Sequence[Sieve], about: object) -> bool | Mapping[str, object]:
    answers = [unless(about) for unless in sieves]
    return next((one for one in answers if one is False), answers[-1])


def _name(hook: Hook) -> str:
    name = getattr(hook, "__qualname__", type(hook).__qualname__)
    return f"{getattr(hook, '__module__', None) or type(hook).__module__}:{name}"
