"""What the tests with foreign peers share: the broker, the peers, names that are nobody else's, and the cleaning up."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Generator, Iterator

import pytest
import trio

from kernel import new_id

from ._peer import Peer, start

HOST, PORT = "127.0.0.1", 5672


@pytest.fixture(scope="session")
def rabbitmq() -> tuple[str, int]:
    """Address of a RabbitMQ; without one the test is skipped, and failed where the environment has `CI` set."""
    try:
        socket.create_connection((HOST, PORT), timeout=2).close()
    except OSError:
        pytest.skip(f"needs RabbitMQ on {HOST}:{PORT}")
    return HOST, PORT


@pytest.fixture(scope="session")
def mark(rabbitmq: tuple[str, int]) -> Iterator[str]:
    """The start of every name that this run declares; what has it in its name is deleted at the end."""
    text = f"kt{new_id()[:8]}"
    yield text
    delete_all(text)


@pytest.fixture
def unique(mark: str) -> Callable[[str], str]:
    """Makes names that no other test uses."""
    return lambda name: f"{mark}{name}{new_id()[:4]}"


@pytest.fixture
def start_peer(mark: str) -> Iterator[Callable[..., Peer]]:
    """Starts peers that end with the test."""
    yield from starting()


@pytest.fixture(scope="module")
def start_lasting_peer(mark: str) -> Iterator[Callable[..., Peer]]:
    """Starts peers that end with the file."""
    yield from starting()


@pytest.fixture(scope="module")
def pika(start_lasting_peer: Callable[..., Peer]) -> Peer:
    """A foreign client for what a test looks at or sends by hand."""
    return start_lasting_peer("pika_peer.py")


@pytest.fixture
def amqp_tools(rabbitmq: tuple[str, int]) -> Callable[..., bytes]:
    """Runs a command of Debian's amqp-tools and returns its output."""
    if shutil.which("amqp-publish") is None:
        pytest.skip("needs amqp-publish: apt-get install amqp-tools")

    def run(command: str, *arguments: str) -> bytes:
        line = [command, f"--url=amqp://{HOST}:{PORT}", *arguments]
        return subprocess.run(line, capture_output=True, check=True, timeout=20).stdout

    return run


def starting() -> Generator[Callable[..., Peer]]:
    peers: list[Peer] = []

    def start_one(script: str, *arguments: str) -> Peer:
        peers.append(start(script, *arguments))
        return peers[-1]

    yield start_one
    for peer in peers:  # all at once, since some take their time
        peer.ask_to_end()
    for peer in peers:
        peer.end()


def delete_all(mark: str) -> None:
    """Delete what has the mark in its name, where RabbitMQ's own command may ask for names."""
    found = [(kind, name) for kind in ("queue", "exchange") for name in names(kind) if mark in name]
    if not found:
        return
    peer = start("pika_peer.py")

    async def delete() -> None:
        for kind, name in found:
            await peer.ask("method", name=f"{kind}_delete", **{kind: name})

    trio.run(delete)
    peer.end()


def names(kind: str) -> list[str]:
    command = ["rabbitmqctl", "--quiet", f"list_{kind}s", "name"]
    if shutil.which(command[0]) is None:
        return []
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.split()
