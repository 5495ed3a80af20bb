"""What is not recorded: a message of which 99 in 100 are should not pay for the hundredth.

The SDK is asked for none of it: what goes on of such a trace is its header, and a context that makes a span of it when
somebody asks for one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from contextvars import ContextVar, Token, copy_context
from random import getrandbits
from typing import Final, cast, final

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import SpanContext, TraceFlags, TraceState
from typing_extensions import override

HEADER: Final = "traceparent"
STATE: Final = "tracestate"
SPAN_KEY: Final = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, contexts.Context())))
"""What a context has its span under."""
is_unrecorded: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]").fullmatch
"""Whether a `traceparent` is one, and says that its trace is not recorded."""
told_by: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})").fullmatch
"""The id of the trace, that of the span and the flags of which a `traceparent` tells; None if it is none."""
LENGTH: Final = 55
"""Characters of a `traceparent`."""
_AT_ONCE: Final = 64
_ID_BYTES: Final = 16


def draw(bound: int) -> list[int | Mapping[str, str]]:
    """Draw ids of traces that may begin here, since to draw each for itself takes three times as long.

    Returned are those whose low half is below the bound, and of all others what goes along. Nobody has made a span of
    these: one id of a span does for all that are drawn together, and all are written at once.
    """
    raw = getrandbits(8 * _ID_BYTES * _AT_ONCE).to_bytes(_ID_BYTES * _AT_ONCE, "big")
    halves = struct.unpack(f">{2 * _AT_ONCE}Q", raw)[1::2]
    end = f"-{raw[-8:].hex()}-00"
    texts = f"00-{raw.hex(' ', _ID_BYTES).replace(' ', f'{end} 00-')}{end}".split(" ")
    if min(halves) >= bound:
        return [{HEADER: text} for text in texts]
    return [int(text[3:35], 16) if half < bound else {HEADER: text} for text, half in zip(texts, halves, strict=True)]


def shortcuts() -> tuple[Callable[[], contexts.Context], Callable[[contexts.Context], Token[contexts.Context]]]:
    """Return what does as `get_current` and `attach` of OpenTelemetry do, in one call instead of three.

    The token says which variable they use; where there is none, they use something else, and are what is returned.
    """
    token = copy_context().run(contexts.attach, contexts.Context())
    variable = cast("ContextVar[contexts.Context] | None", getattr(token, "var", None))
    return (contexts.get_current, contexts.attach) if variable is None else (variable.get, variable.set)


@final
class Unrecorded(trace.NonRecordingSpan):
    """What goes on of a trace that is not recorded. Its ids are read when somebody asks for them, as few do."""

    def __init__(self, along: Mapping[str, object]) -> None:
        self._along = along

    @override
    def get_span_context(self) -> SpanContext:
        header = str(self._along[HEADER])
        if not is_unrecorded(header):
            return trace.INVALID_SPAN_CONTEXT
        _, trace_id, span_id, flags = header.split("-")
        state = TraceState.from_header([str(self._along.get(STATE, ""))])
        return SpanContext(
            int(trace_id, 16),
            int(span_id, 16),
            is_remote=True,
            trace_flags=TraceFlags(int(flags, 16)),
            trace_state=state,
        )


class Within(contexts.Context):
    """A context with nothing but a span that is not recorded.

    That is made when somebody asks for it: to make both for each message takes as long as to decode it.
    """

    __slots__ = ("along",)
    along: Mapping[str, object]

    def span(self) -> trace.Span:
        """Return the span that it holds. Is called once."""
        return Unrecorded(self.along)

    def _filled(self) -> contexts.Context:
        if not super().__len__():
            dict[str, object].__setitem__(self, SPAN_KEY, self.span())  # a context refuses to be changed
        return self

    @override
    def get(self, key: str, default: object = None) -> object:
        return dict[str, object].get(self._filled(), key, default)

    @override
    def __getitem__(self, key: str) -> object:
        return dict[str, object].__getitem__(self._filled(), key)

    @override
    def __contains__(self, key: object) -> bool:
        return dict[str, object].__contains__(self._filled(), key)

    @override
    def __iter__(self) -> Iterator[str]:
        return dict[str, object].__iter__(self._filled())

    @override
    def __len__(self) -> int:
        return dict[str, object].__len__(self._filled())

    @override
    def __eq__(self, other: object) -> bool:
        return dict[str, object].__eq__(self._filled(), other)

    __hash__ = None  # type: ignore[assignment]  # as that of a dict

    @override
    def keys(self) -> KeysView[str]:  # type: ignore[override]
        return dict[str, object].keys(self._filled())

    @override
    def values(self) -> ValuesView[object]:  # type: ignore[override]
        return dict[str, object].values(self._filled())

    @override
    def items(self) -> ItemsView[str, object]:  # type: ignore[override]
        return dict[str, object].items(self._filled())

    @override
    def copy(self) -> dict[str, object]:
        return dict[str, object].copy(self._filled())
