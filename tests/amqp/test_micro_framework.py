"""micro-framework 2.1 on the other side: calls both ways, what it asks about targets, errors, and events both ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, final

import attrs
import pytest

from kernel import Envelope, answers, new_id
from kernel.errors import RemoteError, UnroutableError
from kernel.testing import RunningService

from ._peer import Peer
from ._service import AS_NAMEKO, Inbox, serving

pytestmark = pytest.mark.slow

EXCHANGE: Final = "ufw-rpc"
TARGETS: Final = ("add", "echo", "fail", "Desk.order", "_broadcast.*")


@final
@attrs.frozen
class Names:
    """What this file's services are called."""

    micro: str
    caller: str
    """micro-framework's client, which publishes events as a service of that name."""
    ours: str


@pytest.fixture(scope="module")
def names(mark: str) -> Names:
    return Names(*(f"{mark}{word}{new_id()[:4]}" for word in ("micro", "caller", "ours")))


@pytest.fixture(scope="module")
def micro(start_lasting_peer: Callable[..., Peer], names: Names) -> Peer:
    """A service of micro-framework that listens to our event `hi`."""
    return start_lasting_peer("micro_service.py", "--name", names.micro, "--listen", names.ours, "hi")


@pytest.fixture(scope="module")
def client(start_lasting_peer: Callable[..., Peer], names: Names) -> Peer:
    """A client of micro-framework."""
    return start_lasting_peer("micro_client.py", "--name", names.caller)


