"""Events that are sent and heard in a session; nothing here touches a header."""

from __future__ import annotations

from dataclasses import dataclass

import trio
from kernel_events import Events, event, listens
from session import SESSION


@event()
@dataclass
class HelloEvent:
    """Somebody says hello."""

    world: str


class Host:
    """Says hello in one session after the other, and once outside of any."""

    def __init__(self, events: Events) -> None:
        self.events = events

    async def run(self) -> None:
        """Say hello, and end the service."""
        for session in ("ann", "bob", ""):
            SESSION.set(session)
            await self.events.send(HelloEvent("world"))


class Greeter:
    """Answers whoever says hello."""

    @listens(HelloEvent)
    async def on_hello(self, event: HelloEvent) -> None:
        """Print who it was."""
        await trio.lowlevel.checkpoint()
        print(f"hello {event.world}, says {SESSION.get()}", flush=True)  # noqa: T201  it is all that it does
