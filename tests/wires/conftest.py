"""What the tests with foreign peers share: the peers, and ports that nobody else has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernel.testing import free_port

from ..amqp._peer import Peer, start

PEERS = Path(__file__).parent / "peers"


@pytest.fixture
def start_peer() -> Iterator[Callable[..., Peer]]:
    """Starts peers that end with the test."""
    peers: list[Peer] = []

    def start_one(script: str, *arguments: str) -> Peer:
        peers.append(start(str(PEERS / script), *arguments))
        return peers[-1]

    yield start_one
    for peer in peers:  # all at once, since some take their time
        peer.ask_to_end()
    for peer in peers:
        peer.end()


@pytest.fixture
def port() -> int:
    """A port for peers that cannot say which one they got."""
    return free_port()
