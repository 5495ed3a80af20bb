"""What a link takes from a broker that says what a test wants."""

from __future__ import annotations

from typing import Any

import pytest
from kernel_amqp10.link.proton import Proton
from kernel_amqp10.link.receiver import Arrived

from .fuzzing import SETTINGS, Ours, serve

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
            if data := self.take_all():
                ours.engine.receive(data)

    def take_all(self) -> bytes:
        """Return what it has to say."""
        said = b""
        while (pending := self.transport.pending()) > 0:
            said += bytes(self.transport.peek(pending))
            self.transport.pop(pending)
        return said

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


class Keeps(Ours):
    """Settles nothing by itself."""

    def _take(self, arrived: Arrived) -> None:
        self.arrived.append(arrived)


@pytest.mark.parametrize("size", [10, 15_000], ids=["in one frame", "in many frames"])
@pytest.mark.parametrize("unasked", [1, 7, 10])
def test_what_comes_unasked_is_taken_and_brings_no_more(unasked: int, size: int, proton: Proton) -> None:
    """As from RabbitMQ 3. A credit below none has no sign on the wire: it would be read as four billion."""
    ours, far = Keeps(proton), Far(proton)
    far.talk(ours)
    link: Any = far.sender
    for number in range(link.credit):
        link.delivery(str(number))
        link.send(b"x" * size)
        link.advance()
    sent = far.take_all()
    ours.receiver.flow(-unasked)
    ours.engine.receive(sent)
    far.talk(ours)

    assert len(ours.arrived) == 10
    assert link.credit <= 0
    for number, arrived in enumerate(ours.arrived, 1):
        arrived.link.settle(arrived, arrived.link.accepted)
        arrived.link.flow(1)
        far.talk(ours)
        assert link.credit == max(0, number - unasked)


@pytest.mark.parametrize("said", [0, 100, 15_000, 21_000])
def test_what_is_not_handed_on_takes_no_credit_along(said: int, proton: Proton) -> None:
    """Broken off, or too large: as many of them as there was credit for, and the link takes as many as before."""
    ours, far = Ours(proton), Far(proton)
    far.talk(ours)
    link: Any = far.sender
    granted = link.credit
    for number in range(granted):
        one = link.delivery(str(number))
        link.send(b"x" * said)
        if said > SETTINGS.max_message_bytes:
            link.advance()
        far.talk(ours)
        one.abort()
        far.talk(ours)

    assert link.credit == granted
    assert ours.arrived == []
