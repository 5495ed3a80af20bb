"""What a link takes from a broker that says what a test wants."""

from __future__ import annotations

from typing import Any

import pytest
from kernel_amqp10.link.proton import Proton

from .fuzzing import Ours, serve

ROUNDS = 8


class Far:
    """The other side."""

    def __init__(self, proton: Any) -> None:
        self.module, self.sender = proton, None
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
        while (seen := self.collector.peek()) is not None:
            serve(self.module, seen, [])
            if seen.type is self.module.Event.LINK_FLOW and seen.link.is_sender:
                self.sender = seen.link
            self.collector.pop()


@pytest.mark.parametrize("said", [0, 100, 15_000])
def test_a_message_that_is_broken_off_is_dropped_and_the_next_one_comes(said: int, proton: Proton) -> None:
    """Whether nothing of it was sent, or a part, in one frame or in many."""
    ours, far = Ours(proton), Far(proton)
    far.talk(ours)
    link: Any = far.sender
    broken = link.delivery("1")
    link.send(b"x" * said)
    far.talk(ours)
    broken.abort()
    far.talk(ours)
    link.delivery("2")
    link.send(b"whole")
    link.advance()
    far.talk(ours)

    assert [bytes(arrived.data) for arrived in ours.arrived] == [b"whole"]
    assert ours.lost == []
