"""What ActiveMQ is told where messages come while others are given back; the server says what a test wants."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing
from kernel_stomp.broker.activemq import ActiveSupply
from kernel_stomp.broker.dialect import Wish
from kernel_stomp.core import Frame
from kernel_stomp.link.receipts import Receipt

from .far_side import Server, linked

WISH = Wish(queue="q", spec=None, bindings=(), prefetch=2)


def came(number: int, *, slot: int = 1) -> Frame:
    return Frame("MESSAGE", {"subscription": f"slot-{slot}", "ack": f"m-{number}"}, b"")


def left(server: Server) -> list[str]:
    """The subscriptions that the server was told to end."""
    return [frame.headers["id"] for frame in server.heard if frame.command == "UNSUBSCRIBE"]


@pytest.mark.parametrize(
    ("taken", "ended"), [([came(1)], ["slot-2", "slot-1"]), ([came(1), came(2)], ["slot-2"]), ([came(2)], ["slot-2"])]
)
async def test_a_subscription_ends_at_once_unless_it_has_brought_another_message_since(
    taken: list[Frame], ended: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    """Also while the answer to the copy of the first is not here: to end it would give the second one back."""
    server, supply, written = Server(), ActiveSupply(WISH), list[Receipt]()
    async with trio.open_nursery() as nursery, linked(server) as link:
        async with trio.open_nursery() as beginning:
            beginning.start_soon(server.answer)
            await supply.begin(link)
            beginning.cancel_scope.cancel()
        nursery.start_soon(partial(server.answer, probes=False, others=False))
        nursery.start_soon(partial(supply.replace, came(1), Frame("SEND", {}, b""), on_written=written.append))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(partial(supply.leave, list, taken=taken))
        await trio.testing.wait_all_tasks_blocked()
        for receipt in (2, 3):
            await server.say(f"RECEIPT\nreceipt-id:{receipt}\n\n\0".encode())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert len(written) == 1
    assert sorted(left(server)) == sorted(ended)
