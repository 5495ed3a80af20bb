"""The thread that watches the event loop, and the process around a run: signals, stalls, the end.

Real threads and the real clock, since they are what is under test; but `os._exit` is replaced.
"""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel
from typing_extensions import override

import kernel._supervise.watchdog as module
from kernel._core.events import EventHub, LoopBlocked, StopRequested
from kernel._core.spec import Plan
from kernel._log.log import Log, LogSettings
from kernel._log.sinks import Stream
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry
from kernel._plan.plan import resolve
from kernel._supervise.kernel import ExitStatus
from kernel._supervise.process import _Signals, run
from kernel._supervise.watchdog import Watchdog
from kernel.abc import Context, Driver, NoConfig
from kernel.errors import StartupError
from kernel.testing import fake_context, open_kernel

PATIENCE = 10.0


class EndedError(BaseException):
    """What `os._exit` raises here, in the thread of the watchdog."""


@attrs.define(eq=False)
class Ending:
    """What the watchdog wrote, and how it ended the process."""

    statuses: list[int] = attrs.field(factory=list)
    texts: list[str] = attrs.field(factory=list)
    over: threading.Event = attrs.field(factory=threading.Event)

    def exit(self, status: int) -> None:
        self.statuses.append(status)
        self.over.set()
        raise EndedError

    def write(self, descriptor: int, text: bytes) -> int:
        assert descriptor == 2
        self.texts.append(text.decode())
        return len(text)

    @property
    def text(self) -> str:
        return "".join(self.texts)


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Ending:
    """Keep the watchdog from ending the tests."""
    found = Ending()
    monkeypatch.setattr(module.os, "_exit", found.exit)
    monkeypatch.setattr(module.os, "write", found.write)
    monkeypatch.setattr(module, "_PERIOD", 0.01)
    monkeypatch.setattr(module, "STALL", 0.05)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    return found


# --- the watchdog -----------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Heard:
    """What a watchdog says of stalls."""

    during: list[tuple[float, str]] = attrs.field(factory=list)
    after: list[tuple[float, str]] = attrs.field(factory=list)
    named: threading.Event = attrs.field(factory=threading.Event)

    def on_stall(self, seconds: float, place: str) -> None:
        self.during.append((seconds, place))
        self.named.set()

    def after_stall(self, seconds: float, place: str) -> None:
        self.after.append((seconds, place))


def watched(main: Callable[[Watchdog], Any], *, grace_period: float = 60.0) -> Heard:
    """Run a function in trio under a watchdog."""
    heard = Heard()
    watchdog = Watchdog(grace_period, 3, heard.on_stall, heard.after_stall)

    async def started() -> None:
        watchdog.start()
        await main(watchdog)

    try:
        trio.run(started, instruments=[watchdog])
    finally:
        watchdog.stop()
    return heard


def test_a_line_that_blocks_the_loop_is_named_once_while_it_does_and_once_it_is_over(ending: Ending) -> None:
    lasting = threading.Event()

    async def main(watchdog: Watchdog) -> None:
        await trio.lowlevel.checkpoint()
        lasting.wait(0.3)  # blocks
        await trio.lowlevel.checkpoint()

    heard = watched(main)

    [(so_far, place)] = heard.during
    [(in_all, same)] = heard.after
    assert place == same
    assert place.startswith(__file__)
    assert 0.05 < so_far < in_all
    assert in_all >= 0.3


def test_each_stall_is_named(ending: Ending) -> None:
    async def main(watchdog: Watchdog) -> None:
        for _ in range(2):
            await trio.lowlevel.checkpoint()
            threading.Event().wait(0.2)

    assert len(watched(main).during) == 2


def test_a_loop_that_waits_or_is_busy_in_short_steps_is_not_blocked(ending: Ending) -> None:
    async def main(watchdog: Watchdog) -> None:
        await trio.sleep(0.15)
        busy_until = time.monotonic() + 0.15
        while time.monotonic() < busy_until:
            await trio.lowlevel.checkpoint()

    assert not watched(main).during


def test_what_hangs_when_the_grace_period_is_over_is_named(ending: Ending) -> None:
    async def main(watchdog: Watchdog) -> None:
        watchdog.hanging = lambda: ["worker/w at a.py:1"]
        watchdog.arm()
        await trio.to_thread.run_sync(ending.over.wait, PATIENCE)

    watched(main, grace_period=0.05)

    assert ending.statuses == [3]
    assert ending.text == (
        "kernel: grace_period = 0.05 s is over; ending the process. Still running:\n  worker/w at a.py:1\n"
    )


def test_the_line_that_blocks_the_loop_is_named_when_the_grace_period_is_over(ending: Ending) -> None:
    async def main(watchdog: Watchdog) -> None:
        watchdog.arm()
        ending.over.wait(PATIENCE)

    watched(main, grace_period=0.05)

    assert f"  the event loop, blocked at {__file__}:" in ending.text


