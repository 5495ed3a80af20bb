"""A service opened inside a test: what can be seen of it, replaced in it, and what it must not leave behind."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from typing_extensions import override

from kernel import Ack, Envelope, Outcome, SettleFailed, StopRequested, handles
from kernel._core.spec import WorkerSpec
from kernel._manifest.registry import Registry, discover
from kernel._supervise.kernel import ExitStatus
from kernel.abc import Context, Delivery, Dispatcher, Driver, Intake, NoConfig
from kernel.errors import InvalidError, RemoteError, StartupError
from kernel.testing import Faults, Patience, RunningService, no_leaks, no_task_leaks, open_kernel

INSTALLED = discover().plugins
BROKER = {"driver": "queue", "protocol": "json"}


class Payments:
    """What a driver of the service offers."""

    def pay(self, amount: int) -> str:
        return f"paid {amount}"


@attrs.frozen
class PaymentsDriver(Driver[Payments]):
    provides = Payments
    config: NoConfig
    context: Context

    @override
    @asynccontextmanager
    async def open(self) -> AsyncIterator[Payments]:
        await trio.lowlevel.checkpoint()
        yield Payments()


class Shop:
    """A worker with a handler that does as it is told."""

    def __init__(self, payments: Payments) -> None:
        self.payments = payments

    @handles("order.#")
    async def order(self, payload: Any, envelope: Envelope) -> str:
        if payload == "fail":
            raise OSError("not now")
        return self.payments.pay(payload)


async def fails() -> None:
    await trio.sleep(5)
    raise ValueError("why")


def registry(**workers: object) -> Registry:
    own = {"workers": {"shop": Shop, **workers}, "drivers": {"payments": PaymentsDriver, "bad": BadDriver}}
    return Registry((*INSTALLED, *Registry.of(own).plugins))


MANIFEST: Mapping[str, Any] = {
    "kernel": {"name": "shop", "grace_period": 20.0, "drain_timeout": 1.0},
    "drivers": {
        "queue": {"plugin": "memory"},
        "payments": {"plugin": "payments"},
        "events": {"plugin": "publisher", **BROKER},
        "rpc": {"plugin": "rpc_client", **BROKER},
    },
    "dispatchers": {"work": {"plugin": "consumer", "queue": "work", "bindings": ["order.#"], **BROKER}},
    "workers": {"shop": {"use": "shop", "dispatcher": "work", "retry": {"attempts": 2, "backoff_initial": 10.0}}},
}


@attrs.frozen
class BadDriver(Driver[object]):
    config: NoConfig
    context: Context

    @override
    @asynccontextmanager
    async def open(self) -> AsyncIterator[object]:
        await trio.lowlevel.checkpoint()
        raise StartupError("never")
        yield


def loop(code: object, **tables: Any) -> Any:
    """Open a service that is one loop."""
    manifest = {"kernel": {"name": "test"}, "workers": {"w": {"use": "w"}}, **tables}
    return open_kernel(manifest, registry=registry(w=code))


# --- what can be seen and done ----------------------------------------------------------------------------------------


async def test_messages_are_published_and_their_ends_waited_for(autojump_clock: Any) -> None:
    async with open_kernel(MANIFEST, registry=registry()) as service:
        await service.publish("events", "order.one", 1)
        await service.publish("events", "order.two", 2)
        settled = await service.wait_settled(2)

    assert {event.subject for event in settled} == {"order.one", "order.two"}
    assert [event.outcome for event in service.settled] == [Ack(), Ack()]
    assert all(event.worker == "worker/shop" for event in settled)


async def test_only_the_deliveries_that_match_are_waited_for(autojump_clock: Any) -> None:
    async with open_kernel(MANIFEST, registry=registry(), expected=OSError) as service:
        await service.publish("events", "order.one", "fail")
        settled = await service.wait_settled(1, matching=lambda event: event.attempt == 2)

    assert [event.attempt for event in settled] == [2]
    assert len(service.settled) == 2


async def test_a_call_returns_the_answer(autojump_clock: Any) -> None:
    async with open_kernel(MANIFEST, registry=registry()) as service:
        with trio.fail_after(10):
            assert await service.call("rpc", "order.one", 7) == "paid 7"


async def test_events_are_waited_for_though_they_are_past(autojump_clock: Any) -> None:
    async with loop(trio.sleep_forever) as service:
        service.kernel.request_stop("one")
        await trio.sleep(1)

        assert (await service.wait_event(StopRequested)).reason == "one"
        assert await service.wait_event(StopRequested, lambda event: event.reason == "one") in service.events


@pytest.mark.parametrize("what", ["event", "settled"])
async def test_what_never_comes_is_not_waited_for_longer_than_the_service_lives(autojump_clock: Any, what: str) -> None:
    async def ends() -> None:
        await trio.sleep(5)

    table = {"workers": {"w": {"use": "w", "restart": {"policy": "never"}}}}
    async with loop(ends, **table) as service:
        with pytest.raises(AssertionError, match="never happened"):
            await (service.wait_settled() if what == "settled" else service.wait_event(StopRequested, lambda _: False))


async def test_a_manifest_is_a_path_too(autojump_clock: Any, tmp_path: Path) -> None:
    (tmp_path / "own_code.py").write_text("import trio\nasync def run() -> None:\n    await trio.sleep_forever()\n")
    path = tmp_path / "kernel.toml"
    path.write_text('[kernel]\nname = "${NAME}"\n[workers.w]\nuse = "own_code:run"\n')

    async with open_kernel(path, environ={"NAME": "fromfile"}) as service:
        assert service.plan.name == "fromfile"


async def test_variables_of_the_process_are_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "outside")
    with pytest.raises(InvalidError, match="NAME"):
        async with open_kernel({"kernel": {"name": "${NAME}"}}):
            raise NotImplementedError


@pytest.mark.parametrize("manifest", [{"kernel": 3}, {"kernel": {"name": "x"}, "workers": {"w": {}}}])
async def test_a_manifest_that_is_wrong_is_refused(manifest: Mapping[str, object]) -> None:
    with pytest.raises(InvalidError):
        async with open_kernel(manifest):
            raise NotImplementedError


# --- how it ends ------------------------------------------------------------------------------------------------------


async def test_stop_says_how_it_ended_and_raises_nothing(autojump_clock: Any) -> None:
    async with loop(fails, workers={"w": {"use": "w", "restart": {"policy": "never"}}}) as service:
        await trio.sleep(10)
        result = await service.stop()

    assert result.status is ExitStatus.FAILED
    assert result is service.result


async def test_a_failure_that_the_test_did_not_look_at_is_raised(autojump_clock: Any) -> None:
    with pytest.raises(ExceptionGroup, match="the service failed") as caught:
        async with loop(fails, workers={"w": {"use": "w", "restart": {"policy": "never"}}}):
            await trio.sleep(10)

    assert [repr(error) for error in caught.value.exceptions] == ["ValueError('why')"]


async def test_what_the_test_raises_is_raised_as_it_is(autojump_clock: Any) -> None:
    error = ExceptionGroup("own", [ValueError("why")])
    with pytest.raises(ExceptionGroup, match="own") as caught:
        async with loop(trio.sleep_forever):
            raise error

    assert caught.value.exceptions == error.exceptions
    with pytest.raises(LookupError, match="bare"):
        async with loop(trio.sleep_forever):
            raise LookupError("bare")


async def test_what_the_test_and_the_kernel_raise_is_raised_together(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, task_status: Any, **__: object) -> None:
        task_status.started(None)
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        raise OSError("kernel")

    monkeypatch.setattr("kernel.testing._running.serve", broken)
    with pytest.raises(ExceptionGroup) as caught:
        async with open_kernel({"kernel": {"name": "x"}, "workers": {"w": {"use": "trio:sleep_forever"}}}, ready=False):
            raise ValueError("test")

    assert sorted(map(repr, caught.value.exceptions)) == ["OSError('kernel')", "ValueError('test')"]


async def test_a_service_that_cannot_start_is_an_error_of_its_own(autojump_clock: Any) -> None:
    with pytest.raises(StartupError, match="stopped before it was ready"):
        async with loop(trio.sleep_forever, drivers={"d": {"plugin": "bad"}}):
            raise NotImplementedError


async def test_a_test_that_is_cancelled_stops_the_service_at_once(autojump_clock: Any) -> None:
    with trio.move_on_after(3) as scope:
        async with loop(trio.sleep_forever) as service:
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert service.result is None
    with pytest.raises(RuntimeError, match="without a result"):
        await service.stop()


@attrs.define(eq=False)
class Unsettleable(Delivery):
    """A delivery whose source takes no outcome."""

    envelope = Envelope(subject="a", body=b"1")  # type: ignore[assignment]
    attempt = 1  # type: ignore[assignment]
    redelivered = False  # type: ignore[assignment]

    @override
    async def settle(self, outcome: Outcome) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError("the channel is gone")


@attrs.frozen
class Source(Dispatcher):
    config: NoConfig
    context: Context

    @override
    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        yield

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await intake.submit(Unsettleable())
        await trio.sleep_forever()


async def test_a_delivery_that_could_not_be_settled_fails_the_test(autojump_clock: Any) -> None:
    class Worker:
        @handles("#")
        async def on(self, payload: Any) -> None: ...

    given = Registry.of({"dispatchers": {"source": Source}, "workers": {"w": Worker}})
    manifest = {
        "kernel": {"name": "test"},
        "dispatchers": {"source": {}},
        "workers": {"w": {"use": "w", "dispatcher": "source"}},
    }
    with pytest.raises(AssertionError, match=r"not settled: \w+ \(OSError\('the channel is gone'\)\)"):
        async with open_kernel(manifest, registry=given) as service:
            await service.wait_event(SettleFailed)


# --- what handlers raise ----------------------------------------------------------------------------------------------


class WrongError(Exception):
    """What a handler that checks something raises: an error as any other."""


async def settle(opened: Any, payload: object, count: int = 2) -> None:
    async with opened as service:
        await service.publish("events", "order.one", payload)
        await service.wait_settled(count)


def checking(error: Exception) -> Registry:
    class Checks:
        @handles("order.#")
        async def order(self, payload: Any) -> None:
            raise error

    return Registry((*registry().plugins, *Registry.of({"workers": {"checks": Checks}}).plugins))


CHECKED = {"workers.shop": {"use": "checks", "dispatcher": "work", "retry": {"attempts": 2}}}


@pytest.mark.parametrize("error", [AssertionError("1 != 2"), WrongError("so"), KeyError("sku")], ids=repr)
async def test_what_a_handler_raises_fails_the_test(autojump_clock: Any, error: Exception) -> None:
    with pytest.raises(ExceptionGroup, match="2 failures that the test does not expect") as caught:
        await settle(open_kernel(MANIFEST, registry=checking(error), replace=CHECKED), 1)

    assert set(caught.value.exceptions) == {error}


@pytest.mark.parametrize("expected", [WrongError, Exception, (KeyError, WrongError)])
async def test_a_test_says_what_it_expects(autojump_clock: Any, expected: Any) -> None:
    await settle(open_kernel(MANIFEST, registry=checking(WrongError("so")), replace=CHECKED, expected=expected), 1)


async def test_other_errors_than_the_expected_fail_the_test(autojump_clock: Any) -> None:
    opened = open_kernel(MANIFEST, registry=checking(WrongError("so")), replace=CHECKED, expected=KeyError)
    with pytest.raises(ExceptionGroup, match="does not expect"):
        await settle(opened, 1)


async def test_a_payload_that_no_handler_takes_fails_the_test(autojump_clock: Any) -> None:
    class Strict:
        @handles("order.#")
        async def order(self, payload: int) -> None: ...

    opened = open_kernel(MANIFEST, registry=registry(checks=Strict), replace=CHECKED)
    with pytest.raises(ExceptionGroup, match="does not expect"):
        await settle(opened, "no number", 1)


async def test_a_loop_that_is_restarted_fails_the_test(autojump_clock: Any) -> None:
    lives = iter([0.5, 1000.0])

    async def loops() -> None:
        await trio.sleep(next(lives))
        raise WrongError("so")

    with pytest.raises(ExceptionGroup, match="does not expect") as caught:
        async with loop(loops):
            await trio.sleep(10)

    assert [type(error) for error in caught.value.exceptions] == [WrongError]


async def test_an_error_that_was_answered_is_with_whoever_asked(autojump_clock: Any) -> None:
    async with open_kernel(MANIFEST, registry=registry()) as service:
        with pytest.raises(RemoteError):
            await service.call("rpc", "order.one", "fail")


# --- what never comes -------------------------------------------------------------------------------------------------

WAITS: Mapping[str, Any] = {
    "settled": lambda service: service.wait_settled(2),
    "event": lambda service: service.wait_event(StopRequested),
    "publish": lambda service: service.publish("events", "order.two", 2),
    "call": lambda service: service.call("rpc", "order.two", 2),
}


async def wait_in_vain(wait: str, patience: Patience, work: Any) -> None:
    """Wait for what never comes in a service that has handled one order and works on: by timers, or not at all."""
    faults = Faults(may_miss=True)
    faults.stall("driver/queue", "send", at=2)
    table = {**MANIFEST, "workers": {**MANIFEST["workers"], "w": {"use": "w"}}}
    longer = {"drivers.rpc.timeout": 3600.0}
    async with open_kernel(table, registry=registry(w=work), patience=patience, faults=faults, set=longer) as service:
        await service.publish("events", "order.one", 1)
        await service.wait_settled(1)
        await WAITS[wait](service)


async def polls() -> None:
    while True:  # noqa: ASYNC110  a driver that looks again and again is what this is about
        await trio.sleep(0.01)


@pytest.mark.parametrize("wait", ["settled", "event", "publish"])
@pytest.mark.parametrize("work", [polls, trio.sleep_forever], ids=["busy", "idle"])
async def test_a_wait_ends_on_the_clock_of_the_test(autojump_clock: Any, wait: str, work: Any) -> None:
    with pytest.raises(AssertionError, match=r"not within 10 s of the test's clock") as caught:
        await wait_in_vain(wait, Patience(seconds=10.0), work)

    assert "driver/queue ready" in str(caught.value)
    assert "worker='worker/shop'" in str(caught.value)


@pytest.mark.parametrize("wait", ["settled", "event", "publish", "call"])
async def test_a_wait_ends_on_the_real_clock_however_far_the_other_has_come(autojump_clock: Any, wait: str) -> None:
    patience = Patience(seconds=10.0**12, real_seconds=1.0)
    with pytest.raises(AssertionError, match=r"not within 1 real s") as caught:
        await wait_in_vain(wait, patience, polls)

    assert "worker='worker/shop'" in str(caught.value)


# --- what is replaced -------------------------------------------------------------------------------------------------


class FakePayments:
    """Like `Payments` in what the worker uses of it, and of no class in common."""

    def __init__(self) -> None:
        self.paid: list[int] = []

    def pay(self, amount: int) -> str:
        self.paid.append(amount)
        return "fake"


async def test_workers_get_the_very_object_that_replaces_a_driver(autojump_clock: Any) -> None:
    fake = FakePayments()
    replace = {"drivers.payments": fake}
    async with open_kernel(MANIFEST, registry=registry(), replace=replace) as service:
        await service.publish("events", "order.one", 5)
        await service.wait_settled(1)

        assert service.resource("driver/payments") is fake

    assert fake.paid == [5]


async def test_a_table_is_replaced_by_another(autojump_clock: Any) -> None:
    replace = {"workers.shop": {"use": "shop", "dispatcher": "work", "instances": 2}}
    async with open_kernel(MANIFEST, registry=registry(), replace=replace) as service:
        assert "worker/shop[2]" in service.kernel.states


async def test_single_keys_are_set(autojump_clock: Any) -> None:
    keys = {"workers.shop.instances": 2, "workers.shop.retry.attempts": 7, "kernel.name": "other"}
    async with open_kernel(MANIFEST, registry=registry(), set=keys) as service:
        plan = service.plan

    shop = plan.components["worker/shop"]
    assert isinstance(shop, WorkerSpec)
    assert (plan.name, shop.instances, shop.retry.attempts, shop.retry.backoff_initial) == ("other", 2, 7, 10.0)
    assert MANIFEST["workers"]["shop"]["retry"] == {"attempts": 2, "backoff_initial": 10.0}


async def test_a_key_of_what_is_replaced_can_be_set(autojump_clock: Any) -> None:
    replace = {"workers.shop": {"use": "shop", "dispatcher": "work"}}
    async with open_kernel(
        MANIFEST, registry=registry(), replace=replace, set={"workers.shop.timeout": 1.5}
    ) as service:
        shop = service.plan.components["worker/shop"]

    assert isinstance(shop, WorkerSpec)
    assert shop.timeout == 1.5


@pytest.mark.parametrize(
    ("keys", "error"),
    [({"workers.shop.retry.attempt": 1}, 'did you mean "attempts"'), ({"workers.shop.timeout": "1"}, "--set")],
)
async def test_a_key_that_is_set_wrong_is_a_problem_of_the_manifest(keys: dict[str, object], error: str) -> None:
    with pytest.raises(InvalidError, match=error):
        async with open_kernel(MANIFEST, registry=registry(), set=keys):
            raise NotImplementedError


async def test_no_key_is_set_through_what_is_no_table() -> None:
    with pytest.raises(KeyError, match="leads through use, which is no table"):
        async with open_kernel(MANIFEST, registry=registry(), set={"workers.shop.use.x": 1}):
            raise NotImplementedError


async def test_what_a_test_replaces_need_not_be_allowed(autojump_clock: Any) -> None:
    manifest = {**MANIFEST, "kernel": {**MANIFEST["kernel"], "plugins": ["memory", "consumer"]}}
    replace = {"drivers.payments": FakePayments()}
    async with open_kernel(manifest, registry=registry(), replace=replace) as service:
        assert service.kernel.is_ready


async def test_a_broker_that_replaces_a_driver_can_do_everything(autojump_clock: Any) -> None:
    async with open_kernel(MANIFEST, registry=registry()) as other:
        replace = {"drivers.queue": other.resource("driver/queue")}
        async with open_kernel(MANIFEST, registry=registry(), replace=replace) as service:
            await other.publish("events", "order.one", 1)
            await service.wait_settled(0)
            await trio.sleep(1)

    assert len(service.settled) + len(other.settled) == 1


async def test_what_is_not_in_the_manifest_cannot_be_replaced() -> None:
    with pytest.raises(KeyError, match=r"the manifest has no \[drivers.other\]"):
        async with open_kernel(MANIFEST, registry=registry(), replace={"drivers.other": object()}):
            raise NotImplementedError


async def test_faults_meet_the_calls_of_a_resource(autojump_clock: Any) -> None:
    faults = Faults()
    faults.fail("driver/payments", "pay", at=1, error=OSError("gone"))
    async with open_kernel(MANIFEST, registry=registry(), faults=faults) as service:
        await service.publish("events", "order.one", 1)
        settled = await service.wait_settled(2)

    assert [(event.attempt, repr(event.error)) for event in settled] == [(1, "OSError('gone')"), (2, "None")]


class Caller:
    """A worker that calls another one, in each of the ways in which a client can be asked to."""

    WAYS: Mapping[str, Any] = {
        "call": lambda rpc: rpc.call("order.one", 7),
        "attributes": lambda rpc: rpc.order.one(7),
        "items": lambda rpc: rpc["order"]["one"](7),
        "both": lambda rpc: rpc.order["one"](7),
    }

    def __init__(self, rpc: Any, config: Mapping[str, str]) -> None:
        self.ask = self.WAYS[config["way"]]
        self.rpc = rpc

    async def run(self) -> None:
        await self.ask(self.rpc)


@pytest.mark.parametrize("way", list(Caller.WAYS))
async def test_a_fault_of_a_call_meets_it_however_it_is_made(autojump_clock: Any, way: str) -> None:
    faults = Faults()
    faults.fail("driver/rpc", "call", error=OSError("gone"))
    worker = {"use": "caller", "config": {"way": way}, "restart": {"policy": "never"}}
    manifest = {**MANIFEST, "workers": {**MANIFEST["workers"], "caller": worker}}
    async with open_kernel(manifest, registry=registry(caller=Caller), faults=faults, ready=False) as service:
        await trio.sleep(1)
        result = await service.stop()

    assert [repr(error) for error in result.errors] == ["OSError('gone')"]


async def test_a_fault_for_a_driver_that_does_not_exist_is_refused() -> None:
    faults = Faults()
    faults.fail("driver/payment", "pay", error=OSError())
    with pytest.raises(ValueError, match='did you mean "driver/payments"'):
        async with open_kernel(MANIFEST, registry=registry(), faults=faults):
            raise NotImplementedError


async def test_a_fault_for_a_method_that_does_not_exist_keeps_the_service_from_starting(autojump_clock: Any) -> None:
    faults = Faults()
    faults.fail("driver/payments", "play", error=OSError())
    with pytest.raises(StartupError) as caught:
        async with open_kernel(MANIFEST, registry=registry(), faults=faults):
            raise NotImplementedError

    assert 'has no method "play"; did you mean "pay"?; it has: pay' in str(caught.value.__cause__)


async def test_a_fault_that_was_never_reached_fails_the_test(autojump_clock: Any) -> None:
    faults = Faults()
    faults.fail("driver/payments", "pay", at=2, error=OSError())
    with pytest.raises(AssertionError, match=r"never reached: call 2 of driver/payments.pay; calls: .*pay \(1\)"):
        await settle_one(open_kernel(MANIFEST, registry=registry(), faults=faults))


async def settle_one(opened: Any) -> None:
    async with opened as service:
        await service.publish("events", "order.one", 1)
        await service.wait_settled(1)


# --- leaks ------------------------------------------------------------------------------------------------------------


def test_nothing_left_is_no_leak() -> None:
    with no_leaks():
        os.close(os.open(os.devnull, os.O_RDONLY))


def test_what_python_keeps_beside_processes_is_no_leak() -> None:
    tracker = (
        "import os; from multiprocessing import resource_tracker; from kernel.testing import no_leaks\n"
        "with no_leaks(): resource_tracker.ensure_running()\n"
        "print(len(os.listdir('/proc/self/fd')))"
    )
    subprocess.run([sys.executable, "-c", tracker], check=True, capture_output=True)


def test_a_descriptor_that_is_left_is_named() -> None:
    with pytest.raises(AssertionError, match=r"left behind: descriptor \d+ \(/dev/null\)"), no_leaks():
        descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)


def test_a_descriptor_that_only_a_cycle_holds_is_no_leak() -> None:
    class Holder:
        def __init__(self) -> None:
            self.descriptor = os.open(os.devnull, os.O_RDONLY)
            self.cycle = self

        def __del__(self) -> None:
            os.close(self.descriptor)

    with no_leaks():
        Holder()


def test_a_thread_has_time_for_its_last_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr("kernel.testing._leaks.gc.collect", go_on.set)  # what is looked at between two looks
    with no_leaks():
        threading.Thread(target=go_on.wait, name="late").start()


def test_a_thread_that_is_left_is_named() -> None:
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, name="forgotten")
    with pytest.raises(AssertionError, match="left behind: thread forgotten"), no_leaks():
        thread.start()
    go_on.set()
    thread.join()


async def test_threads_that_trio_keeps_are_no_leak() -> None:
    with no_leaks():
        await trio.to_thread.run_sync(lambda: None)


def test_a_child_process_that_is_left_is_named() -> None:
    with pytest.raises(AssertionError, match=r"left behind: child process \d+"), no_leaks():
        child = subprocess.Popen(["sleep", "60"])
    child.kill()
    child.wait()


async def test_a_task_that_is_left_is_named() -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(AssertionError, match="tasks left behind: forgotten"):
            async with no_task_leaks():
                nursery.start_soon(trio.sleep_forever, name="forgotten")
        nursery.cancel_scope.cancel()


async def test_a_task_that_is_about_to_end_is_no_leak() -> None:
    async with trio.open_nursery() as nursery, no_task_leaks():
        nursery.start_soon(trio.lowlevel.checkpoint)


async def test_a_service_leaves_nothing_behind(autojump_clock: Any) -> None:
    async with no_task_leaks(), open_kernel(MANIFEST, registry=registry()) as service:
        await service.publish("events", "order.one", 1)
        await service.wait_settled(1)


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_plugin_of_pytest_imports_no_kernel_until_a_fixture_is_asked_for() -> None:
    code = "import sys, kernel.testing._fixtures; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"trio", "structlog", "kernel._supervise.run", "kernel.testing._open"} & set(result.stdout.split())


def test_each_public_name_is_there_and_no_other() -> None:
    from kernel import testing  # noqa: PLC0415  the module itself is under test

    assert all(hasattr(testing, name) for name in dir(testing))
    assert {"open_kernel", "no_leaks", "check_broker"} < set(dir(testing))
    with pytest.raises(AttributeError, match=r"'kernel\.testing' has no attribute 'other'"):
        testing.other  # noqa: B018  as above


# --- the how-to -------------------------------------------------------------------------------------------------------

HOW_TO = (Path(__file__).parents[2] / "docs/howto/test-a-service.md").read_text(encoding="utf-8")


def calls_in(section: str) -> list[tuple[str, list[str]]]:
    """Return the calls in the tables of a section, each with the names of its keyword arguments."""
    text = HOW_TO.partition(f"## {section}\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    found = [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]
    return [(re.split(r"\W", code)[0], re.findall(r"(\w+)=", code)) for code in found]


@pytest.mark.parametrize(("section", "cls"), [("Open it", RunningService), ("Inject faults", Faults)])
def test_the_how_to_names_what_there_is(section: str, cls: type[object]) -> None:
    calls = calls_in(section)
    fields = {field.name for field in attrs.fields(cls)}  # type: ignore[arg-type]

    assert len(calls) > 3
    for name, arguments in calls:
        assert name in fields or set(arguments) <= set(inspect.signature(getattr(cls, name)).parameters), name


def test_every_name_that_the_how_to_imports_is_there() -> None:
    from kernel import testing  # noqa: PLC0415  as above

    named = re.findall(r"`((?:check|cancel|no|open)_\w+)", HOW_TO)

    assert len(named) > 5
    assert set(named) <= set(dir(testing))
