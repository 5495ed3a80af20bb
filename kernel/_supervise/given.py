"""What workers and interceptors are given when they are made, and the interceptors of one life, made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final, cast

import trio

from .._core.events import Event, EventHub
from .._core.spec import Asked, ComponentSpec, DispatcherSpec, DriverSpec
from .tree import Tree

EVENTS_KEPT: Final = 1_000
"""Events that a worker has not taken yet; further ones are dropped, since whoever makes one does not wait."""


def arguments(
    tree: Tree,
    spec: ComponentSpec,
    drivers: Mapping[str, str],
    asked: Mapping[str, Asked | tuple[type[Event], ...]],
    stack: AsyncExitStack,
) -> dict[str, object]:
    """Return what something is called with that belongs to a component, by the names of its parameters.

    Args:
        tree: Where the drivers are.
        spec: The component.
        drivers: Parameter -> driver id.
        asked: Parameter -> what it is given for its annotation.
        stack: Is left when the life ends.
    """
    given = {parameter: tree.value(driver) for parameter, driver in drivers.items()}
    for parameter, what in asked.items():
        given[parameter] = tree.given(spec, what) if isinstance(what, Asked) else _hearing(tree.hub, what, stack)
    return given


async def interceptors(
    tree: Tree, spec: DriverSpec | DispatcherSpec, method: str, stack: AsyncExitStack
) -> list[Callable[[Any], object]]:
    """Make the interceptors of a component for one life; return the method of each, the first outermost.

    Cancellation: Is a checkpoint if one of them waits on entry.
    """
    methods: list[Callable[[Any], object]] = []
    for one in spec.interceptors:
        made = one.use(**arguments(tree, spec, one.drivers, one.asked, stack))
        if one.is_context:
            await stack.enter_async_context(cast("AbstractAsyncContextManager[object]", made))
        methods.append(getattr(made, method))
    return methods  # noqa: ASYNC910  as the docstring says


def _hearing(hub: EventHub, types: tuple[type[Event], ...], stack: AsyncExitStack) -> trio.MemoryReceiveChannel[Event]:
    """Return the channel in which events arrive until the worker has ended; when it is full, they are dropped."""
    send, receive = trio.open_memory_channel[Event](EVENTS_KEPT)
    stack.enter_context(receive)
    stack.enter_context(send)
    stack.callback(hub.subscribe(send.send_nowait, *types))
    return receive