@pytest.mark.parametrize("blocked", [True, False], ids=["blocked", "waiting"])
def test_the_process_ends_with_its_grace_period_and_not_later(
    ending: Ending, monkeypatch: pytest.MonkeyPatch, blocked: bool
) -> None:
    ended: list[float] = []

    async def main(watchdog: Watchdog) -> None:
        monkeypatch.setattr(module.os, "_exit", lambda status: ended.append(time.monotonic()) or ending.exit(status))
        watchdog.arm()
        if blocked:
            ending.over.wait(PATIENCE)
        else:
            await trio.to_thread.run_sync(ending.over.wait, PATIENCE)
        assert ended[0] - watchdog._end_at < 0.1

    watched(main, grace_period=1.0)


def test_threads_are_named_if_no_component_hangs(ending: Ending) -> None:
    async def main(watchdog: Watchdog) -> None:
        watchdog.arm()
        await trio.to_thread.run_sync(ending.over.wait, PATIENCE)

    watched(main, grace_period=0.05)

    assert "  thread MainThread at " in ending.text


def test_threads_are_named_if_the_loop_is_over_and_the_process_is_not(ending: Ending) -> None:
    heard = Heard()
    watchdog = Watchdog(0.2, 3, heard.on_stall, heard.after_stall)

    async def main() -> None:
        watchdog.start()
        watchdog.arm()

    trio.run(main, instruments=[watchdog])
    assert ending.over.wait(PATIENCE)

    assert "  thread MainThread at " in ending.text
    assert not heard.during


def test_the_grace_period_counts_from_the_first_call(ending: Ending) -> None:
    async def main(watchdog: Watchdog) -> None:
        watchdog.arm()
        began = time.monotonic()
        while not ending.over.is_set():
            watchdog.arm()
            await trio.sleep(0.01)
        assert time.monotonic() - began < PATIENCE / 2

    watched(main, grace_period=0.1)


def test_a_process_that_can_start_no_thread_is_ended_all_the_same(
    ending: Ending, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> threading.Thread:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "_in_thread", fail)

    async def main(watchdog: Watchdog) -> None:
        watchdog.arm()
        ending.over.wait(PATIENCE)  # blocks, so there is a stall to name as well

    watched(main, grace_period=0.2)

    assert ending.statuses == [3]


def test_a_watchdog_that_was_stopped_ends_nothing(ending: Ending) -> None:
    async def main(watchdog: Watchdog) -> None:
        watchdog.stop()
        watchdog.arm()
        await trio.sleep(0.1)

    watched(main, grace_period=0.0)

    assert not ending.statuses


@pytest.mark.parametrize("blocks", ["standard-error", "the-log"])
def test_an_output_that_takes_nothing_does_not_hold_the_end(
    ending: Ending, monkeypatch: pytest.MonkeyPatch, blocks: str
) -> None:
    go_on = threading.Event()
    if blocks == "standard-error":
        monkeypatch.setattr(module.os, "write", lambda *_: go_on.wait(PATIENCE))

    async def main(watchdog: Watchdog) -> None:
        if blocks == "the-log":
            watchdog.on_stall = lambda *_: go_on.wait(PATIENCE)
        watchdog.arm()
        assert ending.over.wait(PATIENCE / 2)

    watched(main, grace_period=0.2)
    go_on.set()

    assert ending.statuses == [3]


def test_an_output_that_is_closed_does_not_hold_the_end(ending: Ending, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError("closed")

    monkeypatch.setattr(module.os, "write", fail)

    async def main(watchdog: Watchdog) -> None:
        watchdog.arm()
        await trio.to_thread.run_sync(ending.over.wait, PATIENCE)

    watched(main, grace_period=0.05)

    assert ending.statuses == [3]


# --- the process ------------------------------------------------------------------------------------------------------


MANIFEST: Mapping[str, Any] = {
    "kernel": {"name": "test", "grace_period": 8.0, "drain_timeout": 1.0},
    "workers": {"w": {"use": "w"}},
}


def registry(worker: object, **others: object) -> Registry:
    return Registry.of({"workers": {"w": worker, **others}})


def plan(worker: object, **others: object) -> Plan:
    workers = {name: {"use": name} for name in ("w", *others)}
    return resolve(from_mapping({**MANIFEST, "workers": workers}, environ={}), registry(worker, **others))


def sends(*signals: signal.Signals, wait: float = 0.02) -> Callable[[], Any]:
    """Return a worker that sends signals to its process, one after the other."""

    async def worker() -> None:
        for number in signals:
            os.kill(os.getpid(), number)
            await trio.sleep(wait)
        await trio.sleep_forever()

    return worker


def signals_of(hub: EventHub) -> list[str]:
    reasons: list[str] = []
    hub.subscribe(lambda event: reasons.append(event.reason), StopRequested)  # type: ignore[attr-defined]
    return reasons


LOG = fake_context().log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_begins_the_stop(number: signal.Signals) -> None:
    hub = EventHub()
    reasons = signals_of(hub)
    result = run(plan(sends(number)), log=LOG, hub=hub)

    assert result.status is ExitStatus.STOPPED
    assert reasons == [number.name]


def test_handlers_of_signals_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]

    run(plan(sends(signal.SIGTERM)), log=LOG)

    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == before


