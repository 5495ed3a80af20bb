# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "nameko==2.14.1", "eventlet==0.41.3", "greenlet==3.5.6", "kombu==5.7.0", "amqp==5.4.2", "vine==5.1.0",
#   "dnspython==2.9.2", "werkzeug==3.1.9",
# ]
# ///
"""A Nameko service: serves calls, handles events and tells what came, until its standard input is closed."""

# ruff: noqa: E402  eventlet patches modules before others import them

from __future__ import annotations

import warnings

warnings.simplefilter("ignore")  # eventlet says that it is deprecated

import eventlet

eventlet.monkey_patch(os=False)  # with it, two greenlets could not write to one pipe

import argparse
import os
import sys
from typing import Any

from _lines import say
from nameko.containers import ServiceContainer
from nameko.events import BROADCAST, SERVICE_POOL, SINGLETON, EventDispatcher, event_handler
from nameko.extensions import DependencyProvider
from nameko.rpc import RpcProxy, rpc

KINDS = {"pool": SERVICE_POOL, "singleton": SINGLETON, "broadcast": BROADCAST}


class UnpaidError(Exception):
    """An exception of this service alone."""


class WorkerContext(DependencyProvider):
    """Gives the service what Nameko knows about the call."""

    def get_dependency(self, worker_ctx: Any) -> Any:
        return worker_ctx


def context_of(worker: Any) -> dict[str, Any]:
    return {"call_id": worker.call_id, "stack": worker.call_id_stack, "data": worker.data}


def service(name: str, other: str, listens: list[list[str]]) -> type:
    """Return the class of a service that handles the events `listens`: source, event and kind of each."""

    class Service:
        worker = WorkerContext()
        emit_event = EventDispatcher()
        other_service = RpcProxy(other)

        @rpc
        def add(self, a: int, b: int = 1) -> int:
            return a + b

        @rpc
        def echo(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return {"args": args, "kwargs": kwargs}

        @rpc
        def context(self) -> dict[str, Any]:
            return context_of(self.worker)

        @rpc
        def fail(self, text: str) -> None:
            raise ValueError(text)

        @rpc
        def unpaid(self, number: int) -> None:
            raise UnpaidError(number, "euro")

        @rpc
        def strange(self) -> object:
            return object()

        @rpc
        def emit(self, event: str, payload: Any) -> dict[str, Any]:
            self.emit_event(event, payload)
            return context_of(self.worker)

        @rpc
        def relay(self, method: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
            result = getattr(self.other_service, method)(*args, **kwargs)
            return {"result": result, **context_of(self.worker)}

    Service.name = name
    for source, event, kind in listens:
        add_handler(Service, source, event, kind)
    return Service


def add_handler(cls: type, source: str, event: str, kind: str) -> None:
    def handle(self: Any, payload: Any) -> None:
        say(event=event, kind=kind, payload=payload, **context_of(self.worker))

    method = f"on_{kind}"
    handle.__name__ = method
    reliable = kind != "broadcast"
    setattr(cls, method, event_handler(source, event, handler_type=KINDS[kind], reliable_delivery=reliable)(handle))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=5672)
    parser.add_argument("--rpc-exchange", default="nameko-rpc")
    parser.add_argument("--calls", default="nobody", help="the service that `relay` calls")
    parser.add_argument("--listen", nargs=3, action="append", default=[], metavar=("SOURCE", "EVENT", "KIND"))
    parser.add_argument("--auto-delete", action="store_true", help="declare exchanges of events as Nameko 2.12 did")
    arguments = parser.parse_args()
    config = {
        "AMQP_URI": f"pyamqp://guest:guest@127.0.0.1:{arguments.port}",
        "rpc_exchange": arguments.rpc_exchange,
        **({"AUTO_DELETE_EVENT_EXCHANGES": True} if arguments.auto_delete else {}),
    }
    container = ServiceContainer(service(arguments.name, arguments.calls, arguments.listen), config=config)
    container.start()
    say(ready=arguments.name)
    eventlet.hubs.trampoline(sys.stdin.fileno(), read=True)
    os._exit(0)  # its stop takes seconds


if __name__ == "__main__":
    main()
