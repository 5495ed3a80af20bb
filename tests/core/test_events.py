"""Who hears which event."""

from __future__ import annotations

import attrs
import pytest

from kernel._core.events import ComponentFailed, Event, EventHub, KernelReady, Listening


@attrs.frozen(kw_only=True)
class Reconnected(Event):
    """What a plugin may define."""


READY = KernelReady(component="kernel", seconds=1.0)
LISTENING = Listening(component="dispatcher/web", address="http://127.0.0.1:1")


def test_a_hook_hears_all_events_in_order() -> None:
    hub, heard = EventHub(), list[Event]()
    hub.subscribe(heard.append)
    hub.emit(READY)
    hub.emit(LISTENING)

    assert heard == [READY, LISTENING]


def test_a_hook_hears_only_the_types_it_named_and_their_subclasses() -> None:
    hub, heard, everything = EventHub(), list[Event](), list[Event]()
    hub.subscribe(heard.append, KernelReady, Reconnected)
    hub.subscribe(everything.append, Event)
    own = Reconnected(component="driver/x")
    for event in (READY, LISTENING, own):
        hub.emit(event)

    assert heard == [READY, own]
    assert everything == [READY, LISTENING, own]


def test_what_a_hook_does_not_want_is_not_made_for_it() -> None:
    hub, heard = EventHub(), list[Event]()
    hub.subscribe(heard.append, Event, but=(Listening,))
    hub.emit(READY)
    hub.emit(LISTENING)

    assert heard == [READY]
    assert not hub.hears(Listening)


def test_hooks_are_called_in_the_order_of_their_subscription() -> None:
    hub, order = EventHub(), list[str]()
    hub.subscribe(lambda _: order.append("first"))
    hub.subscribe(lambda _: order.append("second"))
    hub.emit(READY)

    assert order == ["first", "second"]


def test_an_ended_subscription_hears_nothing_more() -> None:
    hub, heard, other = EventHub(), list[Event](), list[Event]()
    end = hub.subscribe(heard.append)
    hub.subscribe(other.append)
    hub.emit(READY)
    end()
    hub.emit(LISTENING)

    assert heard == [READY]
    assert other == [READY, LISTENING]


def test_ending_a_subscription_twice_leaves_its_twin_alone() -> None:
    hub, heard = EventHub(), list[Event]()
    end = hub.subscribe(heard.append)
    hub.subscribe(heard.append)
    end()
    end()
    hub.emit(READY)

    assert heard == [READY]


def test_a_subscription_counts_from_its_beginning_also_for_types_heard_before() -> None:
    hub, heard = EventHub(), list[Event]()
    hub.emit(READY)
    hub.subscribe(heard.append, KernelReady)
    hub.emit(READY)

    assert heard == [READY]


def test_what_a_hook_raises_is_counted_and_the_others_hear_the_event() -> None:
    hub, heard = EventHub(), list[Event]()
    hub.subscribe(fail)
    hub.subscribe(heard.append)
    hub.emit(READY)
    hub.emit(LISTENING)

    assert heard == [READY, LISTENING]
    assert hub.dropped == 2


def test_a_hook_may_end_its_own_subscription() -> None:
    hub, heard = EventHub(), list[Event]()

    def once(event: Event) -> None:
        heard.append(event)
        end()

    end = hub.subscribe(once)
    hub.emit(READY)
    hub.emit(READY)

    assert heard == [READY]
    assert hub.dropped == 0


def test_a_type_that_nobody_hears_need_not_be_made() -> None:
    hub = EventHub()
    hub.subscribe(fail, KernelReady)

    assert hub.hears(ComponentFailed) == ()
    assert hub.hears(KernelReady) == (fail,)


def test_events_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        READY.seconds = 2.0


def fail(event: Event) -> None:
    raise ValueError("broken hook")
