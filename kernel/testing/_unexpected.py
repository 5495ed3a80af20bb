"""What happened in a service and fails its test at the end, though the service itself did not fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

from .._core.envelope import Ack
from .._core.events import ComponentFailed, DeliverySettled, SettleFailed
from .._core.words import counted
from ._faults import Faults
from ._running import RunningService

_TOLD: Final = 10
"""Errors that are raised, at most."""


def check_nothing_unexpected(
    service: RunningService, expected: type[BaseException] | tuple[type[BaseException], ...], faults: Faults | None
) -> None:
    """Fail for what handlers and workers raised and nobody expects, and for what could not be settled.

    Raises:
        BaseExceptionGroup: of what was raised.
        AssertionError: naming what could not be settled.
    """
    failures = [error for error in _failures(service) if not _is_expected(error, expected, faults)]
    if failures:
        raise BaseExceptionGroup(
            f"{counted(len(failures), 'failure')} that the test does not expect (expected=... says which it does)",
            failures[:_TOLD],
        )
    unsettled = [event for event in service.events if isinstance(event, SettleFailed)]
    if unsettled and not (service.result and service.result.errors):
        ids = ", ".join(f"{event.delivery_id} ({event.error!r})" for event in unsettled)
        raise AssertionError(f"deliveries that were not settled: {ids}")


def _failures(service: RunningService) -> Iterator[BaseException]:
    """Yield what nobody else has told the test: whoever made a request has the error as its answer."""
    for event in service.events:
        match event:
            case DeliverySettled(outcome=Ack(reply=reply), error=error) if reply is not None:
                continue
            case DeliverySettled(error=error) if error is not None:
                yield error
            case ComponentFailed(restart_in=wait, error=error) if wait is not None and _is_worker(event.component):
                yield error
            case _:
                continue


def _is_worker(component: str) -> bool:
    return component.startswith("worker/")


def _is_expected(
    error: BaseException, expected: type[BaseException] | tuple[type[BaseException], ...], faults: Faults | None
) -> bool:
    """Whether an error is expected, or a group of such, or comes from the script of faults."""
    if isinstance(error, expected) or (faults is not None and any(map(faults.injected, _chain(error)))):
        return True
    if not isinstance(error, BaseExceptionGroup):
        return False
    group = cast("BaseExceptionGroup[BaseException]", error)
    return all(_is_expected(inner, expected, faults) for inner in group.exceptions)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
