"""What spans say: attributes of deliveries, links, and what came out of what they stand for."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, cast

import trio
from opentelemetry import trace
from opentelemetry.trace import Link, Span, Status, StatusCode

if TYPE_CHECKING:
    from opentelemetry.context import Context as TraceContext

    from kernel.abc import Delivery

_TEXT_MAX: Final = 8 * 1024
"""Characters of a traceback."""


def note_end(span: Span, error: BaseException, mask: Callable[[str], str]) -> None:
    """Have a span say that what it stands for was cancelled, or failed, without secrets."""
    if not span.is_recording():
        return
    if _is_cut(error):
        span.set_attribute("kernel.cancelled", value=True)
        span.set_status(Status(StatusCode.ERROR, "cancelled"))
        span.add_event("cancelled")
    else:
        _note_error(span, error, mask)


def _note_error(span: Span, error: BaseException, mask: Callable[[str], str]) -> None:
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    try:
        text, stack = str(error), "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001  the text of an exception is the user's code
        text = stack = "(no text)"
    attributes = {
        "exception.type": name,
        "exception.message": mask(text)[:_TEXT_MAX],
        "exception.stacktrace": mask(stack)[-_TEXT_MAX:],
    }
    span.set_attribute("error.type", name)
    span.add_event("exception", attributes)
    span.set_status(Status(StatusCode.ERROR, mask(f"{name}: {text}")[:200]))


def links_of(parents: Sequence[TraceContext]) -> list[Link]:
    """Return links to the spans of contexts."""
    sent = [trace.get_current_span(one).get_span_context() for one in parents]
    return [Link(one) for one in sent if one.is_valid]


def of_deliveries(worker: str, deliveries: Sequence[Delivery]) -> dict[str, str | int]:
    """Return the attributes of the span of a handler."""
    first = deliveries[0]
    attributes: dict[str, str | int] = {
        "messaging.system": "kernel",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": first.envelope.subject,
        "kernel.worker": worker,
    }
    if len(deliveries) > 1:
        return {**attributes, "messaging.batch.message_count": len(deliveries)}
    attributes["messaging.message.id"] = first.envelope.id
    attributes["messaging.message.body.size"] = len(first.envelope.body)
    attributes["kernel.attempt"] = first.attempt
    if first.envelope.correlation_id:
        attributes["messaging.message.conversation_id"] = first.envelope.correlation_id
    return attributes


def _is_cut(error: BaseException) -> bool:
    """Whether an exception is nothing but a cancellation."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_cut, cast("BaseExceptionGroup[BaseException]", error).exceptions))
    return isinstance(error, trio.Cancelled)
