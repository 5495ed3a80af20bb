"""What a reload has taken up by those that go on: files that others have changed, such as certificates."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import trio

from .._core.lifecycle import USABLE
from .._delivery.failure import describe
from ..abc import Renews
from .child import Child
from .tree import Tree

WITHIN: Final = 30.0
"""Seconds in which a component must have taken up what has changed."""


async def renew(tree: Tree, *, but: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Have all take up what has changed, beside each other; return what was not taken: ids, each with the reason.

    Args:
        tree: Of the service.
        but: Ids of those that have just been started.

    Cancellation: Is a checkpoint.
    """
    told: dict[str, str] = {}

    async def ask(child: Child, component: Renews) -> None:
        reason = await _reason(child, component)
        if reason:
            told[child.id] = reason

    async with trio.open_nursery() as nursery:
        for id_ in tree.plan.components.keys() - set(but):
            for child in tree.children(id_):
                component = child.life and child.life.component
                if isinstance(component, Renews) and child.state in USABLE:
                    nursery.start_soon(ask, child, component)
    return tuple((id_, told[id_]) for id_ in tree.plan.components if id_ in told)


async def _reason(child: Child, component: Renews) -> str:  # noqa: ASYNC910  the component's
    try:
        with trio.move_on_after(WITHIN):
            return "; ".join(await component.renew())
    except Exception as error:  # noqa: BLE001  of a component that goes on as it was
        return describe(error, child.mask)  # noqa: ASYNC910  as above
    return f"did not take up what has changed within {WITHIN:g} s"
