# /// script
# requires-python = ">=3.11"
# dependencies = ["service-framework==0.0.20", "msgpack==1.2.4", "numpy==2.4.6", "pyzmq==27.3.0"]
# ///
"""service-framework: as a service with a replyer, as its requester, publisher and subscriber."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from decimal import Decimal
from typing import Any

import zmq
from _lines import say, serve
from service_framework.connections.out.publisher import Publisher
from service_framework.connections.out.requester import Requester
from service_framework.utils import service_utils
from service_framework.utils.msgpack_utils import msg_unpack
from service_framework.utils.socket_utils import get_subscriber_socket

LOGGING = {"console_loglevel": None, "log_path": None, "file_loglevel": "INFO", "backup_count": 1}


def on_quote(args, to_send, config):  # noqa: ANN001, ANN201  it refuses what has annotations
    """Answer a requester."""
    say(got={key: str(value) for key, value in args.items()})
    return {"price": Decimal("1.50") * args["amount"], "tags": {"a", "b"}}


connection_models = {
    "in": {
        "quote": {
            "connection_type": "replyer",
            "required_creation_arguments": {"connection_function": on_quote},
            "required_arguments": {"sku": str, "amount": int},
            "required_return_arguments": {"price": Decimal, "tags": {str}},
        }
    }
}
ASKED = {
    "connection_type": "requester",
    "required_arguments": {"sku": str, "amount": int},
    "required_return_arguments": {"price": Decimal, "tags": {str}},
}
TOLD = {
    "connection_type": "publisher",
    "optional_creation_arguments": {"topic": "quotes"},
    "required_arguments": {"price": Decimal},
}
LOOSE = {"connection_type": "requester", "optional_arguments": {"sku": str, "amount": object}}


class Client:
    """What the test may ask for."""

    def __init__(self) -> None:
        self.connections: dict[str, Any] = {}

    def connect(self, kind: str, address: str) -> None:
        make, model, key = {
            "requester": (Requester, ASKED, "requester"),
            "loose": (Requester, LOOSE, "requester"),
            "publisher": (Publisher, TOLD, "publisher"),
        }[kind]
        self.connections[kind] = make(model, {key: address})
        self.connections[kind].runtime_setup()

    def send(self, kind: str, **args: Any) -> Any:
        if "price" in args:
            args["price"] = Decimal(args["price"])
        to_send = service_utils.setup_to_send({"out": self.connections}, LOGGING, increment_id=False)
        answer = to_send(kind, args)
        return {key: sorted(value) if isinstance(value, set) else str(value) for key, value in (answer or {}).items()}

    def subscribe(self, address: str) -> None:
        self.socket = get_subscriber_socket(address, zmq.Context(), "quotes")
        self.socket.rcvtimeo = 100

    def heard(self) -> Any:
        """Return what the next message says; the topic is cut off as its subscriber does it."""
        try:
            frame = self.socket.recv()
        except zmq.Again:
            return None
        args = msg_unpack(frame[len(b"\xa6quotes") :])["args"]
        return {key: [type(value).__name__, str(value)] for key, value in args.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=int)
    port = parser.parse_args().serve
    if port is None:
        client = Client()
        say(ready=True)
        serve({name: getattr(client, name) for name in ("connect", "send", "subscribe", "heard")})
    else:
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
        say(ready=True)
        addresses = {"in": {"quote": {"replyer": f"127.0.0.1:{port}"}}}
        service_utils.entrance_point(sys.modules[__name__], None, addresses, LOGGING, False, 0)
    os._exit(0)


if __name__ == "__main__":
    main()
