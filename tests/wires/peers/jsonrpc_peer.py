# /// script
# requires-python = ">=3.11"
# dependencies = ["websockets==15.0.1", "jsonrpcclient==4.0.3", "json-rpc==1.15.0"]
# ///
"""JSON-RPC by people who know nothing of us: `websockets` carries it, `jsonrpcclient` asks, `json-rpc` answers."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

import jsonrpcclient
from _lines import say, serve
from jsonrpc import Dispatcher, JSONRPCResponseManager
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websockets


class Client:
    """What the test may ask for."""

    def __init__(self) -> None:
        self.socket: ClientConnection | None = None

    def connect(self, url: str) -> None:
        self.socket = connect(url)

    def ask(self, method: str, params: Any) -> Any:
        params = tuple(params) if isinstance(params, list) else params
        return self._told(jsonrpcclient.parse(self._sent(jsonrpcclient.request(method, params=params))))

    def ask_together(self, calls: list[list[Any]]) -> Any:
        requests = [jsonrpcclient.request(method, params=tuple(params)) for method, params in calls]
        return [self._told(one) for one in jsonrpcclient.parse(self._sent(requests))]

    def notify(self, method: str, params: list[Any]) -> None:
        assert self.socket is not None
        self.socket.send(jsonrpcclient.notification_json(method, params=tuple(params)))

    def next(self) -> Any:
        assert self.socket is not None
        return json.loads(self.socket.recv(timeout=10))

    def _sent(self, request: Any) -> Any:
        assert self.socket is not None
        self.socket.send(json.dumps(request))
        return self.next()

    def _told(self, answer: Any) -> Any:
        if isinstance(answer, jsonrpcclient.Ok):
            return {"ok": answer.result}
        return {"code": answer.code, "message": answer.message}


dispatcher = Dispatcher()


@dispatcher.add_method
def add(a: int, b: int = 1) -> int:
    return a + b


@dispatcher.add_method
def fail() -> None:
    raise ValueError("the reason")


def answer(socket: ServerConnection) -> None:
    for text in socket:
        say(got=json.loads(text), protocol=socket.subprotocol)
        reply = JSONRPCResponseManager.handle(text, dispatcher)
        if reply is not None:
            socket.send(reply.json)


def main() -> None:
    if sys.argv[1:] == ["--serve"]:
        with serve_websockets(answer, "127.0.0.1", 0) as server:
            threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
            say(ready=True)
            say(port=server.socket.getsockname()[1])
            server.serve_forever()
    else:
        client = Client()
        say(ready=True)
        serve({name: getattr(client, name) for name in ("connect", "ask", "ask_together", "notify", "next")})
    os._exit(0)


if __name__ == "__main__":
    main()
