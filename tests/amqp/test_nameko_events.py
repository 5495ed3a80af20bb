"""Nameko 2.14 on the other side of events: all kinds of handlers, exchanges that go away or stay, either side first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, final

import attrs
import pytest
import trio

from kernel import Envelope, answers
from kernel.errors import ConflictError, StartupError
from kernel.testing import RunningService

from ._errors import cause_of
from ._peer import Peer
from ._service import AS_NAMEKO, Inbox, serving

pytestmark = pytest.mark.slow


@final
@attrs.frozen
class Names:
    """What one test's services are called."""

    desk: str
    """Nameko's."""
    ours: str
    rpc: str
    """The exchange of calls."""

    @property
    def queue(self) -> str:
        """The queue that Nameko's pool of `on_pool` has for our event `hi`."""
        return f"evt-{self.ours}-hi--{self.desk}.on_pool"


@pytest.fixture
def names(unique: Callable[[str], str]) -> Names:
    return Names(*(unique(word) for word in ("desk", "ours", "rpc")))


@pytest.fixture
def start_desk(start_peer: Callable[..., Peer], names: Names) -> Callable[..., Peer]:
    """Starts Nameko's service, which listens to our event `hi`."""

    def start(*kinds: str, auto_delete: bool = False) -> Peer:
        listens = [word for kind in kinds for word in ("--listen", names.ours, "hi", kind)]
        options = ["--auto-delete"] if auto_delete else []
        return start_peer("nameko_service.py", "--name", names.desk, "--rpc-exchange", names.rpc, *listens, *options)

    return start


def open_ours(
    names: Names, inbox: Inbox, *, auto_delete: Mapping[str, bool] | None = None, **consumer: Any
) -> AbstractAsyncContextManager[RunningService]:
    """Open a service that hears all events of Nameko's, publishes its own, and publishes `hi` when it is called."""

    class Calls:
        def __init__(self, events: Any) -> None:
            self.events = events

        @answers("*.tell")
        async def tell(self, text: str) -> str:
            await self.events.publish("hi", {"text": text})
            return text

    async def heard(payload: Any, envelope: Envelope) -> None:
        inbox.put((envelope.subject, payload, dict(envelope.headers)))

    exchanges = {f"{name}.events": {"auto_delete": value} for name, value in (auto_delete or {}).items()}
    hearing = {
        "exchange": f"{names.desk}.events",
        "queue": f"{names.ours}.heard",
        "bindings": ["#"],
        "dead_letters": "",
    }
    calling = {"exchange": names.rpc, "queue": f"rpc-{names.ours}", "bindings": [f"{names.ours}.*"], **AS_NAMEKO}
    return serving(
        {"heard": heard, "calls": Calls},
        name=names.ours,
        broker={"exchanges": exchanges},
        drivers={"events": {"plugin": "publisher", "protocol": "nameko_events", "exchange": f"{names.ours}.events"}},
        dispatchers={
            "heard": {"protocol": "nameko_events", **hearing, **consumer},
            "calls": {"protocol": "nameko_rpc", "reply_exchange": names.rpc, **calling},
        },
    )


async def test_every_kind_of_handler_of_nameko_gets_our_event(names: Names, start_desk: Callable[..., Peer]) -> None:
    desk = start_desk("pool", "singleton", "broadcast")
    await desk.wait_ready()
    async with open_ours(names, Inbox()) as service:
        await service.publish("events", "hi", {"text": "Grüße", "n": [1, None]})
        lines = [await desk.line(lambda line: line.get("event") == "hi") for _ in range(3)]

    assert {line["kind"] for line in lines} == {"pool", "singleton", "broadcast"}
    assert all(line["payload"] == {"text": "Grüße", "n": [1, None]} for line in lines)
    assert all(line["stack"] == [line["call_id"]] for line in lines)


async def test_we_hear_a_service_of_nameko_and_its_standalone_dispatcher(
    names: Names, start_desk: Callable[..., Peer], start_peer: Callable[..., Peer]
) -> None:
    inbox = Inbox()
    client = start_peer("nameko_client.py", "--rpc-exchange", names.rpc)
    desk = start_desk()
    await desk.wait_ready()
    async with open_ours(names, inbox):
        told = await client.get("call", service=names.desk, method="emit", args=["paid", {"sum": 3}])
        await client.get("dispatch", source=names.desk, event="sent", payload="Grüße")
        seen = await inbox.get(2)

    encoding = {"amqp-content-encoding": "utf-8"}  # which kombu says of every text
    assert seen[0] == ("paid", {"sum": 3}, {"nameko.call_id_stack": told["stack"], **encoding})
    assert seen[1] == ("sent", "Grüße", encoding)


async def test_an_event_that_we_publish_in_a_call_continues_its_chain(
    names: Names, start_desk: Callable[..., Peer], start_peer: Callable[..., Peer]
) -> None:
    client = start_peer("nameko_client.py", "--rpc-exchange", names.rpc)
    desk = start_desk("pool")
    await desk.wait_ready()
    async with open_ours(names, Inbox()):
        context = {"call_id_stack": ["a.b.c"], "language": "de"}
        await client.get("call", service=names.ours, method="tell", args=["x"], context=context)
        line = await desk.line(lambda line: line.get("event") == "hi")

    first, second, third, fourth = line["stack"]
    assert first == "a.b.c"
    assert second.startswith("standalone_rpc_proxy.call.")
    assert third.startswith(f"{names.ours}.tell.")
    assert fourth == line["call_id"]
    assert (line["payload"], line["data"]) == ({"text": "x"}, {"language": "de"})


