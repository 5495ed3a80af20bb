# /// script
# requires-python = ">=3.11"
# dependencies = ["aspyx-event==0.9.0", "aspyx-service==0.10.4", "python-qpid-proton==0.40.0", "stomp-py==9.0.0"]
# ///
"""aspyx-event 0.9.0: sends and hears one event, as a program that is written after its README does.

    aspyx_peer.py amqp|stomp PORT EVENT [--listen [--repaired]] [--send WORLD COUNT]

It needs an aspyx-service of its time: later ones lack what it imports. As it is, its STOMP provider hands what comes to the
event and not to the listener, which raises AttributeError; `--repaired` hands it to the listener.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aspyx.di import Environment, create, module
from aspyx_event import (
    AMQPProvider,
    EventListener,
    EventManager,
    EventModule,
    StompProvider,
    event,
    event_amqp,
    event_listener,
    event_stomp,
)

for noisy in (event_amqp, event_stomp):
    vars(noisy)["print"] = lambda *what: sys.stderr.write(f"{what}\n")  # its standard output is for the test
sys.path.append(str(Path(__file__).parents[2] / "amqp" / "peers"))
from _lines import say, serve  # noqa: E402  what is above it is for this


@dataclass
class HelloEvent:
    world: str
    count: int


class Hears(EventListener[HelloEvent]):
    """Says what it hears."""

    def on(self, event: HelloEvent) -> None:
        say(heard=[event.world, event.count])


class Repaired(StompProvider):
    """The provider, which hands what comes to the listener."""

    def handle(self, envelope: Any, event_descriptor: Any) -> None:
        for listener in EventManager.event_listeners.values():
            self.manager.dispatch_event(listener, envelope.get_body())


class Reporting(StompProvider):
    """The provider as it is; stomp.py would keep what it raises to its log."""

    def on_message(self, frame: Any) -> None:
        try:
            super().on_message(frame)
        except Exception as error:  # noqa: BLE001  the test says which error it expects
            say(raised=type(error).__name__)


def provider_of(transport: str, port: int, *, repaired: bool) -> Any:
    where: dict[str, Any] = {"host": "127.0.0.1", "port": port, "user": "guest", "password": "guest"}
    if transport == "amqp":
        return AMQPProvider("peer", **where)
    return (Repaired if repaired else Reporting)(**where)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("transport", choices=["amqp", "stomp"])
    parser.add_argument("port", type=int)
    parser.add_argument("event")
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--repaired", action="store_true")
    parser.add_argument("--send", nargs=2, default=())
    given = parser.parse_args()
    event(name=given.event)(HelloEvent)
    if given.listen:
        event_listener(HelloEvent, name="Hears")(Hears)

    @module(imports=[EventModule])
    class Module:
        @create()
        def create_event_manager(self) -> EventManager:
            return EventManager(provider_of(given.transport, given.port, repaired=given.repaired))

    manager = Environment(Module).get(EventManager)
    if given.send:
        manager.send_event(HelloEvent(given.send[0], int(given.send[1])))
    say(ready=True)
    serve({})


if __name__ == "__main__":
    main()
