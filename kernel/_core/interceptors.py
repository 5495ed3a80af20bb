"""What stands around each send and each call of a handler, what it is shown, and how several become one.

Put together once, when a component is built: where there are no interceptors, nothing of this is called.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast, final

import attrs

from ..errors import SendError

if TYPE_CHECKING:
    from .broker import Delivery
    from .envelope import Envelope

ResultT = TypeVar("ResultT")


@final
@attrs.define(eq=False, repr=False)
class Outgoing:
    """A message that is about to be sent, as the `sending` of an interceptor is given it."""

    _subject: str
    _payload: object
    headers: dict[str, object]
    """What is sent along, and may be added to or taken from until it is sent. What JSON can say."""
    _is_call: bool = attrs.field(default=False, alias="is_call")
    answer: Envelope | None = attrs.field(default=None, init=False)
    """What came back, once a call is over; None if nothing did, or if the transport shows no envelopes."""
    result: object = attrs.field(default=None, init=False)
    """What the sender is about to get: the id of what was published, or what the answer carries."""

    def __repr__(self) -> str:
        return f"<Outgoing {self.subject!r}>"

    @property
    def subject(self) -> str:
        """What it is about, in words joined by dots."""
        return self._subject

    @property
    def payload(self) -> object:
        """What is sent, before it is encoded. A translator of the protocol can put another in its place."""
        return self._payload

    @property
    def is_call(self) -> bool:
        """Whether an answer is awaited."""
        return self._is_call


@final
@attrs.define(eq=False, repr=False)
class Incoming:
    """A call of a handler that is about to be made, as the `handling` of an interceptor is given it."""

    worker: str
    """`worker/name`."""
    method: str
    """Name of the method; empty if the worker is a function."""
    payload: object
    """What the handler is given; of a batch, a list."""
    deliveries: Sequence[Delivery]
    """What it is called with: one, or those of a batch."""
    result: object = attrs.field(default=None, init=False)
    """What the handler returned, once it has: an outcome such as `Retry` among others."""

    def __repr__(self) -> str:
        return f"<Incoming for {self.worker}>"

    @property
    def delivery(self) -> Delivery:
        """The delivery; of a batch, the first."""
        return self.deliveries[0]

    @property
    def headers(self) -> Mapping[str, object]:
        """What was sent along with it; with the first of a batch."""
        return self.deliveries[0].envelope.headers


class Intercept(Protocol):
    """How a driver has its interceptors stand around a send."""

    def __call__(
        self, outgoing: Outgoing, send: Callable[..., Awaitable[ResultT]], *args: object
    ) -> Awaitable[ResultT]:
        """Send within the interceptors; return what `send` does.

        Args:
            outgoing: What they are shown. `send` encodes its `headers` as they are by then.
            send: Is called once, unless an interceptor refuses.
            args: What it is called with.

        Raises:
            Exception: what an interceptor raises, or `send`.
            SendError: if an interceptor keeps what `send` raised to itself.
        """
        ...


WhatT = TypeVar("WhatT", Outgoing, Incoming)
ShownT_contra = TypeVar("ShownT_contra", Outgoing, Incoming, contravariant=True)


class Around(Protocol[ShownT_contra]):
    """What stands around something, as one call."""

    def __call__(self, what: ShownT_contra, call: Callable[..., Awaitable[object]], *args: object) -> Awaitable[object]:
        """Call something with arguments, and await it, within what stands around it; return what that returned."""
        ...


def intercepting(component: str, methods: Sequence[Callable[[Outgoing], object]]) -> Intercept | None:
    """Return what a driver sends within; None if there is nothing."""

    def kept(outgoing: Outgoing) -> object:
        raise SendError(
            f'an interceptor of {component} kept to itself what was raised when "{outgoing.subject}" was sent: '
            "nobody knows what became of it; have it raise"
        )

    return cast("Intercept | None", _together(methods, kept))


def handling(methods: Sequence[Callable[[Incoming], object]]) -> Around[Incoming] | None:
    """Return what handlers are called within; None if there is nothing.

    A handler whose error an interceptor keeps to itself has returned None.
    """
    return _together(methods, lambda _: None)


def _together(methods: Sequence[Callable[[WhatT], object]], kept: Callable[[WhatT], object]) -> Around[WhatT] | None:
    """Return interceptors as one, the first outermost; None if there are none.

    Args:
        methods: Each returns an async context manager, or is a function with one `yield`, async or not.
        kept: Says what is returned when an interceptor keeps to itself what was raised inside of it.
    """
    layers = [_layer(method, kept) for method in methods]
    return functools.reduce(_within, layers) if layers else None


def _within(outer: Around[WhatT], inner: Around[WhatT]) -> Around[WhatT]:
    return lambda what, call, *args: outer(what, inner, what, call, *args)


def _layer(method: Callable[[WhatT], object], kept: Callable[[WhatT], object]) -> Around[WhatT]:
    function, name = function_of(method), getattr(method, "__qualname__", "an interceptor")
    if function is None:
        return _managed(method, kept, name)
    if inspect.isasyncgenfunction(function):
        return _waiting(function, kept, name)
    return _plain(cast("Callable[[WhatT], Generator[object]]", function), kept, name)


async def _let_go(kept: Callable[[WhatT], object], what: WhatT) -> object:
    """Return what follows when an interceptor has kept to itself what was raised inside of it.

    A cancellation is not its to keep: whoever cancels, for a timeout or a stop, goes by what comes out, and would take
    for done what was broken off. One of the interceptor's own scope is over by now.
    """
    import trio  # noqa: PLC0415  `kernel check` imports this module, and runs nothing

    await trio.lowlevel.checkpoint_if_cancelled()
    return kept(what)


def _managed(method: Callable[[WhatT], object], kept: Callable[[WhatT], object], name: str) -> Around[WhatT]:
    """Return what enters what a method returns."""

    async def layer(what: WhatT, call: Callable[..., Awaitable[object]], *args: object) -> object:
        manager = method(what)
        if not isinstance(manager, AbstractAsyncContextManager):
            raise _no_manager(name, manager)
        async with manager:
            result = what.result = await call(*args)
            return result
        return await _let_go(kept, what)

    return layer


# --- functions with a `yield` -----------------------------------------------------------------------------------------
#
# They are stepped through here, as the standard library does, for a third of its cost. What is raised inside is rare, and
# the library knows all that can be wrong with a generator then.

_END: Final = object()
"""What a step of a generator returns that has ended: as an exception, that takes as long as all else."""


def _waiting(
    function: Callable[[WhatT], AsyncGenerator[object]], kept: Callable[[WhatT], object], name: str
) -> Around[WhatT]:
    """Return what steps through an async generator."""

    async def layer(what: WhatT, call: Callable[..., Awaitable[object]], *args: object) -> object:
        generator = function(what)
        try:
            await generator.__anext__()
        except StopAsyncIteration:
            raise _without_yield(name) from None
        try:
            result = what.result = await call(*args)
        except BaseException as error:
            manager = asynccontextmanager(lambda: generator)()
            if await manager.__aexit__(type(error), error, error.__traceback__):  # noqa: ASYNC102  the user's code
                return await _let_go(kept, what)  # noqa: ASYNC102  it is there to be cancelled
            raise
        try:
            await generator.__anext__()
        except StopAsyncIteration:
            return result  # noqa: ASYNC910  as the function
        await generator.aclose()
        raise _yields_again(name)

    return layer


def _plain(function: Callable[[WhatT], Generator[object]], kept: Callable[[WhatT], object], name: str) -> Around[WhatT]:
    """Return what steps through a generator that waits for nothing."""

    async def layer(what: WhatT, call: Callable[..., Awaitable[object]], *args: object) -> object:
        generator = function(what)
        if next(generator, _END) is _END:
            raise _without_yield(name)
        try:
            result = what.result = await call(*args)
        except BaseException as error:
            manager = contextmanager(lambda: generator)()
            if manager.__exit__(type(error), error, error.__traceback__):
                return await _let_go(kept, what)  # noqa: ASYNC102  it is there to be cancelled
            raise
        if next(generator, _END) is _END:
            return result  # noqa: ASYNC910  as the call
        generator.close()
        raise _yields_again(name)

    return layer


def _no_manager(name: str, returned: object) -> TypeError:
    return TypeError(
        f"{name} returned {type(returned).__name__}, which is no async context manager; "
        "write one `yield` where the message is sent or handled"
    )


def _without_yield(name: str) -> RuntimeError:
    return RuntimeError(f"{name} ended without `yield`")


def _yields_again(name: str) -> RuntimeError:
    return RuntimeError(f"{name} has more than one `yield`")


def _undecorated() -> Generator[None]:
    yield


_HELPERS: Final = (
    contextmanager(_undecorated).__code__,
    asynccontextmanager(cast("Callable[[], AsyncGenerator[None]]", _undecorated)).__code__,
)
"""What the decorators of the standard library make of every function."""


def function_of(method: Callable[[WhatT], object]) -> Callable[[WhatT], object] | None:
    """Return the function with a `yield` that a method is, with or without its decorator; None if it is none."""
    if inspect.isasyncgenfunction(method) or inspect.isgeneratorfunction(method):
        return method
    function: object = getattr(method, "__func__", method)
    if getattr(function, "__code__", None) not in _HELPERS:
        return None
    inner: Callable[[WhatT], object] = getattr(function, "__wrapped__")  # noqa: B009  no type has it
    return MethodType(inner, method.__self__) if isinstance(method, MethodType) else inner