@pytest.mark.parametrize("auto_delete", [False, True], ids=["exchanges that stay", "exchanges that go away"])
@pytest.mark.parametrize("nameko_first", [True, False], ids=["Nameko first", "we first"])
async def test_either_side_may_declare_the_exchange_first(
    names: Names, start_desk: Callable[..., Peer], pika: Peer, auto_delete: bool, nameko_first: bool
) -> None:
    """Nameko declared exchanges of events auto-delete up to 2.12, and declares them so if it is configured to."""
    inbox = Inbox()
    both = dict.fromkeys((names.desk, names.ours), auto_delete)
    desk = start_desk("pool", auto_delete=auto_delete) if nameko_first else None
    if desk is not None:
        await desk.wait_ready()
    async with open_ours(names, inbox, auto_delete=both) as service:
        if desk is None:
            desk = start_desk("pool", auto_delete=auto_delete)
            await desk.wait_ready()
        await service.publish("events", "hi", 1)
        line = await desk.line(lambda line: line.get("event") == "hi")
        await pika.get(
            "publish", exchange=f"{names.desk}.events", routing_key="hi", body="2", content_type="application/json"
        )
        await inbox.get(1)

    assert line["payload"] == 1
    assert inbox.seen == [("hi", 2, {})]


async def test_an_exchange_that_nameko_declared_otherwise_is_a_conflict_that_names_both_values(
    names: Names, start_desk: Callable[..., Peer]
) -> None:
    desk = start_desk("pool", auto_delete=True)
    await desk.wait_ready()
    publisher = {"plugin": "publisher", "protocol": "nameko_events", "exchange": f"{names.ours}.events"}
    with pytest.raises(StartupError) as raised:
        async with serving({}, drivers={"events": {**publisher, "restart": {"policy": "never"}}}):
            raise AssertionError("it must not become ready")

    conflict = cause_of(raised.value, ConflictError)
    assert f"{names.ours}.events" in str(conflict)
    assert "'auto_delete'" in str(conflict)
    assert "'true'" in str(conflict)
    assert "'false'" in str(conflict)


async def test_an_exchange_that_nameko_declared_otherwise_can_be_adopted(
    names: Names, start_desk: Callable[..., Peer]
) -> None:
    desk = start_desk("pool", auto_delete=True)
    await desk.wait_ready()
    publisher = {"plugin": "publisher", "protocol": "nameko_events", "exchange": f"{names.ours}.events"}
    broker = {"exchanges": {f"{names.ours}.events": {"adopt": True}}}
    async with serving({}, drivers={"events": publisher}, broker=broker) as service:
        await service.publish("events", "hi", 1)
        assert (await desk.line(lambda line: line.get("event") == "hi"))["payload"] == 1


@pytest.mark.parametrize("nameko_first", [True, False], ids=["Nameko first", "we first"])
async def test_we_share_a_service_pool_with_nameko(
    names: Names, start_desk: Callable[..., Peer], pika: Peer, nameko_first: bool
) -> None:
    """Both consume from one queue: every event is handled once, by one of the two."""
    inbox = Inbox()

    async def pool(payload: int) -> None:
        inbox.put(payload)
        await trio.sleep(0.01)

    desk = start_desk("pool") if nameko_first else None
    if desk is not None:
        await desk.wait_ready()
    table = {"protocol": "nameko_events", "exchange": f"{names.ours}.events", "queue": names.queue, "bindings": ["hi"]}
    publisher = {"plugin": "publisher", "protocol": "nameko_events", "exchange": f"{names.ours}.events"}
    dispatchers = {"pool": {**table, **AS_NAMEKO, "concurrency": 2}}
    async with serving({"pool": pool}, drivers={"events": publisher}, dispatchers=dispatchers) as service:
        if desk is None:
            desk = start_desk("pool")
            await desk.wait_ready()
        for number in range(40):
            await service.publish("events", "hi", number)
        theirs: list[int] = []
        with trio.fail_after(10):
            while len(inbox.seen) + len(theirs) < 40:
                theirs += [line["payload"] for line in await desk.take("event")]

    assert sorted([*inbox.seen, *theirs]) == list(range(40))
    assert inbox.seen
    assert theirs


async def test_we_are_broadcast_to_as_every_instance_of_nameko_is(names: Names, pika: Peer) -> None:
    """Two of our services, each with an exclusive queue of its own, get every event."""
    inboxes = Inbox(), Inbox()
    options = {"options": {"exclusive": True}}
    one, two = (
        open_ours(
            attrs.evolve(names, ours=f"{names.ours}{n}"), inbox, queue=f"{names.desk}.{n}", durable=False, **options
        )
        for n, inbox in enumerate(inboxes)
    )
    async with one, two:
        await pika.get("publish", exchange=f"{names.desk}.events", routing_key="hi", body="1")
        assert [(await inbox.get(1))[0][1] for inbox in inboxes] == [1, 1]
