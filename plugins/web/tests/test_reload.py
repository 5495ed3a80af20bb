"""A worker behind a listener is replaced: nobody is refused, and what was begun is finished."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from kernel import Listening
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry, discover
from kernel._plan.plan import resolve
from kernel.testing import open_kernel


class App:
    """Answers after a while, with its label; every websocket is open until somebody ends it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise ValueError("not spoken here")
        await trio.sleep(self.config["takes"])
        body = str(self.config["label"]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


REGISTRY = Registry((*discover().plugins, *Registry.of({"workers": {"app": App}}).plugins))


def tables(label: str, takes: float = 0.3) -> dict[str, Any]:
    return {
        "kernel": {"name": "shop"},
        "dispatchers": {"web": {"plugin": "web", "bind": ["127.0.0.1:0"]}},
        "workers": {"api": {"use": "app", "dispatcher": "web", "config": {"label": label, "takes": takes}}},
    }


async def test_a_request_that_was_begun_is_finished_and_the_next_waits_for_the_new_worker() -> None:
    async with open_kernel(tables("old"), registry=REGISTRY) as service:
        listening = await service.wait_event(Listening)
        port = int(listening.address.rpartition(":")[2])
        answers: list[str] = []

        async def ask() -> None:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                answers.append(b"".join([part async for part in stream]).decode())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.1)
            nursery.start_soon(service.kernel.reload, resolve(from_mapping(tables("new")), REGISTRY))
            await trio.sleep(0.05)
            nursery.start_soon(ask)

        assert [answer.splitlines()[0] for answer in answers] == ["HTTP/1.1 200 OK"] * 2
        assert [answer.splitlines()[-1] for answer in answers] == ["old", "new"]
        assert len([event for event in service.events if isinstance(event, Listening)]) == 1


MANIFEST = """
[kernel]
name = "shop"
[dispatchers.web]
bind = ["127.0.0.1:0"]
[workers.api]
use = "shop:App"
dispatcher = "web"
[workers.api.config]
label = "0"
"""
CODE = """
import trio
class App:
    def __init__(self, config: dict):
        self.body = config["label"].encode()
        self.headers = [(b"content-length", b"%d" % len(self.body))]
    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            raise ValueError("not spoken here")
        await trio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    (tmp_path / "kernel.toml").write_text(MANIFEST)
    (tmp_path / "shop.py").write_text(CODE)
    process = subprocess.Popen(
        [sys.executable, "-m", "kernel", "run", str(tmp_path / "kernel.toml")],
        env={**os.environ, "KERNEL_CONTROL_DIR": str(tmp_path / "run")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        shown = ""
        while "http://" not in shown:
            shown = process.stdout.readline()
        yield process, re.findall(r"http://\S+", shown)[0]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
def test_no_connection_is_refused_and_no_request_fails_under_load(
    shop: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    _process, address = shop
    wrk = subprocess.Popen(["wrk", "-t1", "-c32", "-d8s", f"{address}/"], stdout=subprocess.PIPE, text=True)
    reloads = 0
    while wrk.poll() is None:
        reloads += 1
        text = MANIFEST.replace('label = "0"', f'label = "{reloads}"')
        (tmp_path / "kernel.toml").write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "kernel", "reload"],
            env={**os.environ, "KERNEL_CONTROL_DIR": str(tmp_path / "run")},
            check=True,
            capture_output=True,
            text=True,
        )
        assert done.stdout.endswith("restarted: worker/api\n")
    out, _ = wrk.communicate()

    assert "Socket errors" not in out, out
    assert "Non-2xx" not in out, out
    assert reloads >= 3


async def test_a_new_certificate_is_shown_at_once_and_nothing_restarts(tmp_path: Path) -> None:
    ca, client = trustme.CA(), ssl.create_default_context()
    ca.configure_trust(client)

    def issue() -> None:
        fresh = ca.issue_cert("localhost", "127.0.0.1")
        fresh.private_key_pem.write_to_path(str(tmp_path / "key"))
        fresh.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))

    async def shown(port: int) -> bytes | None:
        stream = trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), client, server_hostname="localhost")
        await stream.do_handshake()
        certificate = stream.getpeercert(binary_form=True)
        await trio.aclose_forcefully(stream)
        return certificate

    issue()
    manifest = tables("old")
    tls = {"cert": str(tmp_path / "cert"), "key": str(tmp_path / "key"), "reload": 0.0}
    manifest["dispatchers"]["web"]["tls"] = tls
    async with open_kernel(manifest, registry=REGISTRY) as service:
        port = int((await service.wait_event(Listening)).address.rpartition(":")[2])
        first = await shown(port)
        issue()
        unasked = await shown(port)
        told = await service.kernel.reload(resolve(from_mapping(manifest), REGISTRY))
        second = await shown(port)
        (tmp_path / "cert").write_text("half")
        refused = await service.kernel.reload(resolve(from_mapping(manifest), REGISTRY))
        third = await shown(port)

        assert unasked == first
        assert second != first
        assert not told.restarted
        assert told.refused == ()
        assert [id_ for id_, _ in refused.refused] == ["dispatcher/web"]
        assert third == second
