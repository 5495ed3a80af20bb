"""The protocol `ufw_backoff`: what micro-framework sends itself to try a target again later."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Final, cast, final

import attrs
from typing_extensions import override

from kernel import Envelope, Message
from kernel.errors import DecodeError, EncodeError

from ._config import UfwConfig
from ._protocol import CONTENT_TYPE, UfwProtocol
from ._values import as_table

if TYPE_CHECKING:
    from kernel.abc import Context

_DELAY: Final = "x-delay"
"""The header in which an exchange of type `x-delayed-message` reads milliseconds; it is below 0 after the wait."""


def _as_tuple(values: Iterable[object]) -> tuple[object, ...]:
    return tuple(values)


@final
@attrs.frozen(kw_only=True)
class BackOff:
    """One more attempt at a target: what it is called with, and how often it was tried."""

    args: tuple[object, ...] = attrs.field(default=(), converter=_as_tuple, repr=False)
    """Given by position; of an event, its payload."""
    kwargs: Mapping[str, object] = attrs.field(factory=dict[str, object], repr=False)
    """Given by name."""
    retry_count: int = 0
    """1 for the first retry."""
    last_retry: float | None = None
    """When it was last tried, in seconds since 1970."""
    delay: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    """Seconds before it is delivered; needs an exchange of type `x-delayed-message`."""


@final
class UfwBackoffProtocol(UfwProtocol):
    """Retries: the subject is `<target>_backoff`, the payload is a `BackOff`."""

    Config: ClassVar[type[object]] = UfwConfig

    def __init__(self, *, config: UfwConfig = UfwConfig(), context: Context | None = None) -> None:  # noqa: B008  frozen
        super().__init__(config=config)

    @override
    def decode(self, envelope: Envelope) -> Message:
        body = self._read(envelope.body, envelope.content_type)
        payload = attrs.evolve(_backoff_in(body), delay=_delay_in(envelope.headers))
        return Message(subject=envelope.subject, payload=payload, headers=envelope.headers)

    @override
    def encode(self, message: Message) -> Envelope:
        retry = message.payload
        if not isinstance(retry, BackOff):
            raise EncodeError(f"a retry is a BackOff, not {type(retry).__name__}")
        meta = {"retry_count": retry.retry_count, "last_retry": retry.last_retry}
        body = {"fn_args": retry.args, "fn_kwargs": retry.kwargs, "_meta": {"backoff": meta}}
        delay = {_DELAY: math.ceil(retry.delay * 1000)} if retry.delay else {}
        return Envelope(
            subject=message.subject,
            body=self._write(body),
            headers={**message.headers, **delay},
            content_type=CONTENT_TYPE,
        )


def _backoff_in(body: object) -> BackOff:
    fields = as_table(body)
    args, kwargs = fields.get("fn_args"), fields.get("fn_kwargs")
    meta = as_table(as_table(fields.get("_meta")).get("backoff"))
    count, last = meta.get("retry_count"), meta.get("last_retry")
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise DecodeError("body is no object with fn_args and fn_kwargs")
    if not isinstance(count, int) or count < 0 or not isinstance(last, int | float | None):
        raise DecodeError("_meta.backoff of the body has no retry_count and last_retry")
    return BackOff(
        args=cast("list[object]", args),
        kwargs=cast("dict[str, object]", kwargs),
        retry_count=int(count),
        last_retry=None if last is None else _seconds(last),
    )


def _seconds(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise DecodeError("last_retry of the body is no time") from None


def _delay_in(headers: Mapping[str, object]) -> float:
    value = headers.get(_DELAY)
    return abs(value) / 1000 if isinstance(value, int) and abs(value) < 2**63 else 0.0
