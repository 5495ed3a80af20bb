# /// script
# requires-python = ">=3.11"
# dependencies = ["python-qpid-proton==0.40.0"]
# ///
"""qpid-proton's own blocking client: sends and receives over AMQP 1.0, as the lines of its standard input ask for."""

from __future__ import annotations

import argparse
import base64
import uuid
from typing import Any

from _lines import say, serve
from proton import Message
from proton.utils import BlockingConnection, SendException


class Peer:
    """What the test may ask for."""

    def __init__(self, port: int) -> None:
        self._url = f"amqp://guest:guest@127.0.0.1:{port}"

    def _connect(self) -> BlockingConnection:
        """One for each command: between them it would say nothing, and be taken for dead."""
        return BlockingConnection(self._url, timeout=15, allowed_mechs="PLAIN", allow_insecure_mechs=True)

    def send(self, address: str, body: Any, *, binary: bool = False, **fields: Any) -> str:
        """Send a message, a uuid for an id that says "uuid"; return what became of it."""
        if fields.get("id") == "uuid":
            fields["id"] = uuid.UUID(int=7)
        data = base64.b64decode(body) if binary else body
        connection = self._connect()
        sender = connection.create_sender(address)
        try:
            return str(sender.send(Message(body=data, inferred=binary, durable=True, **fields)).remote_state)
        except SendException as error:
            return str(error.state)
        finally:
            connection.close()

    def receive(self, address: str, count: int, outcome: str = "accept") -> list[dict[str, Any]]:
        """Take so many messages and say the same of each."""
        connection = self._connect()
        receiver = connection.create_receiver(address, credit=count)
        try:
            messages = []
            for _ in range(count):
                messages.append(seen(receiver.receive(timeout=10)))
                getattr(receiver, outcome)()
            return messages
        finally:
            connection.close()


def seen(message: Message) -> dict[str, Any]:
    """Return a message as it came over the wire."""
    body = message.body
    return {
        "body": bytes(body).decode() if isinstance(body, bytes | memoryview) else body,
        "type": type(body).__name__,
        "properties": {key: [type(value).__name__, value] for key, value in (message.properties or {}).items()},
        "subject": message.subject,
        "id": str(message.id),
        "reply_to": message.reply_to,
        "correlation_id": message.correlation_id,
        "content_type": message.content_type,
        "durable": message.durable,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    peer = Peer(parser.parse_args().port)
    say(ready=True)
    serve({"send": peer.send, "receive": peer.receive})


if __name__ == "__main__":
    main()
