# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "micro-framework==2.1.1", "kombu==5.7.0", "amqp==5.4.2", "vine==5.1.0", "loky==2.9.0", "prometheus-client==0.8.0",
#   "psutil==7.2.2", "websocket-client==0.59.0",
# ]
# [tool.uv]
# override-dependencies = ["websockets==10.4"]
# ///
"""micro-framework over websockets: its client, or a service of its own.

The websockets 8.1 that it asks for does not run on Python 3.10 and later; 10.4 has the same interface.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from _lines import say, serve
from micro_framework import Route, Runner
from micro_framework.rpc import format_rpc_command, parse_rpc_response
from micro_framework.websocket.connectors import WebSocketConnector
from micro_framework.websocket.entrypoints import WebSocketEntrypoint
from micro_framework.websocket.manager import WebSocketManager


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def fail(text: str) -> None:
    raise ValueError(text)


class Client:
    """What the test may ask for: the parts of its `RPCClient`, whose own calls fail before they connect (2.1.1)."""

    def __init__(self, url: str) -> None:
        self.connector = WebSocketConnector(url, timeout=10)

    def call(self, target: str, args: Any = (), kwargs: Any = None) -> Any:
        message = format_rpc_command(target, *args, **(kwargs or {}))
        result = parse_rpc_response(self.connector.get_connection().send_and_receive(message))
        if isinstance(result, Exception):
            raise result
        return result

    def discover(self) -> Any:
        return self.call("__list_targets__")

    def describe(self, target: str) -> Any:
        return self.call("__get_target__", [target])


async def serve_and_tell(self: WebSocketManager, ip: str, port: int) -> Any:
    server = await WebSocketManager.__bases__[1].serve(self, ip, port)
    say(ready=True)
    return server


def main() -> None:
    kind, address, *workers = sys.argv[1:]
    if kind == "client":
        client = Client(address)
        say(ready=True)
        serve({name: getattr(client, name) for name in ("call", "discover", "describe")})
    else:
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
        WebSocketManager.serve = serve_and_tell
        routes = [Route(target, entrypoint=WebSocketEntrypoint()) for target in (add, fail)]
        config = {
            "SERVICE_NAME": "theirs",
            "MAX_WORKERS": int(workers[0]) if workers else 3,
            "WEBSOCKET_IP": "127.0.0.1",
            "WEBSOCKET_PORT": int(address),
        }
        Runner(routes, config).start()
    os._exit(0)


if __name__ == "__main__":
    main()