class Ours:
    """What we offer."""

    @answers("*.add")
    async def add(self, a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b

    @answers("*.echo")
    async def echo(self, payload: Any) -> Any:
        return payload

    @answers("*.fail")
    async def fail(self, text: str) -> None:
        raise ValueError(text)

    @answers("*.Desk.order")
    async def order(self, sku: str, quantity: int = 1) -> dict[str, Any]:
        """Take an order."""
        return {"sku": sku, "quantity": quantity}


def open_ours(
    names: Names, *, bindings: Sequence[str] = TARGETS, exceptions: Sequence[str] = ()
) -> AbstractAsyncContextManager[RunningService]:
    common = {"protocol": "ufw", "exchange": EXCHANGE}
    patterns = [f"{names.ours}.{target}" for target in bindings]
    return serving(
        {"ours": Ours},
        name=names.ours,
        drivers={"rpc": {"plugin": "rpc_client", "bind_replies": True, **common}},
        dispatchers={
            "ours": {
                **common,
                "queue": f"rpc-{names.ours}-{len(patterns)}",
                "bindings": patterns,
                "reply_exchange": EXCHANGE,
                **AS_NAMEKO,
            }
        },
        more_workers={
            "targets": {"use": "ufw_targets", "dispatcher": "ours", "config": {"targets": [f"{__name__}:Ours"]}}
        },
        protocols={"ufw": {"plugin": "ufw_rpc", "exceptions": list(exceptions)}},
    )


# --- it calls us ----------------------------------------------------------------------------------------------------


async def test_micro_framework_calls_us(client: Peer, names: Names) -> None:
    async with open_ours(names):
        call = {"do": "call", "service": names.ours}
        assert await client.get(**call, target="add", args=[1], kwargs={"b": 3}) == 4
        assert await client.get(**call, target="add", args=[1]) == 2
        assert await client.get(**call, target="Desk.order", args=["tea"], kwargs={"quantity": 3}) == {
            "sku": "tea",
            "quantity": 3,
        }
        assert await client.get(**call, target="echo", args=[{"text": "Grüße", "lines": [1, None]}]) == {
            "text": "Grüße",
            "lines": [1, None],
        }
        many = {"service": names.ours, "target": "add", "arguments": [[n, n] for n in range(8)]}
        assert await client.get("call_many", **many) == [2 * n for n in range(8)]


async def test_micro_framework_gets_our_errors(client: Peer, names: Names) -> None:
    async with open_ours(names):
        failed = await client.ask("call", service=names.ours, target="fail", args=["no tea"])
        wrong = await client.ask("call", service=names.ours, target="add", args=[1, 2, 3])

    assert (failed["error"], failed["args"]) == ("ValueError", ["no tea"])
    assert wrong["error"] == "TypeError"


async def test_micro_framework_hears_of_an_unknown_target_from_the_broker_or_from_us(
    client: Peer, names: Names
) -> None:
    unknown = {"service": names.ours, "target": "nothing"}
    async with open_ours(names):
        unbound = await client.ask("ask", **unknown)
    async with open_ours(names, bindings=["#"]):
        answered = await client.ask("call", **unknown)

    assert unbound["error"] == answered["error"] == "RPCTargetDoesNotExist"
    assert "nothing" in answered["text"]


async def test_micro_framework_discovers_our_targets(client: Peer, names: Names) -> None:
    async with open_ours(names):
        targets = await client.get("discover", service=names.ours)
        one = await client.get("describe", service=names.ours, target="Desk.order")

    assert {target["target"] for target in targets} == {"add", "echo", "fail", "Desk.order"}
    assert one == {"target": "Desk.order", "args": ["sku"], "kwargs": ["quantity"], "docstring": "Take an order."}


# --- we call it -----------------------------------------------------------------------------------------------------


async def test_we_call_micro_framework_as_a_function(micro: Peer, names: Names) -> None:
    await micro.wait_ready()
    async with open_ours(names) as service:
        remote = getattr(service.resource("driver/rpc"), names.micro)
        assert await remote.add(1, b=3) == 4
        assert await remote.echo("a", x=None) == {"args": ["a"], "kwargs": {"x": None}}
        assert await remote.Desk.order("tea", quantity=2) == {"sku": "tea", "quantity": 2}
        targets = await service.call("rpc", f"{names.micro}.__list_targets__", [])

    assert {target["target"] for target in targets} == {"add", "echo", "fail", "emit", "Desk.order"}


async def test_its_errors_are_remote_errors_or_those_of_the_list(micro: Peer, names: Names) -> None:
    await micro.wait_ready()
    async with open_ours(names) as service:
        with pytest.raises(RemoteError, match="no tea") as raised:
            await service.call("rpc", f"{names.micro}.fail", ["no tea"])
        assert raised.value.kind == "ValueError"
        with pytest.raises(RemoteError) as raised:
            await service.call("rpc", f"{names.micro}.add", [1, 2, 3])
        assert raised.value.kind == "TypeError"
        with pytest.raises(UnroutableError):
            await service.call("rpc", f"{names.micro}.nothing", [])
    async with open_ours(names, exceptions=["builtins:ValueError"]) as service:
        with pytest.raises(ValueError, match=r"^no tea$"):
            await service.call("rpc", f"{names.micro}.fail", ["no tea"])


# --- events ---------------------------------------------------------------------------------------------------------


async def test_events_pass_both_ways(micro: Peer, client: Peer, names: Names) -> None:
    """micro-framework declares every exchange of events auto-delete."""
    inbox = Inbox()

    async def heard(payload: Any, envelope: Envelope) -> None:
        inbox.put((envelope.subject, payload))

    await micro.wait_ready()
    exchanges = {f"{name}.events": {"auto_delete": True} for name in (names.ours, names.caller, names.micro)}
    events = {"plugin": "publisher", "protocol": "json", "exchange": f"{names.ours}.events"}
    consumers = {
        f"heard_{number}": {
            "protocol": "json",
            "exchange": f"{name}.events",
            "queue": f"{name}.sent__{names.ours}.heard",
            "bindings": ["sent"],
        }
        for number, name in enumerate((names.caller, names.micro))
    }
    workers = dict.fromkeys(consumers, heard)
    async with serving(
        workers, drivers={"events": events}, dispatchers=consumers, broker={"exchanges": exchanges}
    ) as service:
        await service.publish("events", "hi", {"text": "Grüße"})
        await client.get("dispatch", event="sent", payload={"n": 1})
        await client.get("call", service=names.micro, target="emit", args=["sent", {"n": 2}])
        line = await micro.line(lambda line: "event" in line)
        await inbox.get(2)

    assert line["event"] == {"text": "Grüße"}
    assert inbox.seen == [("sent", {"n": 1}), ("sent", {"n": 2})]
