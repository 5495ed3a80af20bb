"""micro-framework 2.1.1 on the other side of a websocket: calls both ways, what it asks about targets, and errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from kernel import Listening, answers
from kernel._manifest.registry import Registry, discover
from kernel.errors import RemoteError
from kernel.testing import open_kernel

from ..amqp._peer import Peer

pytestmark = pytest.mark.slow

StartPeer = Callable[..., Peer]
PEER = "micro_websocket.py"
EXAMPLES = Path(__file__).parents[2] / "examples"


class Ours:
    """What we offer; over RabbitMQ it would be the same."""

    @answers("*.add")
    async def add(self, a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b

    @answers("*.Desk.fail")
    async def fail(self, text: str) -> None:
        raise ValueError(text)


async def test_its_client_calls_us(start_peer: StartPeer) -> None:
    manifest = {
        "kernel": {"name": "ours"},
        "dispatchers": {"web": {"plugin": "websocket", "port": 0, "protocol": "ufw_websocket"}},
        "workers": {
            "desk": {"use": "desk", "dispatcher": "web"},
            "targets": {
                "use": "ufw_targets",
                "dispatcher": "web",
                "config": {"targets": [f"{Ours.__module__}:Ours"]},
            },
        },
    }
    plugins = (*discover().plugins, *Registry.of({"workers": {"desk": Ours}}).plugins)
    async with open_kernel(manifest, registry=Registry(plugins), expected=Exception) as service:
        peer = start_peer(PEER, "client", (await service.wait_event(Listening)).address)
        added = await peer.get("call", target="add", args=[1], kwargs={"b": 5})
        failed = await peer.ask("call", target="Desk.fail", args=["the reason"])
        unknown = await peer.ask("call", target="nobody")
        targets = await peer.get("discover")
        target = await peer.get("describe", target="add")

    assert added == 6
    assert (failed["error"], failed["text"]) == ("ValueError", "the reason")
    assert unknown["error"] == "RPCTargetDoesNotExist"
    assert [told["target"] for told in targets] == ["add", "Desk.fail"]
    assert target == {"target": "add", "args": ["a"], "kwargs": ["b"], "docstring": "Add two numbers."}


async def test_its_client_calls_the_example(start_peer: StartPeer, port: int) -> None:
    manifest = EXAMPLES / "micro_websocket" / "kernel.toml"
    url = f"ws://127.0.0.1:{port}/"
    async with open_kernel(manifest, set={"dispatchers.rpc.port": port, "drivers.rpc.url": url}):
        peer = start_peer(PEER, "client", url)
        answered = await peer.get("call", target="websocket_task", args=["argument1"], kwargs={"arg2": "argument2"})
        targets = await peer.get("discover")

    assert answered == "argument1 - argument2"
    assert [told["target"] for told in targets] == ["websocket_task"]


async def test_we_call_its_service(start_peer: StartPeer, port: int) -> None:
    await start_peer(PEER, "serve", str(port)).wait_ready()
    driver = {"plugin": "websocket_client", "url": f"ws://127.0.0.1:{port}", "protocol": "ufw_websocket"}
    async with open_kernel({"kernel": {"name": "ours"}, "drivers": {"rpc": driver}}) as service:
        theirs = service.resource("driver/rpc").theirs
        answered: list[object] = []

        async def call(number: int) -> None:
            answered.append(await theirs.add(number, b=2))

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(call, number)
        with pytest.raises(RemoteError, match="ValueError: the reason"):
            await theirs.fail("the reason")
        with pytest.raises(RemoteError, match="RPCTargetDoesNotExist"):
            await theirs.nobody()
        targets = await theirs["__list_targets__"]()

    assert sorted(answered) == [2, 3, 4]
    assert [told["target"] for told in targets] == ["add", "fail"]
