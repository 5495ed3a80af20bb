"""A source that a test hands deliveries to, and a service around it."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from typing_extensions import override

from kernel import Envelope, Message, Outcome
from kernel._manifest.registry import Registry
from kernel.abc import Context, Delivery, Dispatcher, Intake, NoConfig, Protocol
from kernel.errors import DecodeError, EncodeError, SettledError
from kernel.testing import open_kernel


@attrs.define(eq=False)
class Parcel(Delivery):
    """A delivery that remembers how it was settled."""

    _envelope: Envelope
    _attempt: int = 1
    outcomes: list[Outcome] = attrs.field(factory=list)
    settled: trio.Event = attrs.field(factory=trio.Event)
    stuck: bool = False

    @property
    @override
    def envelope(self) -> Envelope:
        return self._envelope

    @property
    @override
    def attempt(self) -> int:
        return self._attempt

    @property
    @override
    def redelivered(self) -> bool:
        return False

    @override
    async def settle(self, outcome: Outcome) -> None:
        await trio.lowlevel.checkpoint()
        if self.stuck:
            await trio.sleep_forever()
        if self.outcomes:
            raise SettledError("twice")
        self.outcomes.append(outcome)
        self.settled.set()


@attrs.define(eq=False)
class Json(Protocol):
    """A protocol just good enough for these tests."""

    config: NoConfig
    context: Context

    @override
    def decode(self, envelope: Envelope) -> Message:
        try:
            return Message(subject=envelope.subject, payload=json.loads(envelope.body))
        except ValueError as error:
            raise DecodeError(str(error)) from error

    @override
    def encode(self, message: Message) -> Envelope:
        try:
            return Envelope(subject=message.subject, body=json.dumps(message.payload).encode())
        except TypeError as error:
            raise EncodeError(str(error)) from error

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        return Envelope(subject=request.reply_to, body=f"{type(error).__name__}: {error}".encode())


class Feed:
    """A source that a test hands deliveries to."""

    before: Callable[[Delivery], object] = staticmethod(lambda delivery: None)
    """Called in the source's task with each delivery before it is submitted."""

    def __init__(self) -> None:
        self.send, self.receive = trio.open_memory_channel[Delivery](math.inf)
        feed = self

        @attrs.define(eq=False)
        class FeedDispatcher(Dispatcher):
            speaks = True
            config: NoConfig
            context: Context

            @override
            @asynccontextmanager
            async def open(self) -> AsyncGenerator[None]:
                await trio.lowlevel.checkpoint()
                yield

            @override
            async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
                task_status.started()
                async for delivery in feed.receive:
                    feed.before(delivery)
                    await intake.submit(delivery)

        self.dispatcher = FeedDispatcher

    async def settle(self, parcel: Parcel) -> Outcome:
        """Deliver a parcel and return its one outcome."""
        self.send.send_nowait(parcel)
        await parcel.settled.wait()
        return parcel.outcomes[0]


def parcel(body: object = None, *, subject: str = "a.b", attempt: int = 1, **fields: Any) -> Parcel:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Parcel(Envelope(subject=subject, body=raw, **fields), attempt)


@asynccontextmanager
async def running(
    workers: Mapping[str, Any],
    tables: Mapping[str, Mapping[str, object]] | None = None,
    *,
    translators: Mapping[str, list[str]] | None = None,
    **dispatcher: object,
) -> AsyncGenerator[tuple[Feed, Any]]:
    feed = Feed()
    registry = Registry.of({"dispatchers": {"feed": feed.dispatcher}, "protocols": {"plain": Json}, "workers": workers})
    given = tables or {}
    manifest: dict[str, dict[str, Any]] = {
        "kernel": {"name": "test"},
        "dispatchers": {"feed": {"protocol": "plain", **dispatcher}},
        "workers": {name: {"use": name, "dispatcher": "feed", **given.get(name, {})} for name in workers},
    }
    if translators is not None:
        manifest["protocols"] = {"plain": translators}
    for name, table in given.items():
        if table.get("dispatcher") == "":
            del manifest["workers"][name]["dispatcher"]
    async with open_kernel(manifest, registry=registry, expected=Exception) as service:
        yield feed, service
