"""A session goes from who sends to who listens, over each broker."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from kernel import Ack, DeadLetter
from kernel.errors import PermanentError
from kernel.testing import RunningService

MANIFEST = Path(__file__).with_name("kernel.toml")
STAYS = {"workers.host.main": False, "workers.host.restart": {"policy": "never"}}
"""The test ends the service, when all has been heard."""


async def check_sessions(service: RunningService, capsys: pytest.CaptureFixture[str]) -> None:
    settled = await service.wait_settled(3)

    assert sorted(capsys.readouterr().out.splitlines()) == ["hello world, says ann", "hello world, says bob"]
    assert [event.outcome for event in settled].count(Ack()) == 2
    [refused] = [event.outcome for event in settled if event.outcome != Ack()]
    assert isinstance(refused, DeadLetter)
    assert refused.reason == "PermanentError: it was sent outside of any session"


async def test_a_session_reaches_the_listener_in_memory(
    open_kernel: Any, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_kernel(MANIFEST, set=STAYS, expected=PermanentError) as service:
        await check_sessions(service, capsys)


@pytest.fixture
def open_on_rabbitmq(
    open_example: Callable[..., AbstractAsyncContextManager[Any]], own_name: Callable[[str], str]
) -> Callable[[], AbstractAsyncContextManager[Any]]:
    """Runs the example on RabbitMQ, under names of its own."""
    prefix = own_name("session")
    rabbit = {"plugin": "amqp", "hosts": ["127.0.0.1:5672"], "prefix": f"{prefix}."}

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Any]:
        async with open_example(
            MANIFEST,
            {},
            broker="driver/queue",
            replace={"drivers.queue": rabbit},
            set=STAYS,
            expected=PermanentError,
        ) as service:
            yield service

    return opened


@pytest.mark.slow
async def test_a_session_reaches_the_listener_over_rabbitmq(
    open_on_rabbitmq: Callable[[], AbstractAsyncContextManager[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_on_rabbitmq() as service:
        await check_sessions(service, capsys)
