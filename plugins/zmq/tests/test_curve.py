"""Keys: who has the right one is served, whoever has not is not heard, and no key is shown."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import zmq

from kernel import Secret, State, StateChanged, answers
from kernel.errors import UnavailableError

from .raw import Inbox, serving


@answers("desk")
async def double(number: int) -> int:
    return number * 2


def keys() -> tuple[str, str]:
    """Return a pair of keys; a dollar sign, which Z85 has, would have to be doubled in a manifest."""
    pairs = ((public.decode(), secret.decode()) for public, secret in iter(zmq.curve_keypair, None))
    return next(pair for pair in pairs if "$" not in pair[0])


@pytest.mark.parametrize("who", ["allowed", "unknown", "plain"])
async def test_only_those_who_are_allowed_are_served(address: str, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Inbox()
    monkeypatch.setattr("kernel._core.seldom.Seldom.warn", lambda _self, *event, **facts: told.put((*event, facts)))
    (server, server_secret), (client, client_secret), (_, stranger_secret) = keys(), keys(), keys()
    curves: dict[str, dict[str, Any]] = {
        "allowed": {"curve": {"secret_key": Secret(client_secret), "server_key": server}},
        "unknown": {"curve": {"secret_key": Secret(stranger_secret), "server_key": server}},
        "plain": {},
    }
    desk = {
        "plugin": "zmq_reply",
        "bind": [address],
        "curve": {"secret_key": Secret(server_secret), "allowed_keys": [client]},
    }
    rpc = {"plugin": "zmq_request", "connect": [address], "timeout": 5.0 if who == "allowed" else 0.2, **curves[who]}
    async with serving({"desk": double}, dispatchers={"desk": desk}), serving({}, drivers={"rpc": rpc}) as caller:
        if who == "allowed":
            assert await caller.call("rpc", "desk", [2]) == 4
            assert told.seen == []
            return
        with pytest.raises(UnavailableError, match="nobody was connected"):
            await caller.call("rpc", "desk", [2])
        [(event, facts), *_] = await told.get(1)
        assert (event, facts["mechanism"]) == ("peer_refused", "CURVE" if who == "unknown" else "not CURVE")
        assert ("address" in facts) == (who == "unknown")
        if who == "unknown":
            await caller.wait_event(StateChanged, lambda event: event.new is State.DEGRADED)


async def test_a_plain_peer_with_keys_is_served(address: str) -> None:
    (server, server_secret), (client, client_secret) = keys(), keys()
    desk = {
        "plugin": "zmq_reply",
        "bind": [address],
        "curve": {"secret_key": Secret(server_secret), "allowed_keys": [client]},
    }
    options = {
        "curve_publickey": client.encode(),
        "curve_secretkey": client_secret.encode(),
        "curve_serverkey": server.encode(),
    }
    async with serving({"desk": double}, dispatchers={"desk": desk}):
        context = zmq.Context()
        req = context.socket(zmq.REQ)
        req.linger = 0
        for name, value in options.items():
            setattr(req, name, value)
        req.connect(address)
        await trio.to_thread.run_sync(req.send, b"[3]")
        answer = await trio.to_thread.run_sync(req.recv)
        req.close()
        context.term()

    assert answer == b'{"result":6}'
