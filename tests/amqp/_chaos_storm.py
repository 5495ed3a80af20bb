"""What may be wrong with the broker: troubles that are made one after the other, and taken back."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import attrs
import trio
from kernel_amqp import AmqpBroker

from kernel.errors import KernelError

from ._chaos_causes import Place
from ._node import Node

USER: Final = "worker"
"""Who the service is at the broker; its password is the same."""
BREAK: Final = "all connections are closed"
Act = Callable[[Node, Place], None]
Trouble = tuple[Act, Act]
"""What is done, and what takes it back."""


def control(*arguments: str) -> Act:
    return lambda node, _: _run(node, *arguments)


def _run(node: Node, *arguments: str) -> None:
    node.control(*arguments)


def nothing(node: Node, place: Place) -> None:
    """Take nothing back."""


def refusing(name: str, *queues: str) -> Trouble:
    """Have queues refuse everything, and then nothing.

    The bound is made wide and not taken away: a quorum queue of 3.10 whose bound is gone does not tell those who sent to
    it before, such as the places for delays, that it takes messages again, and they offer none any more.
    """

    def bound(length: int) -> Act:
        def act(node: Node, place: Place) -> None:
            pattern = "|".join(f"{place.queue}{queue}".replace(".", r"\.") for queue in queues)
            what = json.dumps({"max-length": length, "overflow": "reject-publish"})
            node.control("set_policy", name, f"^({pattern})$", what, "--apply-to", "queues")

        return act

    return bound(0), bound(10_000_000)


def forbidding(*, configure: str = ".*", write: str = ".*") -> Trouble:
    """Have the service's user do less."""
    return control("set_permissions", USER, configure, write, ".*"), control("set_permissions", USER, ".*", ".*", ".*")


def deleting(name: str) -> Trouble:
    """Delete a queue in which nothing is; it is made again."""

    def begin(node: Node, place: Place) -> None:
        with suppress(AssertionError):  # there is something in it
            node.control("delete_queue", "--if-empty", f"{place.queue}{name}")

    return begin, nothing


TROUBLES: Final[Mapping[str, Trouble]] = {
    "the queue for dead letters is full": refusing("chaos-dead", ".dead"),
    "targets are full": refusing("chaos-targets", ".full", ".foreign"),
    "the queue itself is full": refusing("chaos-queue", ""),
    "the queue for dead letters is deleted": deleting(".dead"),
    "a target is deleted": deleting(".gone"),
    BREAK: (control("close_all_connections", "by the operator"), nothing),
    "no memory": (
        control("set_vm_memory_high_watermark", "0.0000001"),
        control("set_vm_memory_high_watermark", "0.6"),
    ),
    "places for delays must not be made": forbidding(configure=r"^(?!kernel\.delay).*"),
    "nothing may go through the default exchange": forbidding(write=r"^(?!amq\.default).*"),
}


@attrs.define(eq=False)
class Storm:
    """One trouble after the other, in an order of chance; all is well when it ends."""

    node: Node
    place: Place
    broker: AmqpBroker
    chance: random.Random
    seen: Counter[str] = attrs.field(factory=Counter[str], init=False)

    def prepare(self) -> None:
        """Make the user of the service."""
        self.node.control("add_user", USER, USER)
        self.node.control("set_permissions", USER, ".*", ".*", ".*")

    async def run(self, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            while True:
                await self._one(self.chance.choice(list(TROUBLES)))
                await trio.sleep(self.chance.uniform(0.1, 0.5))

    async def _one(self, name: str) -> None:
        begin, end = TROUBLES[name]
        self.seen[name] += 1
        try:
            await trio.to_thread.run_sync(begin, self.node, self.place)
            await trio.sleep(self.chance.uniform(0.1, 1.5))
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(end, self.node, self.place)
                await self.make_again()

    async def make_again(self) -> None:
        """Make exist what was deleted."""
        while True:
            try:
                await self.broker.declare(self.place.topology())
            except KernelError:
                await trio.sleep(0.1)
            else:
                return
