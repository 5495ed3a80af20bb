# /// script
# requires-python = ">=3.11"
# dependencies = ["stomp-py==9.0.0"]
# ///
"""stomp.py: sends, consumes, and writes and reads frames, as the lines of its standard input ask for."""

from __future__ import annotations

import argparse
import base64
import queue
import sys
import time
from pathlib import Path
from typing import Any

import stomp
from stomp import utils
from stomp.protocol import Protocol12

sys.path.append(str(Path(__file__).parents[2] / "amqp" / "peers"))
from _lines import say, serve


class Inbox(stomp.ConnectionListener):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.messages: queue.Queue[Any] = queue.Queue()
        self.receipts: set[str] = set()
        self.errors: list[str] = []

    def on_message(self, frame: Any) -> None:
        self.messages.put(frame)

    def on_receipt(self, frame: Any) -> None:
        self.receipts.add(frame.headers["receipt-id"])

    def on_error(self, frame: Any) -> None:
        self.errors.append(str(frame.body))


class Peer:
    """What the test may ask for."""

    def __init__(self, port: int) -> None:
        self.inbox = Inbox()
        self.connection = stomp.Connection12([("127.0.0.1", port)], vhost="/", auto_decode=False)
        self.connection.set_listener("", self.inbox)
        self.connection.connect("guest", "guest", wait=True)
        self.sent = 0

    def send(self, destination: str, body: str, **headers: Any) -> None:
        """Send a message and wait for its receipt."""
        self.sent += 1
        receipt = f"r-{self.sent}"
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        self.connection.send(destination, body.encode(), headers={**named, "receipt": receipt})
        self._wait(receipt)

    def subscribe(self, destination: str, **headers: Any) -> None:
        """Subscribe, each message to be acknowledged by itself."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        self.connection.subscribe(destination, "1", ack="client-individual", headers={**named, "receipt": "s"})
        self._wait("s")

    def take(self, seconds: float = 10) -> dict[str, Any] | None:
        """Take and acknowledge one message; None if none comes in time."""
        try:
            frame = self.inbox.messages.get(timeout=seconds)
        except queue.Empty:
            return None
        if "ack" in frame.headers:  # an answer has none: it is the server that acknowledges it
            self.connection.ack(frame.headers["ack"])
        return {"headers": dict(frame.headers), "body": _bytes(frame.body).decode("utf-8", "backslashreplace")}

    def _wait(self, receipt: str, seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while receipt not in self.inbox.receipts:
            if self.inbox.errors or time.monotonic() > end:
                raise RuntimeError(f"no receipt; errors: {self.inbox.errors}")
            time.sleep(0.002)


def write(frames: list[tuple[str, dict[str, str], str]]) -> list[str]:
    """Return the bytes of frames as stomp.py writes them in 1.2."""
    return [base64.b64encode(_written(*frame)).decode() for frame in frames]


def _written(command: str, headers: dict[str, str], body: str) -> bytes:
    data = base64.b64decode(body)
    sent = {**headers, "content-length": str(len(data))}
    Protocol12._escape_headers(_Nothing(), sent)
    return b"".join(utils.convert_frame(utils.Frame(command, sent, data)))


class _Nothing(Protocol12):
    """A protocol of no connection, for what of it needs none."""

    def __init__(self) -> None:
        pass


def read(frames: list[str]) -> list[dict[str, Any]]:
    """Return what frames mean to stomp.py."""
    parsed = [utils.parse_frame(base64.b64decode(frame)) for frame in frames]
    return [
        {"command": frame.cmd, "headers": frame.headers, "body": base64.b64encode(_bytes(frame.body)).decode()}
        for frame in parsed
    ]


def _bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else (body or "").encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 for no connection")
    port = parser.parse_args().port
    actions: dict[str, Any] = {"write": write, "read": read}
    if port:
        peer = Peer(port)
        actions |= {"send": peer.send, "subscribe": peer.subscribe, "take": peer.take}
    say(ready=True)
    serve(actions)


if __name__ == "__main__":
    main()
