"""The tree of a service as lines of text, kept up to date by events; pure: prints nothing."""

from __future__ import annotations

from typing import Final, final

import attrs
import click

from .._core.events import Event, KernelReady, Listening, StateChanged
from .._core.lifecycle import State
from .._core.spec import Plan, WorkerSpec

_COLOURS: Final = {
    State.READY: "green",
    State.DEGRADED: "yellow",
    State.BACKOFF: "yellow",
    State.FAILED: "red",
}
_CALM: Final = "bright_black"


@final
@attrs.define(eq=False, repr=False)
class Tree:
    """What is known of every component."""

    plan: Plan
    _states: dict[str, State] = attrs.field(init=False)
    _addresses: dict[str, list[str]] = attrs.field(factory=dict[str, list[str]], init=False)
    _ready_after: float | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._states = {id_: State.CREATED for spec in self.plan.components.values() for id_ in _children(spec)}

    def hear(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case StateChanged():
                self._states[event.component] = event.new
            case Listening():
                self._addresses.setdefault(event.component, []).append(event.address)
            case KernelReady():
                self._ready_after = event.seconds
            case _:
                pass

    def text(self, *, colour: bool) -> str:
        """Return the tree as it is."""
        width = max(map(len, self._states), default=0)
        last = len(self._states) - 1
        lines = [
            f"{'└─' if number == last else '├─'} {id_:{width}}  {self._state(id_, colour=colour)}{self._where(id_)}"
            for number, id_ in enumerate(self._states)
        ]
        return "\n".join([self._title(), *lines])

    def _title(self) -> str:
        if self._ready_after is None:
            return f"{self.plan.name} is starting"
        return f"{self.plan.name} is ready after {self._ready_after:.2f} s"

    def _state(self, id_: str, *, colour: bool) -> str:
        state = self._states[id_]
        return click.style(state.value, fg=_COLOURS.get(state, _CALM)) if colour else state.value

    def _where(self, id_: str) -> str:
        addresses = dict.fromkeys(self._addresses.get(id_, ()))
        return f"  {' '.join(addresses)}" if addresses else ""


def _children(spec: object) -> list[str]:
    """Return the ids that events name: one for each instance of a worker that has several."""
    if isinstance(spec, WorkerSpec) and spec.instances > 1:
        return [f"{spec.id}[{number}]" for number in range(1, spec.instances + 1)]
    return [getattr(spec, "id", "")]
