# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "nameko==2.14.1", "eventlet==0.41.3", "greenlet==3.5.6", "kombu==5.7.0", "amqp==5.4.2", "vine==5.1.0",
#   "dnspython==2.9.2", "werkzeug==3.1.9",
# ]
# ///
"""Nameko: `rpc_nameko.py serve SERVICE` serves `add`; `rpc_nameko.py call SERVICE COUNT` calls it from 16 greenlets.

The caller is a service as well, for that is how Nameko shares one queue of replies between callers.
"""

# ruff: noqa: E402  eventlet patches modules before others import them

from __future__ import annotations

import eventlet

eventlet.monkey_patch()

import json
import sys

from _meter import Meter
from nameko.containers import ServiceContainer
from nameko.rpc import RpcProxy, rpc
from nameko.standalone.rpc import ClusterRpcProxy

CALLERS = 16
CONFIG = {"AMQP_URI": "pyamqp://guest:guest@127.0.0.1", "max_workers": CALLERS}


def called(service: str) -> type:
    class Called:
        name = service

        @rpc
        def add(self, a: int, b: int) -> int:
            return a + b

    return Called


def caller(service: str) -> type:
    class Caller:
        name = f"{service}-caller"
        target = RpcProxy(service)

        @rpc
        def load(self, count: int) -> None:
            assert self.target.add(1, 2) == 3  # the first call connects
            meter = Meter(count)
            meter.begin()
            pool = eventlet.GreenPool(CALLERS)
            for _ in range(CALLERS):
                pool.spawn(self.calls, count // CALLERS)
            pool.waitall()
            meter.finish()

        def calls(self, count: int) -> None:
            for number in range(count):
                if self.target.add(number, 1) != number + 1:
                    raise AssertionError("a wrong answer")

    return Caller


def main(what: str, service: str, count: int) -> None:
    container = ServiceContainer((called if what == "serve" else caller)(service), config=CONFIG)
    container.start()
    print(json.dumps({"ready": True}), flush=True)
    if what == "call":
        with ClusterRpcProxy(CONFIG) as cluster:
            cluster[f"{service}-caller"].load(count)
        container.stop()
    else:
        eventlet.hubs.trampoline(sys.stdin.fileno(), read=True)  # until whoever started it closes the pipe
        container.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int((sys.argv[3:] or ["0"])[0]))
