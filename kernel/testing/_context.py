"""A `Context` for a component under test."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import structlog

from kernel._core.events import EventHub, StateChanged
from kernel._core.lifecycle import State
from kernel.abc import Context

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from structlog.typing import FilteringBoundLogger

    from kernel._core.events import Event
    from kernel.abc import Protocol


def fake_context(
    component: str = "driver/test",
    *,
    events: list[Event] | None = None,
    driver: object = None,
    protocol: Protocol | None = None,
    service: str = "test",
    stop_timeout: float = 2.0,
) -> Context:
    """Return what a component is built with, outside of any kernel; its logger is silent.

    Args:
        component: `kind/name`.
        events: Gets what the component emits; `report_degraded` and `report_ready` arrive as `StateChanged`.
        driver: The resource of the driver that the component uses.
        protocol: The protocol that the component uses.
        service: `[kernel] name`.
        stop_timeout: Seconds that closing may take.
    """
    heard: list[Event] = [] if events is None else events
    hub = EventHub()
    hub.subscribe(heard.append)
    return Context(
        id=component,
        name=component.partition("/")[2],
        service=service,
        log=_silent(),
        emit=hub.emit,
        subscribe=hub.subscribe,
        hears=hub.hears,
        begin=hub.begin,
        passes_by=hub.passes_by,
        report_degraded=_report(component, heard, State.READY, State.DEGRADED),
        report_ready=_report(component, heard, State.DEGRADED, State.READY),
        driver=driver,
        protocol_or_none=protocol,
        stop_timeout=stop_timeout,
    )


def _report(component: str, heard: list[Event], old: State, new: State) -> Callable[..., None]:
    def report(reason: str = "") -> None:
        heard.append(StateChanged(component=component, old=old, new=new, reason=reason))

    return report


def _silent() -> FilteringBoundLogger:
    logger: FilteringBoundLogger = structlog.wrap_logger(
        None, processors=[_drop], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    return logger


def _drop(_logger: object, _method: str, _event: MutableMapping[str, object]) -> NoReturn:
    raise structlog.DropEvent