def test_where_the_process_ends_next_signals_stay_ignored_and_the_watchdog_watches(
    ending: Ending, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Watchdog] = []

    def make(*arguments: Any, **named: Any) -> Watchdog:
        made.append(Watchdog(*arguments, **named))
        return made[0]

    monkeypatch.setattr("kernel._supervise.process.Watchdog", make)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    try:
        run(attrs.evolve(plan(sends(signal.SIGTERM)), grace_period=1.0), log=LOG, ends_process=True)
        after = [signal.getsignal(number) for number in numbers]
        assert ending.over.wait(PATIENCE)
    finally:
        made[0].stop()  # else it would end the tests
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

    assert after == [signal.SIG_IGN] * 3
    assert ending.statuses == [3]


def test_sighup_changes_nothing() -> None:
    hub = EventHub()
    reasons = signals_of(hub)

    run(plan(sends(signal.SIGHUP, signal.SIGTERM)), log=LOG, hub=hub)

    assert reasons == ["SIGTERM"]


async def test_a_signal_before_there_is_a_kernel_is_kept_for_it(autojump_clock: Any) -> None:
    inbox = _Signals(LOG)
    inbox.receive(signal.SIGTERM, 0.0)
    async with open_kernel(MANIFEST, registry=registry(trio.sleep_forever)) as service:
        inbox.pass_on_to(service.kernel)

    [requested] = [event for event in service.events if isinstance(event, StopRequested)]
    assert requested.reason == "SIGTERM"


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)], ids=["int-int", "term-int"]
)
async def test_only_the_second_sigint_skips_the_drain(
    autojump_clock: Any, first: signal.Signals, second: signal.Signals
) -> None:
    inbox = _Signals(LOG)
    async with open_kernel(MANIFEST, registry=registry(trio.sleep_forever)) as service:
        inbox.pass_on_to(service.kernel)
        inbox.receive(first, 0.0)
        inbox.receive(second, 1.0)

        assert service.kernel._supervisor._hastened == (first is signal.SIGINT)

        inbox.receive(signal.SIGTERM, 2.0)  # and this changes nothing
        inbox.receive(signal.SIGINT, 2.0)
        assert service.kernel._supervisor._hastened


def test_a_stall_is_in_the_log_while_it_lasts_and_an_event_afterwards(ending: Ending) -> None:
    stream = io.StringIO()
    hub = EventHub()
    blocked: list[LoopBlocked] = []
    hub.subscribe(blocked.append, LoopBlocked)  # type: ignore[arg-type]
    during: list[str] = []

    async def worker() -> None:
        await trio.lowlevel.checkpoint()
        threading.Event().wait(0.3)
        during.append(stream.getvalue())
        await trio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()

    run(plan(worker), log=Log(LogSettings(sink=Stream(stream))).logger(), hub=hub)

    [event] = [one for one in blocked if one.where.startswith(__file__)]  # a busy machine can hold it up elsewhere
    assert "the event loop is blocked" in during[0]
    assert event.where in during[0]
    assert event.seconds >= 0.3


def test_the_grace_period_counts_from_a_stop_that_nobody_signalled(ending: Ending) -> None:
    async def worker() -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(ending.over.wait, PATIENCE)

    async def fails() -> None:
        await trio.lowlevel.checkpoint()
        raise StartupError("never")

    made = attrs.evolve(plan(worker, other=fails), grace_period=0.2)
    result = run(made, log=LOG)

    assert result.status is ExitStatus.FAILED
    assert ending.statuses == [3]
    assert f"worker/w at {__file__}:" in ending.text


def test_a_handler_that_is_not_pythons_is_replaced_by_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python returns None for it, and does not take that back."""
    real = signal.signal
    foreign = {signal.SIGHUP}

    def set_handler(number: signal.Signals, handler: Any) -> Any:
        before = real(number, handler)
        return None if number in foreign and not foreign.discard(number) else before

    before = signal.getsignal(signal.SIGHUP)
    monkeypatch.setattr(signal, "signal", set_handler)
    try:
        run(plan(sends(signal.SIGTERM)), log=LOG)

        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        real(signal.SIGHUP, before)  # which is to ignore it where whoever runs the tests has said so


def test_plugins_are_preloaded_before_the_loop_runs() -> None:
    seen: list[bool] = []

    @attrs.frozen
    class Preloads(Driver[object]):
        config: NoConfig
        context: Context

        @classmethod
        @override
        def preload(cls) -> None:
            seen.append(sniffs_trio())

        @override
        @asynccontextmanager
        async def open(self) -> AsyncIterator[object]:
            seen.append(sniffs_trio())
            yield None

    manifest = {**MANIFEST, "drivers": {"d": {"plugin": "d"}}}
    source = from_mapping(manifest, environ={})
    given = Registry.of({"drivers": {"d": Preloads}, "workers": {"w": sends(signal.SIGTERM)}})
    run(resolve(source, given), log=LOG)

    assert seen == [False, True]


def sniffs_trio() -> bool:
    return trio.lowlevel.in_trio_run()
