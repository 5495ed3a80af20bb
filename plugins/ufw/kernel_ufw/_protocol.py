"""What the protocols have in common: JSON, and answers, which are JSON in a string of JSON."""

from __future__ import annotations

from typing import Final

from typing_extensions import override

from kernel import Envelope, read_json, write_json
from kernel.abc import Protocol
from kernel.errors import DecodeError

from ._config import UfwConfig, UfwRpcConfig
from ._errors import read_error, write_error
from ._values import as_table

CONTENT_TYPE: Final = "application/json"


class UfwProtocol(Protocol):
    """A protocol of micro-framework, without what it sends."""

    def __init__(self, *, config: UfwConfig) -> None:
        self._config = config
        self._exceptions = config.exceptions if isinstance(config, UfwRpcConfig) else ()

    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        return self._answer(request, {"data": result, "exception": None})

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        return self._answer(request, {"data": None, "exception": write_error(error, request)})

    @override
    def decode_reply(self, reply: Envelope) -> object:
        fields = as_table(self._read_twice(reply))
        if not {"data", "exception"} & fields.keys():
            raise DecodeError("body is not an answer: neither data nor an exception")
        if fields.get("exception") is not None:
            raise read_error(fields["exception"], self._exceptions)
        return fields.get("data")

    def _answer(self, request: Envelope, body: object) -> Envelope | None:
        if not request.reply_to:
            return None
        return Envelope(
            subject=request.reply_to,
            body=self._write(self._write(body).decode()),
            content_type=CONTENT_TYPE,
            correlation_id=request.correlation_id,
        )

    def _read_twice(self, envelope: Envelope) -> object:
        """Return what a body says, or what the text that it says says."""
        value = self._read(envelope.body, envelope.content_type)
        return self._read(value.encode()) if isinstance(value, str) else value

    def _read(self, body: bytes, content_type: str = "") -> object:
        limits = self._config
        return read_json(body, content_type=content_type, max_bytes=limits.max_bytes, max_depth=limits.max_depth)

    def _write(self, body: object) -> bytes:
        return write_json(body, sort_keys=False, max_bytes=self._config.max_bytes, max_depth=self._config.max_depth)
