# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "micro-framework==2.1.1", "kombu==5.7.0", "amqp==5.4.2", "vine==5.1.0", "loky==2.9.0", "prometheus-client==0.8.0",
#   "psutil==7.2.2", "websockets==8.1", "websocket-client==0.59.0",
# ]
# ///
"""A micro-framework service: serves calls, handles events and tells what came, until its standard input is closed."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from typing import Any

from _lines import say
from micro_framework import Route, Runner
from micro_framework.amqp.dependencies import Producer
from micro_framework.amqp.entrypoints import EventListener, RPCListener
from micro_framework.amqp.manager import AMQPRPCManager
from micro_framework.dependencies import inject


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def echo(*args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"args": args, "kwargs": kwargs}


def fail(text: str) -> None:
    raise ValueError(text)


class Desk:
    """A class, so that its targets have a dot in their names."""

    def order(self, sku: str, quantity: int = 1) -> dict[str, Any]:
        """Take an order."""
        return {"sku": sku, "quantity": quantity}


@inject(dispatch=Producer())
def emit(event: str, payload: Any, dispatch: Any) -> None:
    dispatch(event, payload)


def hear(payload: Any) -> None:
    say(event=payload)


def tell_ready(*_: Any, **__: Any) -> None:
    say(ready=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=5672)
    parser.add_argument("--listen", nargs=2, action="append", default=[], metavar=("SOURCE", "EVENT"))
    arguments = parser.parse_args()
    targets = [Route(target, RPCListener()) for target in (add, echo, fail, emit)]
    routes = [*targets, Route(Desk, RPCListener(), method_name="order")]
    routes += [Route(hear, EventListener(source, event)) for source, event in arguments.listen]
    config = {
        "SERVICE_NAME": arguments.name,
        "AMQP_URI": f"amqp://guest:guest@127.0.0.1:{arguments.port}",
        "MAX_WORKERS": 10,
    }
    AMQPRPCManager.on_consume_ready = tell_ready
    threading.Thread(target=wait_for_the_end, daemon=True).start()
    Runner(routes, config).start()


def wait_for_the_end() -> None:
    """End the process: the framework's own stop waits for threads that no longer come to an end on this Python."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
