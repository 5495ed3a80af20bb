"""What typed events cost, and interceptors: interleaved rounds in one run, medians and their ratios.

    uv run python benchmarks/events.py
    uv run python benchmarks/events.py --transport memory

An event through `event_sender` and `event_listener` is held against the same object through `publisher` and `consumer`,
over the same broker, with the same protocol and a handler that does the same. The interceptor sets a header where a
message is sent, and a context variable from it where that is handled; what it costs is told for each side, over the
broker in memory, which does nothing else meanwhile. Seconds are CPU seconds of the process.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, Final

import attrs
import trio
from kernel_events import event, listens

from kernel import Incoming, Outgoing, handles, new_id
from kernel._core.events import EventHub
from kernel._core.spec import Plan
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry, discover
from kernel._plan.plan import resolve
from kernel._supervise.kernel import Kernel
from kernel._supervise.run import serve
from kernel.testing import fake_context

BOUND: Final = 1.15
"""Times the CPU of a plain message."""
MICROSECONDS: Final = 2.0
"""What an interceptor may cost on each side."""
SENDERS: Final = 50
SHARE: Final = 1000
"""Messages that are measured at a time to tell what an interceptor costs."""
CONCURRENCY: Final = 100
WIRED: Final = {"driver": "queue", "protocol": "json"}

TRANSPORTS: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "amqp": lambda: {
        "plugin": "amqp",
        "hosts": ["127.0.0.1:5672"],
        "prefix": f"bench-{new_id()}.",
        "exchanges": {"events": {"auto_delete": True}},
    },
    "memory": lambda: {"plugin": "memory"},
}
"""Name -> the table of a broker. Every broker over which events go belongs here."""

session: Final[ContextVar[str]] = ContextVar("session", default="")


@event(durable=False)
@attrs.frozen
class Order:
    """What is sent."""

    sku: str
    quantity: int
    note: str


ORDER: Final = Order("tea", 2, "x" * 150)


class Waits:
    """The usual form, with a header each way."""

    @asynccontextmanager
    async def sending(self, outgoing: Outgoing) -> AsyncGenerator[None]:
        outgoing.headers["session"] = "ann"
        yield

    @asynccontextmanager
    async def handling(self, incoming: Incoming) -> AsyncGenerator[None]:
        session.set(str(incoming.headers["session"]))
        yield


class Plain:
    """The form that waits for nothing."""

    @contextmanager
    def sending(self, outgoing: Outgoing) -> Generator[None]:
        outgoing.headers["session"] = "ann"
        yield

    @contextmanager
    def handling(self, incoming: Incoming) -> Generator[None]:
        session.set(str(incoming.headers["session"]))
        yield


@attrs.define
class Desk:
    """Where what is handled waits until it may be, and is counted."""

    gate: trio.Event = attrs.field(factory=trio.Event)
    finished: trio.Event = attrs.field(factory=trio.Event)
    left: int = 0

    def expect(self, messages: int) -> None:
        self.gate, self.finished, self.left = trio.Event(), trio.Event(), messages

    async def count(self) -> None:
        await self.gate.wait()
        self.left -= 1
        if self.left == 0:
            self.finished.set()


@attrs.frozen
class Cost:
    """CPU seconds of one message on each side."""

    sending: float
    handling: float

    @property
    def both(self) -> float:
        return self.sending + self.handling


def plan_of(driver: dict[str, Any], desk: Desk, *, as_event: bool, interceptor: str = "") -> Plan:
    """Return a service that sends and handles; what it has taken waits until the gate opens."""

    class Listener:
        @listens(Order)
        async def on(self, order: Order) -> None:
            await desk.count()

    class Handler:
        @handles("Order")
        async def on(self, order: Order) -> None:
            await desk.count()

    around = [f"{__name__}:{interceptor}"] if interceptor else []
    common = {**WIRED, "interceptors": around}
    consumer = {"queue": f"orders-{new_id()}", "bindings": ["Order"], "dead_letters": "", "durable": False}
    tables = {
        "kernel": {"name": "bench"},
        "drivers": {
            "queue": driver,
            "out": {"plugin": "event_sender" if as_event else "publisher", **common},
        },
        "dispatchers": {
            "in": {
                **({"plugin": "event_listener"} if as_event else {"plugin": "consumer", **consumer}),
                **common,
                "concurrency": CONCURRENCY,
            }
        },
        "workers": {"count": {"use": "count", "dispatcher": "in"}},
    }
    own = Registry.of({"workers": {"count": Listener if as_event else Handler}})
    return resolve(from_mapping(tables), Registry((*discover().plugins, *own.plugins)))


@attrs.frozen
class Service:
    """One that runs, of which a share of messages after the other is asked."""

    kernel: Kernel
    desk: Desk
    as_event: bool

    async def cost(self, messages: int) -> Cost:
        """Send and handle so many messages."""
        self.desk.expect(messages)
        began = time.process_time()
        await send_all(self.kernel.resource("driver/out"), messages, as_event=self.as_event)
        sent = time.process_time()
        self.desk.gate.set()
        await self.desk.finished.wait()
        return Cost((sent - began) / messages, (time.process_time() - sent) / messages)


@asynccontextmanager
async def serving(transport: str, *, as_event: bool, interceptor: str = "") -> AsyncGenerator[Service]:
    """Run a service; it does nothing unless it is asked."""
    desk = Desk()
    plan = plan_of(TRANSPORTS[transport](), desk, as_event=as_event, interceptor=interceptor)
    async with trio.open_nursery() as nursery:

        async def host(task_status: trio.TaskStatus[Kernel]) -> None:
            await serve(plan, log=fake_context().log, hub=EventHub(), task_status=task_status)

        kernel: Kernel = await nursery.start(host)
        await kernel.wait_ready()
        yield Service(kernel, desk, as_event)
        kernel.request_stop()


async def send_all(out: Any, messages: int, *, as_event: bool) -> None:  # noqa: ANN401  of either driver
    send: Callable[[], Awaitable[object]] = (
        (lambda: out.send(ORDER)) if as_event else (lambda: out.publish("Order", ORDER))
    )

    async def some() -> None:  # noqa: ASYNC910  it sends
        for _ in range(messages // SENDERS):
            await send()

    async with trio.open_nursery() as nursery:
        for _ in range(SENDERS):
            nursery.start_soon(some)


async def compare_events(transport: str, messages: int, rounds: int) -> bool:
    """Hold events against plain messages; return whether they are within the bound."""
    costs: dict[bool, list[float]] = {False: [], True: []}
    async with serving(transport, as_event=False) as plain_, serving(transport, as_event=True) as event_:
        for _ in range(rounds):
            for service in (plain_, event_):
                costs[service.as_event].append((await service.cost(messages)).both)
    plain, events = (statistics.median(costs[as_event]) for as_event in (False, True))
    ratio = statistics.median(one / other for one, other in zip(costs[True], costs[False], strict=True))
    print(f"{transport}: a message {plain * 1e6:.1f} us, an event {events * 1e6:.1f} us of CPU: {ratio:.2f} times")
    return ratio <= BOUND


async def compare_interceptors(rounds: int) -> bool:
    """Tell what an interceptor costs on each side; return whether that of `Plain` is within the bound.

    What it costs is a twentieth of the message, so the shares are small and many, each service has its turn with each,
    and the shortest counts: one that nothing else on the machine fell into.
    """
    costs: dict[str, list[Cost]] = {"": [], "Plain": [], "Waits": []}
    async with AsyncExitStack() as stack:
        services = {
            name: await stack.enter_async_context(serving("memory", as_event=False, interceptor=name)) for name in costs
        }
        for _ in range(rounds):
            for name, found in costs.items():
                found.append(await services[name].cost(SHARE))
    is_met = True
    for side in ("sending", "handling"):
        none = min(getattr(one, side) for one in costs[""])
        for name in ("Plain", "Waits"):
            more = (min(getattr(one, side) for one in costs[name]) - none) * 1e6
            print(
                f"{side}: none {none * 1e6:.1f} us; one that {'waits' if name == 'Waits' else 'does not wait'} +{more:.1f} us"
            )
            is_met &= name == "Waits" or more <= MICROSECONDS
    return is_met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", choices=sorted(TRANSPORTS), default="amqp")
    parser.add_argument("--messages", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shares", type=int, default=150, help="of messages, for each interceptor")
    given = parser.parse_args()
    is_met = trio.run(compare_events, given.transport, given.messages, given.rounds)
    gc.collect()
    is_met &= trio.run(compare_interceptors, given.shares)
    print("within the bounds" if is_met else "NOT within the bounds")


if __name__ == "__main__":
    main()
