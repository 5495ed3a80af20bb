"""What the tests of this plugin share: the real broker."""

from __future__ import annotations

import socket
from typing import Final

import pytest

RABBITMQ: Final = ("127.0.0.1", 5672)


@pytest.fixture(scope="session")
def rabbitmq() -> tuple[str, int]:
    """Host and port of RabbitMQ; the guard of the repository makes the skip a failure where `CI` is set."""
    try:
        socket.create_connection(RABBITMQ, timeout=2.0).close()
    except OSError:
        pytest.skip(f"needs RabbitMQ on {RABBITMQ[0]}:{RABBITMQ[1]}")
    return RABBITMQ
