"""The conformance check of workers: what the plan and the kernel will ask of one, without either."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, cast, final

import attrs
import trio
from typing_extensions import override

from .._core.broker import Batch
from .._core.envelope import Arguments, Envelope
from .._plan.injection import Offer
from .._plan.signature import Role, inspect_worker
from ..abc import Delivery
from ._cancel import cancel_and_time
from ._leaks import no_task_leaks
from ._promise import expect, prove

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from .._core.envelope import Outcome
    from .._core.spec import HandlerSpec
    from .._plan.signature import Shape


async def check_worker(
    use: Callable[..., object],
    *,
    samples: Mapping[str, object] | None = None,
    resources: Callable[[], Mapping[str, object]] = dict,
    config: Mapping[str, object] | None = None,
    stop_timeout: float = 2.0,
) -> None:
    """Test that a worker fits what it is to be given, does its work, and leaves nothing behind.

    Works on the real clock and on an autojump clock.

    Args:
        use: The class or async function.
        samples: Name of a handler -> a payload as a protocol would decode it, which may be `Arguments`, or a list of
            them for a handler that is given batches; the name of a function's is empty.
            None if the worker only runs.
        resources: Returns new fakes of the drivers that the worker uses, by their names.
        config: The worker's `config` table.
        stop_timeout: Seconds that leaving may take.

    Raises:
        AssertionError: naming the promise that is broken, and what happened instead.

    Cancellation: Is a checkpoint.
    """
    bench = _Bench(use, samples, resources, config, stop_timeout)
    await prove("a worker asks for what it can be given", bench.inspect)
    await prove("there is a sample for each handler", bench.match_samples)
    await prove("each handler takes its payload", bench.handle)
    await prove("two instances do not disturb each other", bench.live_twice)
    await prove("a worker that is cancelled leaves nothing behind", bench.cancel_everywhere)


@final
@attrs.frozen(repr=False)
class _Bench:
    use: Callable[..., object]
    samples: Mapping[str, object] | None
    resources: Callable[[], Mapping[str, object]]
    config: Mapping[str, object] | None
    stop_timeout: float

    async def inspect(self) -> None:
        await trio.lowlevel.checkpoint()
        self.shape()

    async def match_samples(self) -> None:
        await trio.lowlevel.checkpoint()
        handlers = {handler.method for handler in self.shape().handlers}
        for name in sorted(handlers ^ set(self.samples or ())):
            expect(name in handlers, f"there is a sample for {name!r}, which handles nothing")
            raise AssertionError(f"there is none for {name!r}")

    async def handle(self) -> None:
        async with no_task_leaks():
            await self.live()

    async def live_twice(self) -> None:
        async with no_task_leaks(), trio.open_nursery() as nursery:
            nursery.start_soon(self.live)
            nursery.start_soon(self.live)

    async def cancel_everywhere(self) -> None:
        at = 1
        while True:
            async with no_task_leaks():
                took = await cancel_and_time(self.live, at)
            if took is None:
                return
            expect(took <= self.stop_timeout, f"it took {took:.3g} s when cancelled at checkpoint {at}")
            at += 1

    def shape(self) -> Shape:
        """Return what the worker is, as the plan sees it."""
        problems: list[str] = []
        offer = Offer(drivers=dict.fromkeys(self.resources(), object), config=self.config)
        role = Role.LOOP if self.samples is None else Role.HANDLER
        shape = inspect_worker(self.use, role=role, offer=offer, report=lambda _, text: problems.append(text))
        if problems or shape is None:
            raise AssertionError("; ".join(problems))
        return shape

    async def live(self) -> None:
        """Be one instance from its making to its end: each handler called once, the loop cancelled after them."""
        shape = self.shape()
        async with self._instance(shape) as instance, trio.open_nursery() as nursery:
            if shape.runs:
                nursery.start_soon(cast("Callable[[], Awaitable[None]]", getattr(instance, "run", instance)))
            for handler in shape.handlers:
                await self._call(instance, handler)
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def _instance(self, shape: Shape) -> AsyncGenerator[object]:
        injection, resources = shape.injection, self.resources()
        arguments = {name: resources[driver.removeprefix("driver/")] for name, driver in injection.drivers.items()}
        if injection.config_parameter is not None:
            arguments[injection.config_parameter] = injection.config
        if shape.is_function:
            yield _Function(shape.use, arguments)
            return
        instance = shape.use(**arguments)
        entered = cast("AbstractAsyncContextManager[object]", instance) if shape.is_context else nullcontext()
        async with entered:
            yield instance

    async def _call(self, instance: object, handler: HandlerSpec) -> None:
        payload = handler.convert((self.samples or {})[handler.method])
        extra: dict[str, object] = {}
        if handler.envelope_parameter is not None:
            extra[handler.envelope_parameter] = Envelope(subject=handler.patterns[0])
        if handler.delivery_parameter is not None:
            extra[handler.delivery_parameter] = _FirstDelivery(Envelope(subject=handler.patterns[0]))
        if handler.batch_parameter is not None:
            count = len(cast("list[object]", payload)) if isinstance(payload, list) else 1
            deliveries = [_FirstDelivery(Envelope(subject=handler.patterns[0])) for _ in range(count)]
            extra[handler.batch_parameter] = Batch(deliveries, lambda _index, _result: None)
        method = getattr(instance, handler.method) if handler.method else instance
        call = cast("Callable[..., Awaitable[object]]", method)
        if isinstance(payload, Arguments) and handler.parameters is not None:
            await call(*payload.args, **payload.kwargs, **extra)
        else:
            await call(payload, **extra)


@final
@attrs.frozen(eq=False)
class _FirstDelivery(Delivery):
    """What a handler sees that asks for its delivery."""

    _envelope: Envelope

    @property
    @override
    def envelope(self) -> Envelope:
        return self._envelope

    @property
    @override
    def attempt(self) -> int:
        return 1

    @property
    @override
    def redelivered(self) -> bool:
        return False

    @override
    async def settle(self, outcome: Outcome) -> None:
        raise AssertionError("a handler settles nothing: the kernel does, by what the handler returns or raises")


@final
@attrs.frozen(repr=False)
class _Function:
    """A function with its resources, as the instance of a worker."""

    use: Callable[..., object]
    arguments: Mapping[str, object]

    async def __call__(self, *payload: object, **extra: object) -> object:
        return await cast("Callable[..., Awaitable[object]]", self.use)(*payload, **self.arguments, **extra)
