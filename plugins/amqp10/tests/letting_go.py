"""Ends conversations in every way, and lets go of what was used in them; `test_memory.py` runs it under valgrind.

A program of its own: what it may break is the process.
"""

from __future__ import annotations

import gc
import itertools
import sys
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from kernel_amqp10.link.proton import load
from kernel_amqp10.link.receiver import Arrived
from tests.fuzzing import Ours, messages, serve

ENDS: Final = ("we end the sessions", "the server ends the sessions", "we close", "the connection is lost")
ROUNDS: Final = 8


class Keeper(Ours):
    """Settles nothing by itself."""

    def _take(self, arrived: Arrived) -> None:
        self.arrived.append(arrived)


class Server:
    """The far side."""

    def __init__(self, proton: Any) -> None:
        self.module, self.sessions = proton, list[Any]()
        self.letters = [messages(proton)[0]] * 4
        self.transport = proton.Transport(proton.Transport.SERVER)
        self.connection, self.collector = proton.Connection(), proton.Collector()
        self.connection.collect(self.collector)
        self.transport.sasl().allowed_mechs("ANONYMOUS")
        self.transport.bind(self.connection)

    def talk(self, ours: Ours) -> None:
        """Take turns until nobody has anything to say."""
        for _ in range(ROUNDS):
            if data := ours.take_all():
                self.transport.push(data)
            self._answer()
            if (pending := self.transport.pending()) > 0:
                said = bytes(self.transport.peek(pending))
                self.transport.pop(len(said))
                ours.engine.receive(said)

    def _answer(self) -> None:
        event = self.module.Event
        while (seen := self.collector.peek()) is not None:
            serve(self.module, seen, self.letters)
            if seen.type is event.SESSION_REMOTE_OPEN:
                self.sessions.append(seen.session)
            elif seen.type is event.SESSION_REMOTE_CLOSE:
                seen.session.close()
            self.collector.pop()


def end(how: str, ours: Ours, server: Server) -> None:
    """Bring a conversation to its end."""
    if how == "we end the sessions":
        ours.engine.end_sessions()
    elif how == "the server ends the sessions":
        for session in server.sessions:
            session.close()
    elif how == "we close":
        ours.engine.close()
    else:
        ours.engine.receive_end()
    server.talk(ours)


def converse(proton: Any, how: str, *, settled: int, is_cycle: bool) -> None:
    """Take four messages, settle some, end, and let go of all but the engine, which goes last."""
    ours, server = Keeper(proton), Server(proton)
    server.talk(ours)
    assert len(ours.arrived) == 4
    for arrived in ours.arrived[:settled]:
        arrived.link.settle(arrived, arrived.link.accepted)
    end(how, ours, server)
    engine, held = ours.engine, [ours.receiver, ours.sender, ours.arrived]
    if is_cycle:
        held.append(held)  # only the garbage collector finds it, and lets go in an order of its own
    del ours, arrived, held
    gc.collect()
    del engine
    gc.collect()


if __name__ == "__main__":
    engine_of_amqp = load()
    for way, some, cyclic in itertools.product(ENDS, (1, 4), (False, True)):
        sys.stderr.write(f"{way}, {some} settled, cycle {cyclic}\n")
        converse(engine_of_amqp, way, settled=some, is_cycle=cyclic)
    sys.stdout.write("all let go\n")
