"""Messages of AMQP 1.0 -> envelopes; what one that lacks ours is taken for. Pure, but for the clock.

It calls the functions below the classes of the engine: those read every section into Python objects, wanted or not.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Final, cast, final

import attrs

from kernel import NO_HEADERS, Envelope, new_id
from kernel.abc import CRASHES_HEADER, DEADLINE_HEADER, read_deadline

from .._addresses import Addresses
from ..link.proton import Core, Proton, load_core, message_of
from .crashes import note_of, number_of
from .letters import ATTEMPTS, JSON, OURS, Letter
from .sections import check_sections

_DEEPEST: Final = 32
_MOST: Final = 1 << 20
"""Deliveries that are believed."""
_NOTHING: Final[Mapping[str, object]] = {}


@final
@attrs.define(eq=False, repr=False)
class Reader:
    """Reads messages, one after the other, into the same place of the engine. Not safe to share between threads."""

    _proton: Proton
    _addresses: Addresses
    _core: Core = attrs.field(factory=load_core, init=False)
    _owner: object = attrs.field(init=False)
    """Frees the place."""
    _message: object = attrs.field(init=False)
    _binary: int = attrs.field(init=False)
    """The type of a body of bytes."""

    def __attrs_post_init__(self) -> None:
        self._owner = self._proton.Message()
        self._message = message_of(self._owner)
        self._binary = self._proton.Data.BINARY

    def read(self, data: bytes, *, now: float) -> Letter:
        """Return what an encoded message says.

        Args:
            data: The message.
            now: `trio.current_time()`.

        Raises:
            ValueError: if it is no message that can be read.
        """
        core, message = self._core, self._message
        try:
            check_sections(data)
            if core.pn_message_decode(message, data) < 0:
                raise ValueError("it is no message")  # noqa: TRY301  one error for all that can be wrong
            table = self._properties()
            count = core.pn_message_get_delivery_count(message)
            is_first = self._addresses.is_counting or core.pn_message_is_first_acquirer(message)
            counted = number_of(table, ATTEMPTS) if table else 0
            return Letter(
                envelope=self._envelope(table, now),
                attempts=counted + (number_of(table, CRASHES_HEADER) if table else 0) + min(count, _MOST),
                note=note_of(table) if table else None,
                counted=counted,
                is_uncounted=not (count or is_first),
                is_again=count > 0 or not is_first,
                sent=core.pn_message_get_creation_time(message) / 1000,
            )
        except Exception as error:
            raise ValueError(f"it cannot be read: {error!r}"[:300]) from error

    def _properties(self) -> Mapping[str, object]:
        properties = self._core.pn_message_properties(self._message)
        if not self._core.pn_data_next(properties):
            return _NOTHING
        return cast("Mapping[str, object]", self._proton.Data(properties).get_object() or _NOTHING)

    def _envelope(self, table: Mapping[str, object], now: float) -> Envelope:
        core, message = self._core, self._message
        reply_to = core.pn_message_get_reply_to(message)
        return Envelope(
            subject=core.pn_message_get_subject(message) or "",
            body=self._body(),
            headers=_headers(table) if table else NO_HEADERS,
            id=_text(core.pn_message_get_id(message)) or new_id(),
            content_type=core.pn_message_get_content_type(message) or "",
            reply_to=self._addresses.name_of(reply_to) if reply_to else "",
            correlation_id=_text(core.pn_message_get_correlation_id(message)),
            priority=min(core.pn_message_get_priority(message), 9),
            deadline=read_deadline(table[DEADLINE_HEADER], now=now) if DEADLINE_HEADER in table else math.inf,
        )

    def _body(self) -> bytes:
        core = self._core
        body = core.pn_message_body(self._message)
        if not core.pn_data_next(body):
            return b""
        if core.pn_data_type(body) == self._binary:
            return bytes(core.pn_data_get_binary(body))
        return _bytes_of(self._proton.Data(body).get_object())


def _headers(table: Mapping[str, object]) -> Mapping[str, object]:
    headers = {str(key): plain(value) for key, value in table.items() if key not in OURS}
    if isinstance(written := table.get(JSON), str):
        try:
            known: object = json.loads(written)
        except (ValueError, RecursionError):
            known = None
        if isinstance(known, dict):
            headers |= cast("dict[str, object]", known)
    return headers


def _text(value: object) -> str:
    """Return an id of any type that AMQP 1.0 has for it."""
    if isinstance(value, str):  # as nearly every one is
        return value
    match value:
        case None:
            return ""
        case bytes() | bytearray() | memoryview():
            return bytes(cast("bytes", value)).hex()
        case _:
            return str(value)


def _bytes_of(body: object) -> bytes:
    match body:
        case None:
            return b""
        case bytes() | bytearray() | memoryview():
            return bytes(cast("bytes", body))
        case str():
            return body.encode()
        case _:
            return json.dumps(plain(body)).encode()


def plain(value: object, deep: int = 0) -> object:
    """Return a value of AMQP 1.0 as JSON can say it."""
    if deep > _DEEPEST:
        raise ValueError("it is nested too deeply")
    match value:
        case Mapping():
            table = cast("Mapping[object, object]", value)
            return {str(key): plain(item, deep + 1) for key, item in table.items()}
        case list() | tuple():
            return [plain(item, deep + 1) for item in cast("list[object]", value)]
        case _:
            return _scalar(value)


def _scalar(value: object) -> object:
    match value:
        case None | bool():
            return value
        case int():
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case bytes() | bytearray() | memoryview():
            return _decoded(bytes(cast("bytes", value)))
        case datetime():
            return value.isoformat()
        case _:
            return str(value)


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return base64.b64encode(data).decode("ascii")
