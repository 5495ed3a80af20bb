# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "nameko==2.14.1", "eventlet==0.41.3", "greenlet==3.5.6", "kombu==5.7.0", "amqp==5.4.2", "vine==5.1.0",
#   "dnspython==2.9.2", "werkzeug==3.1.9",
# ]
# ///
"""Nameko's standalone client: calls services and dispatches events, as the lines of its standard input ask for."""

# ruff: noqa: E402  the warning that eventlet gives when it is imported is off before

from __future__ import annotations

import argparse
import warnings
from typing import Any

warnings.simplefilter("ignore")  # eventlet says that it is deprecated

from _lines import say, serve
from nameko.standalone.events import event_dispatcher
from nameko.standalone.rpc import ClusterRpcProxy


class Client:
    """What the test may ask for."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def call(
        self,
        service: str,
        method: str,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        context: dict[str, Any] | None = None,
    ) -> Any:
        with ClusterRpcProxy(self.config, context_data=context, timeout=10) as cluster:
            return getattr(cluster[service], method)(*args, **(kwargs or {}))

    def call_many(self, service: str, method: str, arguments: list[list[Any]]) -> Any:
        """Send all requests before the first answer is read."""
        with ClusterRpcProxy(self.config, timeout=10) as cluster:
            replies = [getattr(cluster[service], method).call_async(*args) for args in arguments]
            return [reply.result() for reply in replies]

    def dispatch(self, source: str, event: str, payload: Any) -> None:
        event_dispatcher(self.config)(source, event, payload)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5672)
    parser.add_argument("--rpc-exchange", default="nameko-rpc")
    parser.add_argument("--auto-delete", action="store_true", help="declare exchanges of events as Nameko 2.12 did")
    arguments = parser.parse_args()
    client = Client({
        "AMQP_URI": f"pyamqp://guest:guest@127.0.0.1:{arguments.port}",
        "rpc_exchange": arguments.rpc_exchange,
        **({"AUTO_DELETE_EVENT_EXCHANGES": True} if arguments.auto_delete else {}),
    })
    say(ready=True)
    serve({"call": client.call, "call_many": client.call_many, "dispatch": client.dispatch})


if __name__ == "__main__":
    main()
