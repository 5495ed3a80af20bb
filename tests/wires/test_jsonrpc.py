"""JSON-RPC with packages that know nothing of us: `websockets`, `jsonrpcclient` and `json-rpc`, both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kernel import Listening, answers, handles
from kernel._manifest.registry import Registry, discover
from kernel.abc import Delivery
from kernel.errors import RemoteError
from kernel.testing import open_kernel

from ..amqp._peer import Peer
from ..amqp._service import Inbox

pytestmark = pytest.mark.slow

StartPeer = Callable[..., Peer]
PEER = "jsonrpc_peer.py"


class Desk:
    """What the client of the peer calls."""

    def __init__(self) -> None:
        self.inbox = Inbox()

    @answers("add")
    async def add(self, a: int, b: int = 1) -> int:
        return a + b

    @answers("watch")
    async def watch(self, delivery: Delivery) -> None:
        line: Any = delivery
        line.line.notify("news", [1])

    @handles("told")
    async def told(self, payload: Any) -> None:
        self.inbox.put(list(payload.args))


async def test_its_client_calls_us(start_peer: StartPeer) -> None:
    manifest = {
        "kernel": {"name": "ours"},
        "dispatchers": {"web": {"plugin": "websocket", "port": 0, "protocol": "jsonrpc"}},
        "workers": {"desk": {"use": "desk", "dispatcher": "web"}},
    }
    plugins = (*discover().plugins, *Registry.of({"workers": {"desk": Desk}}).plugins)
    peer = start_peer(PEER)
    async with open_kernel(manifest, registry=Registry(plugins)) as service:
        await peer.get("connect", url=(await service.wait_event(Listening)).address)
        by_position = await peer.get("ask", method="add", params=[1, 2])
        by_name = await peer.get("ask", method="add", params={"a": 1})
        wrong = await peer.get("ask", method="add", params=["x"])
        unknown = await peer.get("ask", method="nobody", params=[])
        together = await peer.get("ask_together", calls=[["add", [1]], ["nobody", []]])
        await peer.get("notify", method="told", params=[5])
        heard = await service.resource("worker/desk").inbox.get(1)
        await peer.get("notify", method="watch", params=[])
        news = await peer.get("next")

    assert (by_position, by_name) == ({"ok": 3}, {"ok": 2})
    assert wrong == {"code": -32602, "message": 'a: must be an integer, got "x"'}
    assert unknown["code"] == -32601
    assert sorted(map(str, together)) == sorted(map(str, [{"ok": 2}, unknown]))
    assert heard == [[5]]
    assert news == {"jsonrpc": "2.0", "method": "news", "params": [1]}


async def test_we_call_its_server_which_sees_nothing_but_json_rpc(start_peer: StartPeer) -> None:
    peer = start_peer(PEER, "--serve")
    port = (await peer.line(lambda line: "port" in line))["port"]
    driver = {"plugin": "websocket_client", "url": f"ws://127.0.0.1:{port}/", "protocol": "jsonrpc"}
    async with open_kernel({"kernel": {"name": "ours"}, "drivers": {"rpc": driver}}) as service:
        rpc = service.resource("driver/rpc")

        assert await rpc.add(1, 2) == 3
        assert await rpc.call("add", {"a": 1}, headers={"k": "v"}) == 2
        with pytest.raises(RemoteError, match="Method not found"):
            await rpc.nobody()
        with pytest.raises(RemoteError):
            await rpc.fail()

    got = await peer.line(lambda line: "got" in line)
    assert got == {"got": {"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}, "protocol": None}
