"""Who hears which event."""

from __future__ import annotations

import attrs
import pytest

from kernel._core.events import ComponentFailed, Event, EventHub, HookFailed, KernelReady, Listening


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

    assert [event for event in heard if not isinstance(event, HookFailed)] == [READY, LISTENING]
    assert hub.dropped == 3  # that it failed is an event that it misses as well


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(1), GeneratorExit()], ids=repr)
def test_a_hook_that_fails_is_told_the_less_often_the_more_it_fails(error: BaseException) -> None:
    hub, heard = EventHub(), list[Event]()

    def broken(event: Event) -> None:
        raise error

    hub.subscribe(broken, KernelReady)
    hub.subscribe(heard.append, HookFailed)
    for _ in range(2_000):
        hub.emit(READY)

    told = [event for event in heard if isinstance(event, HookFailed)]
    assert [event.times for event in told] == [1, 10, 100, 1_000]
    assert {event.error for event in told} == {error}
    assert {event.hook for event in told} == {f"{__name__}:{broken.__qualname__}"}


def test_hooks_that_all_fail_tell_each_other_for_a_while_only() -> None:
    hub, heard = EventHub(), list[Event]()
    for number in range(3):
        hub.subscribe(lambda event, number=number: fail(event))
    hub.subscribe(heard.append, HookFailed)
    for _ in range(100):
        hub.emit(READY)

    assert 3 <= len(heard) <= 9


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


def test_a_hook_is_told_the_end_of_what_it_asks_for() -> None:
    hub, ends = EventHub(), list[tuple[str, Event]]()
    hub.subscribe(lambda _: lambda event: ends.append(("first", event)))
    hub.subscribe(lambda _: None)
    hub.subscribe(lambda _: lambda event: ends.append(("last", event)))
    end = hub.begin(READY)
    assert end is not None
    end(LISTENING)

    assert ends == [("last", LISTENING), ("first", LISTENING)]


def test_nobody_is_told_an_end_that_nobody_asks_for() -> None:
    hub, heard = EventHub(), list[Event]()
    hub.subscribe(heard.append)
    hub.subscribe(lambda _: "no function")

    assert hub.begin(READY) is None
    assert heard == [READY]


def test_a_hook_that_raises_at_the_end_is_dropped_and_the_others_hear_it() -> None:
    hub, ends, failed = EventHub(), list[Event](), list[Event]()

    def broken(event: Event) -> None:
        raise ValueError(event.component)

    hub.subscribe(lambda _: ends.append, KernelReady)
    hub.subscribe(lambda _: broken, KernelReady)
    hub.subscribe(failed.append, HookFailed)
    end = hub.begin(READY)
    assert end is not None
    end(LISTENING)

    assert (ends, hub.dropped, len(failed)) == ([LISTENING], 1, 1)


def test_a_passage_that_nobody_wants_need_not_be_made() -> None:
    hub, asked, heard = EventHub(), list[object](), list[Event]()
    hub.subscribe(heard.append, KernelReady, unless=lambda about: asked.append(about) or about == "boring")

    assert [hub.passes_by(KernelReady, Listening, about) for about in ("boring", "good")] == [True, False]
    assert (asked, heard) == (["boring", "good"], [])


def test_where_somebody_wants_them_all_nobody_is_asked() -> None:
    hub, asked = EventHub(), list[object]()
    hub.subscribe(lambda _: None, KernelReady, unless=lambda about: asked.append(about) or True)
    for kind in (KernelReady, Listening):
        end = hub.subscribe(lambda _: None, kind)

        assert hub.passes_by(KernelReady, Listening, 1) is False
        assert asked == []
        end()

    assert hub.passes_by(KernelReady, Listening, 1) is True


def test_what_nobody_hears_need_not_be_made() -> None:
    hub = EventHub()
    assert hub.passes_by(KernelReady, Listening, 1) is True

    hub.subscribe(lambda _: None, Listening)
    assert hub.passes_by(KernelReady, Listening, 1) is False


@pytest.mark.parametrize(
    ("answers", "passed"),
    [((True, {"a": 1}), {"a": 1}), ((False, {"a": 1}), False), (({"a": 1}, False), False), ((True, True), True)],
)
def test_a_passage_is_made_if_any_of_several_wants_it(answers: tuple[object, ...], passed: object) -> None:
    hub = EventHub()
    for answer in answers:
        hub.subscribe(lambda _: None, KernelReady, unless=lambda _, answer=answer: answer)  # type: ignore[misc]

    assert hub.passes_by(KernelReady, Listening, None) == passed


def test_who_raises_when_asked_is_told_of_all() -> None:
    hub, failed = EventHub(), list[Event]()

    def broken(about: object) -> bool:
        raise ValueError(about)

    hub.subscribe(lambda _: None, KernelReady, unless=broken)
    hub.subscribe(failed.append, HookFailed)

    assert hub.passes_by(KernelReady, Listening, 1) is False
    assert (hub.dropped, len(failed)) == (1, 1)
