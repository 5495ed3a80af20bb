"""Whether workers fit a dispatcher that brings batches, and their handlers read as taking one payload at a time."""

from __future__ import annotations

import inspect

import attrs

from .._convert.payload import payload_converter
from .._core.spec import HandlerSpec
from .._manifest.tables import DispatcherTable, Entry, Report
from .handlers import NO_LIST
from .signature import Shape


def has_batches(dispatcher: Entry[DispatcherTable] | None) -> bool:
    """Return whether a dispatcher has a `batch` table, be it right or wrong."""
    return dispatcher is not None and dispatcher.given.get("batch") is not None


def fit(shape: Shape, *, batched: bool, report: Report) -> Shape:
    """Return a worker's shape with handlers that convert what the pipeline gives them: a payload, or one of a list."""
    if not batched:
        for handler in shape.handlers:
            if handler.batch_parameter is not None:
                report(
                    ("use",), f'{_label(shape, handler)} asks for the batch, but its dispatcher has no "batch" table'
                )
        return shape
    return attrs.evolve(shape, handlers=tuple(_of_items(shape, handler, report) for handler in shape.handlers))


def _of_items(shape: Shape, handler: HandlerSpec, report: Report) -> HandlerSpec:
    label = _label(shape, handler)
    extras = {"envelope": handler.envelope_parameter, "delivery": handler.delivery_parameter}
    for kind in (kind for kind, parameter in extras.items() if parameter is not None):
        text = f"{label} is given a batch, so that there is no one {kind}"
        report(("use",), f'{text}; ask for "batch: Batch", which has the deliveries')
    if handler.parameters is not None:
        text = f"{label} is marked with @answers, but its dispatcher gives batches, and a call comes alone"
        report(("use",), f'{text}; take the "batch" table from its dispatcher')
        return handler
    if handler.item is NO_LIST:
        text = f'{label} is given a batch: annotate its first parameter with a list, such as "list[dict]"'
        report(("use",), f'{text}, or take the "batch" table from its dispatcher')
        return handler
    return attrs.evolve(handler, convert=payload_converter(handler.item), check_result=None, signature=_of_one(handler))


def _of_one(handler: HandlerSpec) -> inspect.Signature:
    """Return the signature of a handler of batches as those see it who send the messages."""
    payload = inspect.Parameter("payload", inspect.Parameter.POSITIONAL_ONLY, annotation=handler.item)
    return inspect.Signature([payload])


def _label(shape: Shape, handler: HandlerSpec) -> str:
    name: str = getattr(shape.use, "__qualname__", "the worker")
    return f"{name}.{handler.method}" if handler.method else name
