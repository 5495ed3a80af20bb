"""What the pipeline costs, against bare trio: interleaved rounds in one run, medians and their ratio.

    uv run python benchmarks/pipeline.py

The reference is what any trio program pays to handle messages with bounds: one task, one limiter slot and one
deadline per message. The kernel does the same and the rest on top: taking from the broker in memory, decoding JSON,
routing, converting the payload, acknowledging, telling what happened. Both call the same handler, with one checkpoint.
Seconds are CPU seconds of the process, so that a busy machine changes them little; both sides do nothing but compute.
"""

from __future__ import annotations

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import attrs
import trio

from kernel import Envelope
from kernel._control.orders import Desk
from kernel._control.places import Place
from kernel._control.server import answer_at, open_socket
from kernel._core.events import DeliverySettled, EventHub
from kernel._core.spec import Plan
from kernel._log.log import Log, LogSettings
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry, discover
from kernel._plan.plan import resolve
from kernel._supervise.kernel import Kernel
from kernel._supervise.run import serve
from kernel.abc import Binding, Broker, Exchange, Queue, Topology
from kernel.testing import fake_context

MESSAGES: Final = 20_000
ROUNDS: Final = 9
CONCURRENCY: Final = 100
BOUND: Final = 0.5
BODY: Final = json.dumps({"sku": "tea", "quantity": 2, "note": "x" * 150}).encode()


@attrs.define
class Counter:
    """Counts messages; the handler of both sides."""

    left: int = MESSAGES
    finished: trio.Event = attrs.field(factory=trio.Event)

    async def handle(self, order: dict[str, object]) -> None:
        self.left -= 1
        if self.left == 0:
            self.finished.set()
        await trio.lowlevel.checkpoint()


async def bare() -> float:
    """Return CPU seconds per message of bare trio."""
    counter, limiter = Counter(), trio.CapacityLimiter(CONCURRENCY)
    payload: dict[str, object] = {}

    async def work(number: int) -> None:
        try:
            with trio.move_on_after(30):
                await counter.handle(payload)
        finally:
            limiter.release_on_behalf_of(number)

    began = time.process_time()
    async with trio.open_nursery() as nursery:
        for number in range(MESSAGES):
            await limiter.acquire_on_behalf_of(number)
            nursery.start_soon(work, number)
    return (time.process_time() - began) / MESSAGES


def service(counter: Counter, gate: trio.Event, *, inside: bool) -> Plan:
    """Return a service whose worker becomes ready when the gate opens, so that messages wait in the queue.

    Args:
        counter: Counts what the worker handles.
        gate: Opens when all messages are there.
        inside: Whether the worker is in a service inside, which is lent the queue.
    """

    class Worker:
        async def __aenter__(self) -> None:
            await gate.wait()

        async def __aexit__(self, *_: object) -> None:
            pass

        async def __call__(self, order: dict[str, object]) -> None:
            await counter.handle(order)

    outer = {"kernel": {"name": "bench"}, "drivers": {"queue": {"plugin": "memory"}}}
    tables: Mapping[str, object] = {
        "dispatchers": {
            "orders": {
                "plugin": "consumer",
                "driver": "queue",
                "protocol": "json",
                "queue": "orders",
                "bindings": ["order.*"],
                "dead_letters": "",
                "concurrency": CONCURRENCY,
            }
        },
        "workers": {"count": {"use": "count", "dispatcher": "orders"}},
    }
    registry = Registry((*discover().plugins, *Registry.of({"workers": {"count": Worker}}).plugins))
    if not inside:
        return resolve(from_mapping({**outer, **tables}), registry)
    said = {"services": {"inner": {"manifest": "inner.toml", "drivers": {"queue": "queue"}}}}
    inner = from_mapping({"kernel": {"name": "inner"}, **tables})
    return resolve(attrs.evolve(from_mapping(outer), tables={**outer, **said}, services={"inner": inner}), registry)


def through_kernel(*, heard: bool, control: bool = False, inside: bool = False) -> Callable[[], Awaitable[float]]:
    """Return a round that returns CPU seconds per message.

    Args:
        heard: Whether somebody hears `DeliverySettled`.
        control: Whether there is a control socket, which nobody asks.
        inside: Whether the worker is in a service inside.
    """

    async def run() -> float:
        counter, gate = Counter(), trio.Event()
        hub = EventHub()
        if heard:
            hub.subscribe(lambda event: None, DeliverySettled)
        plan = service(counter, gate, inside=inside)
        async with trio.open_nursery() as nursery:

            async def host(task_status: trio.TaskStatus[Kernel]) -> None:
                await serve(plan, log=fake_context().log, hub=hub, task_status=task_status)

            kernel = await nursery.start(host)
            if control:
                nursery.start_soon(listen_at, kernel)
            await fill(kernel)
            began = time.process_time()
            gate.set()
            await counter.finished.wait()
            seconds = time.process_time() - began
            kernel.request_stop()
            nursery.cancel_scope.cancel()
        return seconds / MESSAGES

    return run


async def listen_at(kernel: Kernel) -> None:
    """Listen as `kernel run` does."""
    log = Log(LogSettings())
    with tempfile.TemporaryDirectory() as folder:
        place = Place.of("bench", {"KERNEL_CONTROL_DIR": f"{folder}/run"})
        listener = open_socket(place, log.logger())
        assert listener is not None
        await answer_at(listener, place, lambda bridge: Desk(kernel, log, bridge), log.logger())


async def fill(kernel: Kernel) -> None:
    """Put all messages into the queue."""
    while kernel.states["driver/queue"].value != "ready":
        await trio.lowlevel.checkpoint()
    broker = kernel.resource("driver/queue")
    assert isinstance(broker, Broker)
    await broker.declare(
        Topology(
            exchanges=[Exchange(name="events")],
            queues=[Queue(name="orders")],
            bindings=[Binding(queue="orders", exchange="events", pattern="order.*")],
        )
    )
    for number in range(MESSAGES):
        await broker.send(Envelope(subject="order.created", body=BODY, id=str(number)), exchange="events")


def main() -> int:
    """Print the figures; return 1 if the bound is not met."""
    rounds: Mapping[str, Callable[[], Awaitable[float]]] = {
        "bare trio": bare,
        "kernel, events heard": through_kernel(heard=True),
        "kernel, events not heard": through_kernel(heard=False),
        "kernel, control socket": through_kernel(heard=False, control=True),
        "kernel, service inside": through_kernel(heard=True, inside=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in rounds}
    for number in range(ROUNDS + 1):
        for name, run in rounds.items():
            gc.collect()
            measured = trio.run(run)
            if number:  # the first round warms up
                seconds[name].append(measured)
    base = seconds["bare trio"]
    print(f"{MESSAGES} messages of {len(BODY)} bytes, concurrency {CONCURRENCY}, {ROUNDS} rounds")
    ratios: dict[str, float] = {}
    for name, values in seconds.items():
        ratios[name] = statistics.median(mine / other for mine, other in zip(base, values, strict=True))
        middle = statistics.median(values)
        print(f"{name:26} {1 / middle:8.0f} messages/s {middle * 1e6:6.1f} us CPU each, {ratios[name]:5.2f} of bare")
    met = ratios["kernel, events heard"] >= BOUND
    print(f"bound: at least {BOUND} of the rate of bare trio: {'met' if met else 'NOT met'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
