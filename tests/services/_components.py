"""The components of a drawn service: a driver, sources that send what was drawn, and workers that do what was drawn."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn, final

import attrs
import trio
from typing_extensions import override

from kernel import Envelope, Failure, Message, handles
from kernel.abc import Context, Dispatcher, Driver, Intake, NoConfig, Protocol
from kernel.errors import DecodeError

from ._draw import Hand, Source
from ._world import OUTCOMES, SENDER, CrashError, Item, Life, Parcel, SourceBrokenError, World, is_cancelled


def plugins(world: World) -> Mapping[str, Mapping[str, object]]:
    """Return what the manifest names."""
    return {
        "drivers": {"base": driver(world)},
        "protocols": {"plain": Plain},
        "dispatchers": {"source": dispatcher(world)},
        "workers": {hand.name: worker(world, hand) for hand in world.draw.hands},
    }


@final
@attrs.define(eq=False)
class Plain(Protocol):
    """JSON, just good enough."""

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
        return Envelope(subject=message.subject, body=repr(message.payload).encode())

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        return Envelope(subject=request.reply_to, body=type(error).__name__.encode())


def driver(world: World) -> type[Driver[object]]:
    """Return the driver that everything uses."""

    @final
    @attrs.define(eq=False)
    class Base(Driver[object]):
        config: NoConfig
        context: Context

        @override
        @asynccontextmanager
        async def open(self) -> AsyncGenerator[object]:
            await trio.lowlevel.checkpoint()
            yield self
            left = [name for name, count in world.open.items() if count and name not in world.left_behind]
            world.expect(not left, f"the driver closes before {left}")

    return Base


def dispatcher(world: World) -> type[Dispatcher]:
    """Return the dispatcher whose source sends what was drawn."""

    @final
    @attrs.define(eq=False)
    class Feed(Dispatcher):
        needs = object
        speaks = True
        config: NoConfig
        context: Context

        @override
        @asynccontextmanager
        async def open(self) -> AsyncGenerator[None]:
            await trio.lowlevel.checkpoint()
            world.open[f"dispatcher/{self.context.name}"] += 1
            try:
                yield
            finally:
                world.open[f"dispatcher/{self.context.name}"] -= 1

        @override
        async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
            [source] = [source for source in world.draw.sources if source.name == self.context.name]
            world.intakes.append((source, intake))
            task_status.started()
            await _Feeding(world, source, intake).run()

    return Feed


@final
@attrs.define(eq=False)
class _Feeding:
    """One life of a source."""

    world: World
    source: Source
    intake: Intake

    async def run(self) -> None:
        """Send until cancelled, or until the source breaks."""
        world, name = self.world, self.source.name
        world.parted.pop(name, None)
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(self.source.feeders):
                    nursery.start_soon(self._feed, nursery)
                if world.breaks[name]:
                    with trio.move_on_after(world.breaks[name].pop(0)) as until:
                        await self._wait_cancelled(until.deadline)
                    self._break()
                await self._wait_cancelled()
        except BaseException as error:
            if not is_cancelled(error):
                raise
            await self._leave()
            raise
        finally:
            world.parted[name] = trio.current_time()

    def _break(self) -> NoReturn:
        self.world.cuts.setdefault(self.source.name, []).append(trio.current_time())
        raise SourceBrokenError

    async def _wait_cancelled(self, breaks_at: float = math.inf) -> None:
        world, name = self.world, self.source.name
        try:
            await trio.sleep_forever()
        finally:
            now = trio.current_time()
            if now != world.stop_at and now < breaks_at:  # nobody is left who would handle what it brings
                world.cuts.setdefault(name, []).append(now)
                world.expect(world.stop_at == math.inf and world.is_left_alone(name), f"{name} stops accepting")

    async def _leave(self) -> None:
        """Part as the draw says, once cancelled."""
        if self.source.parting == "slow":
            with trio.CancelScope(shield=True):
                await trio.sleep(0.2)
        if self.source.parting.startswith("raises"):
            raise SourceBrokenError

    async def _feed(self, nursery: trio.Nursery) -> None:
        pending = self.world.pending[self.source.name]
        while pending:
            due = self.world.began + pending[0].task.at
            if due > trio.current_time():
                await trio.sleep_until(due)
                continue
            parcel = pending.popleft()
            parcel.taken_at = trio.current_time()
            SENDER.set(parcel.task.number)
            if parcel.task.way == "handle":
                nursery.start_soon(self._handle, parcel)
            else:
                await self.intake.submit(parcel, revocable_as=parcel.task.name)

    async def _handle(self, parcel: Parcel) -> None:
        parcel.ended.append(await self.intake.handle(parcel))


def worker(world: World, hand: Hand) -> Callable[..., Any]:
    """Return a class or a function that does what was drawn."""
    handler = _handler(world, hand)
    if not hand.is_class:
        life = Life(hand)

        async def function(payload: Any) -> object:
            return await handler(life, payload)

        function.__annotations__["payload"] = _payload(hand)
        return function if hand.buries else handles(hand.pattern)(function)

    class Worker:
        def __init__(self, base: Any) -> None:
            self.life = Life(hand)

        async def __aenter__(self) -> object:
            await trio.lowlevel.checkpoint()
            world.open[f"worker/{hand.name}"] += 1
            return self

        async def __aexit__(self, *_: object) -> None:
            world.expect(not self.life.running, f"{hand.name} closes with {self.life.running} calls")
            try:
                await _close(world, hand)
            finally:
                world.open[f"worker/{hand.name}"] -= 1

    async def on(self: Any, payload: Any) -> object:
        return await handler(self.life, payload)

    on.__annotations__["payload"] = _payload(hand)
    Worker.on = handles(hand.pattern)(on)  # type: ignore[attr-defined]
    if hand.lives:
        Worker.run = _run(world, hand)  # type: ignore[attr-defined]
    return Worker


def _payload(hand: Hand) -> object:
    if hand.buries:
        return Failure
    return list[Item] if hand.batches else Item


def _handler(world: World, hand: Hand) -> Callable[[Life, Any], Any]:
    async def handle(life: Life, payload: Any) -> object:
        result = await world.call(life, list(_numbers(payload)))
        if hand.batches and result is not None and not isinstance(result, (*OUTCOMES, type)):
            return [result] * len(payload)
        return result

    return handle


def _numbers(payload: Any) -> Iterable[int]:
    match payload:
        case Failure():
            yield int(payload.envelope.id)
        case Item():
            yield payload.number
        case _:
            yield from (item.number for item in payload)


def _run(world: World, hand: Hand) -> Callable[[Any], Any]:
    async def run(self: Any) -> None:
        if world.lives[hand.name]:
            await trio.sleep(world.lives[hand.name].pop(0))
            self.life.gone_at = trio.current_time()
            world.crashed.add(hand.name)
            raise CrashError
        await trio.sleep_forever()

    return run


async def _close(world: World, hand: Hand) -> None:
    if hand.stubborn:
        try:
            with trio.CancelScope(shield=True):
                await trio.sleep(min(hand.closing, 5.0))
        finally:
            world.held_until = max(world.held_until, trio.current_time())
    else:
        await trio.sleep(hand.closing)
