"""What it costs that services run inside one: interleaved rounds in one run, medians and their ratio.

    uv run python benchmarks/inline.py

Messages wait in a queue of the broker in memory and are handled, as in `pipeline.py`; calls are asked for by 100 tasks
and answered by another worker, over the same broker. Both once with all workers in one service, and once with them in
services inside of one, which lends them its drivers. Seconds are CPU seconds of the process.

A call is two messages, each of which is sent and taken, and somebody who waits: what it costs beside a message that is
only taken is printed too, and has no bound.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import attrs
import trio
from pipeline import through_kernel

from kernel import Arguments, answers
from kernel._core.spec import Plan
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry, discover
from kernel._plan.plan import resolve
from kernel._supervise.run import serve
from kernel.abc import Caller
from kernel.testing import fake_context

CALLS: Final = 10_000
ROUNDS: Final = 9
TASKS: Final = 100
BOUND: Final = 0.8
ORDER: Final = {"sku": "tea", "quantity": 2, "note": "x" * 150}
WIRED: Final = {"driver": "bus", "protocol": "json"}
OUTER: Final[Mapping[str, object]] = {
    "kernel": {"name": "bench"},
    "drivers": {"bus": {"plugin": "memory"}, "rpc": {"plugin": "rpc_client", "exchange": "calls", **WIRED}},
}
CALLED: Final = {"plugin": "consumer", "queue": "calls", "bindings": ["order.*"], "exchange": "calls"}
DISPATCHERS: Final = {"calls": {**CALLED, "concurrency": TASKS, **WIRED}}
DESK: Final[Mapping[str, object]] = {"desk": {"use": "desk", "dispatcher": "calls"}}
CUSTOMER: Final[Mapping[str, object]] = {"customer": {"use": "customer", "main": True}}


@attrs.define
class Took:
    """CPU seconds of a call."""

    seconds: float = 0.0


class Desk:
    """Answers."""

    @answers("order.take")
    async def take(self, order: dict[str, object]) -> int:
        await trio.lowlevel.checkpoint()
        return len(order)


def customer(took: Took) -> type[object]:
    """Return a worker that makes all calls and ends."""

    class Customer:
        def __init__(self, rpc: Caller) -> None:
            self.rpc = rpc

        async def run(self) -> None:
            await self.ask(100)  # the first calls make queues
            began = time.process_time()
            async with trio.open_nursery() as nursery:
                for _ in range(TASKS):
                    nursery.start_soon(self.ask, CALLS // TASKS)
            took.seconds = (time.process_time() - began) / CALLS

        async def ask(self, times: int) -> None:  # noqa: ASYNC910  it is asked to call often
            for _ in range(times):
                assert await self.rpc.call("order.take", Arguments(kwargs={"order": ORDER})) == len(ORDER)

    return Customer


def service(took: Took, *, inside: bool) -> Plan:
    """Return a service that makes all calls and ends."""
    workers = Registry.of({"workers": {"desk": Desk, "customer": customer(took)}})
    registry = Registry((*discover().plugins, *workers.plugins))
    if not inside:
        return resolve(from_mapping({**OUTER, "dispatchers": DISPATCHERS, "workers": {**DESK, **CUSTOMER}}), registry)
    said = {
        "desk": {"manifest": "desk.toml", "drivers": {"bus": "bus"}},
        "customer": {"manifest": "customer.toml", "drivers": {"rpc": "rpc"}, "main": True},
    }
    manifests = {
        "desk": from_mapping({"kernel": {"name": "desk"}, "dispatchers": DISPATCHERS, "workers": DESK}),
        "customer": from_mapping({"kernel": {"name": "customer"}, "workers": CUSTOMER}),
    }
    outer = attrs.evolve(from_mapping(OUTER), tables={**OUTER, "services": said}, services=manifests)
    return resolve(outer, registry)


def calls(*, inside: bool) -> Callable[[], Awaitable[float]]:
    """Return a round that returns CPU seconds per call."""

    async def run() -> float:
        took = Took()
        result = await serve(service(took, inside=inside), log=fake_context().log)
        assert result.ran_to_end, result
        return took.seconds

    return run


def main() -> int:
    """Print the figures; return 1 if a bound is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds: Mapping[str, Callable[[], Awaitable[float]]] = {
        "message": through_kernel(heard=False),
        "message, inside": through_kernel(heard=False, inside=True),
        "call": calls(inside=False),
        "call, inside": calls(inside=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in rounds}
    for number in range(parser.parse_args().rounds + 1):
        for name, run in rounds.items():
            gc.collect()
            measured = trio.run(run)
            if number:  # the first round warms up
                seconds[name].append(measured)
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"{name:16} {1 / middle:8.0f}/s {middle * 1e6:6.1f} us CPU each")
    print(f"a call inside, in messages: {1 / rate(seconds, 'call, inside', 'message'):.2f}")
    met = True
    for inside, outside in (("message, inside", "message"), ("call, inside", "call")):
        reached = rate(seconds, inside, outside)
        met &= reached >= BOUND
        print(f"{inside}: {reached:.2f} of the rate of a {outside} (bound: at least {BOUND})")
    print("met" if met else "NOT met")
    return 0 if met else 1


def rate(seconds: Mapping[str, list[float]], name: str, base: str) -> float:
    """Return how often something is done in the time of something else."""
    return statistics.median(other / mine for mine, other in zip(seconds[name], seconds[base], strict=True))


if __name__ == "__main__":
    raise SystemExit(main())
