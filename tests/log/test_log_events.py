"""What events look like in the log."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from kernel import Ack, DeadLetter, Retry, Return
from kernel._core.events import (
    ComponentFailed,
    DeliveryDone,
    DeliveryRevoked,
    DeliverySettled,
    DrainTimedOut,
    Event,
    HookFailed,
    KernelReady,
    KernelStopped,
    Listening,
    LoopBlocked,
    SettleFailed,
    StateChanged,
    StopRequested,
    StopTimedOut,
)
from kernel._core.lifecycle import State
from kernel.errors import ConflictError, RestartLimitError, StartupError, UnavailableError

from ._logs import of_events, raised


def settled(outcome: Any, error: BaseException | None = None) -> DeliverySettled:
    kind = DeliveryDone if outcome == Ack() and error is None else DeliverySettled
    return kind(
        component="dispatcher/work",
        worker="worker/w",
        delivery_id="1",
        subject="a.b",
        attempt=2,
        outcome=outcome,
        error=error,
        seconds=0.1234,
    )


def moved(state: State, reason: str = "") -> StateChanged:
    return StateChanged(component="driver/db", old=State.STARTING, new=state, reason=reason)


KERNEL = "kernel"
LINES = {
    "ready": (moved(State.READY), "info    driver/db: ready"),
    "degraded": (moved(State.DEGRADED, "gone"), "warning driver/db: degraded reason=gone"),
    "other-state": (moved(State.STOPPED), "debug   driver/db: stopped"),
    "failed": (
        ComponentFailed(component="driver/db", error=ValueError("why"), restart_in=None),
        'error   driver/db: failed error="ValueError: why"',
    ),
    "restarts": (
        ComponentFailed(component="driver/db", error=ValueError("why"), restart_in=1.234),
        'error   driver/db: failed, restarts in_s=1.23 error="ValueError: why"',
    ),
    "listening": (
        Listening(component="dispatcher/web", address="http://127.0.0.1:1"),
        "info    dispatcher/web: listening address=http://127.0.0.1:1",
    ),
    "kernel-ready": (KernelReady(component=KERNEL, seconds=0.5), "info    kernel: ready seconds=0.5"),
    "stopping": (StopRequested(component=KERNEL, reason="SIGTERM"), "info    kernel: stopping reason=SIGTERM"),
    "stopped": (
        KernelStopped(component=KERNEL, status=3, seconds=0.5),
        "info    kernel: stopped status=3 seconds=0.5",
    ),
    "drained": (
        DrainTimedOut(component="dispatcher/work", culprits=("delivery 1 at a.py:1", "delivery 2 at a.py:2")),
        'warning dispatcher/work: the drain is over, cancelled culprits="delivery 1 at a.py:1; delivery 2 at a.py:2"',
    ),
    "left": (
        StopTimedOut(component="worker/w", where="a.py:1"),
        "warning worker/w: stop_timeout is over, left behind where=a.py:1",
    ),
    "blocked": (
        LoopBlocked(component=KERNEL, seconds=1.26, where="a.py:1"),
        "warning kernel: the event loop goes on blocked_s=1.3 where=a.py:1",
    ),
    "revoked": (
        DeliveryRevoked(component="dispatcher/work", delivery_id="1", subject="a.b", error=None),
        "info    dispatcher/work: revoked delivery=1 subject=a.b",
    ),
    "revoked-with-an-error": (
        DeliveryRevoked(component="dispatcher/work", delivery_id="1", subject="a.b", error=OSError("gone")),
        'info    dispatcher/work: revoked delivery=1 subject=a.b error="OSError: gone"',
    ),
    "not-settled": (
        SettleFailed(component="dispatcher/work", delivery_id="1", error=OSError("gone")),
        'warning dispatcher/work: not settled delivery=1 error="OSError: gone"',
    ),
    "not-settled-and-failed": (
        SettleFailed(component="dispatcher/work", delivery_id="1", error=OSError("gone"), raised=ValueError("bad")),
        'warning dispatcher/work: not settled delivery=1 error="OSError: gone" raised="ValueError: bad"',
    ),
    "hook": (
        HookFailed(component="kernel", hook="metrics:count", error=KeyError("x"), times=10),
        "warning kernel: a hook failed hook=metrics:count times=10 error=\"KeyError: 'x'\"",
    ),
    "done": (
        settled(Ack()),
        "debug   dispatcher/work: done worker=worker/w delivery=1 attempt=2 subject=a.b seconds=0.123",
    ),
    "answered": (
        settled(Ack(), ValueError("why")),
        'warning dispatcher/work: answered with an error worker=worker/w delivery=1 attempt=2 error="ValueError: why"',
    ),
    "taken-by-a-failure-worker": (
        attrs.evolve(settled(Ack(), ValueError("why")), failure_worker="worker/rescue"),
        (
            "error   dispatcher/work: failed, taken by its failure worker worker=worker/w delivery=1 attempt=2 "
            'taken_by=worker/rescue error="ValueError: why"'
        ),
    ),
    "retried": (
        settled(Retry(1.5, "why"), ValueError("why")),
        "warning dispatcher/work: failed, tries again worker=worker/w delivery=1 attempt=2 in_s=1.5 error=why",
    ),
    "asked-for-again": (
        settled(Retry(1.5, "why")),
        "warning dispatcher/work: asks for another attempt worker=worker/w delivery=1 attempt=2 in_s=1.5 reason=why",
    ),
    "returned": (
        settled(Return()),
        "info    dispatcher/work: returned to its source worker=worker/w delivery=1 attempt=2",
    ),
    "dead": (
        settled(DeadLetter("why")),
        "error   dispatcher/work: dead-lettered worker=worker/w delivery=1 attempt=2 subject=a.b reason=why",
    ),
}


@pytest.mark.parametrize(("event", "line"), LINES.values(), ids=LINES.keys())
def test_an_event_is_a_line(event: Event, line: str) -> None:
    assert of_events(event, level="debug").splitlines()[0].partition(" ")[2] == line


def test_a_dead_letter_has_the_traceback_of_what_its_handler_raised() -> None:
    assert "raise ValueError" in of_events(settled(DeadLetter("why"), raised()))


@pytest.mark.parametrize(
    ("error", "level", "shown"),
    [
        (StartupError("no"), "info", False),
        (StartupError("no"), "debug", True),
        (UnavailableError("no"), "info", False),
        (UnavailableError("no"), "debug", True),
        (ConflictError("no"), "info", False),
        (ConflictError("no"), "debug", True),
        (ValueError("no"), "info", True),
    ],
)
def test_what_is_configured_wrongly_or_not_reachable_is_one_line(error: Exception, level: str, shown: bool) -> None:
    lines = of_events(ComponentFailed(component="driver/db", error=error, restart_in=None), level=level).splitlines()

    assert lines[0].endswith(f'failed error="{type(error).__name__}: no"')
    assert (len(lines) > 1) == shown


def test_deliveries_that_go_well_are_for_debugging() -> None:
    assert not of_events(settled(Ack()))


def test_events_of_plugins_are_theirs_to_log() -> None:
    @attrs.frozen(kw_only=True)
    class Own(Event):
        pass

    assert not of_events(Own(component="driver/db"), level="debug")


# --- what comes again -------------------------------------------------------------------------------------------------


def failure_of(
    raise_it: Callable[[], object], *, restart_in: float | None = 1.0, component: str = "w"
) -> ComponentFailed:
    try:
        raise_it()
    except Exception as error:  # noqa: BLE001
        return ComponentFailed(component=f"worker/{component}", error=error, restart_in=1.0)
    raise AssertionError


def here() -> None:
    raise ValueError("one")


def there() -> None:
    raise ValueError("two")


def limit_of(last: ComponentFailed) -> ComponentFailed:
    error = RestartLimitError("w", max_restarts=4, window=30.0, last="one")
    error.__cause__ = last.error
    return ComponentFailed(component="worker/w", error=error, restart_in=None)


def tracebacks(*events: ComponentFailed) -> list[str]:
    lines = of_events(*events, as_json=True).splitlines()
    return [json.loads(line)["traceback"].splitlines()[-1] for line in lines]


def test_a_failure_that_comes_again_has_its_traceback_once() -> None:
    failures = [failure_of(here) for _ in range(5)]

    shown = tracebacks(*failures, limit_of(failures[-1]))

    assert shown == ["ValueError: one", *["as before"] * 5]


def test_another_failure_and_that_of_another_component_have_theirs() -> None:
    shown = tracebacks(failure_of(here), failure_of(there), failure_of(here), failure_of(here, component="v"))

    assert shown == ["ValueError: one", "ValueError: two", "ValueError: one", "ValueError: one"]


def test_a_failure_that_comes_again_much_later_has_its_traceback_again(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1000.0, 1599.0, 1601.0, 1602.0, 1603.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times))

    assert tracebacks(*[failure_of(here) for _ in range(3)]) == ["ValueError: one", "as before", "ValueError: one"]
