# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "micro-framework==2.1.1", "kombu==5.7.0", "amqp==5.4.2", "vine==5.1.0", "loky==2.9.0", "prometheus-client==0.8.0",
#   "psutil==7.2.2", "websockets==8.1", "websocket-client==0.59.0",
# ]
# ///
"""micro-framework's standalone client: calls targets and dispatches events, as its standard input asks for."""

from __future__ import annotations

import argparse
import os
from functools import reduce
from typing import Any

from _lines import say, serve
from micro_framework.standalone import ufw_client


class Client:
    """What the test may ask for."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker

    def target(self, service: str, target: str) -> Any:
        """Return the proxy of a target; a dot leads to a method of a class."""
        return reduce(getattr, target.split("."), getattr(self.worker.amqp_rpc, service))

    def call(self, service: str, target: str, args: Any = (), kwargs: Any = None) -> Any:
        return self.target(service, target).call_async(*args, **(kwargs or {})).result(timeout=10)

    def call_many(self, service: str, target: str, arguments: list[list[Any]]) -> Any:
        futures = [self.target(service, target).call_async(*args) for args in arguments]
        return [future.result(timeout=10) for future in futures]

    def ask(self, service: str, target: str, args: Any = (), kwargs: Any = None) -> Any:
        """Call in this thread: only so does the error of a target that nobody has reach the caller."""
        return self.client(service).call_target(target, *args, **(kwargs or {}))

    def client(self, service: str) -> Any:
        return getattr(self.worker.amqp_rpc, service)._client

    def discover(self, service: str) -> Any:
        """Return what the service says about its targets."""
        return self.client(service).list_targets_async().result(timeout=10)

    def describe(self, service: str, target: str) -> Any:
        return self.client(service).get_target_async(target).result(timeout=10)

    def dispatch(self, event: str, payload: Any) -> None:
        """Publish an event of this client's own service."""
        self.worker.dispatch(event, payload)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=5672)
    arguments = parser.parse_args()
    config = {"SERVICE_NAME": arguments.name, "AMQP_URI": f"amqp://guest:guest@127.0.0.1:{arguments.port}"}
    with ufw_client(config) as worker:
        client = Client(worker)
        say(ready=True)
        names = ("call", "call_many", "ask", "discover", "describe", "dispatch")
        serve({name: getattr(client, name) for name in names})
    os._exit(0)  # its threads would keep the process


if __name__ == "__main__":
    main()
