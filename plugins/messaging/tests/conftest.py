from __future__ import annotations

import json
from collections.abc import AsyncGenerator

import pytest
from kernel_memory import MemoryBroker, MemoryConfig, MemoryDriver

from kernel import Envelope, Event, Message
from kernel.abc import Protocol
from kernel.errors import DecodeError, RemoteError
from kernel.testing import fake_context


class TextProtocol(Protocol):
    """JSON and nothing else; an answer with `error` is an error."""

    def decode(self, envelope: Envelope) -> Message:
        try:
            payload = json.loads(envelope.body)
        except ValueError as error:
            raise DecodeError(str(error)) from error
        return Message(subject=envelope.subject, payload=payload, headers=envelope.headers)

    def encode(self, message: Message) -> Envelope:
        return Envelope(subject=message.subject, body=json.dumps(message.payload).encode(), headers=message.headers)

    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        return self.encode_reply(request, {"error": [type(error).__name__, str(error)]})

    def decode_reply(self, reply: Envelope) -> object:
        payload = super().decode_reply(reply)
        if isinstance(payload, dict) and "error" in payload:
            raise RemoteError(*payload["error"])
        return payload


@pytest.fixture
def protocol() -> Protocol:
    return TextProtocol()


@pytest.fixture
def dropped() -> list[Event]:
    """What the broker says it dropped."""
    return []


@pytest.fixture
async def broker(dropped: list[Event]) -> AsyncGenerator[MemoryBroker]:
    context = fake_context("driver/queue", events=dropped)
    async with MemoryDriver(config=MemoryConfig(), context=context).open() as broker:
        yield broker
