"""Behind a proxy, beside other processes, and for the hosts that are meant."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from kernel_web import WebConfig, WebDispatcher
from kernel_web.asgi.peers import Hosts, Proxies

from kernel.errors import StartupError
from kernel.testing import fake_context


async def show(scope: Any, receive: Any, send: Any) -> None:
    text = f"{scope['client'] and scope['client'][0]} {scope['scheme']} {scope['root_path']} {scope['path']}"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("example.org", True), ("EXAMPLE.org:8080", True), ("a.example.com", True), ("a.b.example.com:1", True), ("[::1]:80", True),
        ("example.com", False), ("badexample.com", False), ("example.org.evil", False), ("", False), ("[::2]", False),
    ],
)  # fmt: skip
def test_a_host_is_one_of_those_allowed(host: str, allowed: bool) -> None:
    assert Hosts(["example.org", "*.example.com", "[::1]"]).allows([(b"host", host.encode())]) is allowed


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        (["6.6.6.6", "203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (["203.0.113.7:4711"], "203.0.113.7"),
        (["[2001:db8::1]:443"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["10.0.0.3"], "10.0.0.3"),
        (["6.6.6.6, nonsense"], None),
        (["6.6.6.6, nonsense, 10.0.0.2"], "10.0.0.2"),
        ([""], None),
        ([], None),
    ],
)
def test_the_client_is_the_last_that_no_trusted_proxy_is(forwarded: list[str], client: str | None) -> None:
    told = Proxies(["10.0.0.0/8"]).told([(b"x-forwarded-for", value.encode()) for value in forwarded])

    assert told.get("client", (None,))[0] == client


@pytest.mark.parametrize(
    ("proxies", "expected"),
    [(["127.0.0.0/8"], "203.0.113.7 https"), (["10.0.0.0/8"], "127.0.0.1 http"), ([], "127.0.0.1 http")],
)
async def test_only_a_trusted_proxy_is_believed(web: Any, proxies: list[str], expected: str) -> None:
    headers = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "http, https"}
    async with (
        web(show, trusted_proxies=proxies) as service,
        httpx.AsyncClient(base_url=service.url, headers=headers) as client,
    ):
        response = await client.get("/x")

    assert response.text == f"{expected}  /x"


@pytest.mark.parametrize("http2", [False, True])
async def test_other_hosts_are_refused(web: Any, http2: bool) -> None:
    options = {"http1": not http2, "http2": http2}
    async with web(show, allowed_hosts=["127.0.0.1"], h2c=True) as service:  # noqa: SIM117  the inner ends first
        async with httpx.AsyncClient(base_url=service.url, **options) as client:
            statuses = [(await client.get("/", headers=headers)).status_code for headers in ({}, {"Host": "evil"})]

    assert statuses == [200, 400]


async def test_what_a_proxy_took_off_the_path_is_put_back(web: Any) -> None:
    async with web({"/api": show}, root_path="/site") as service, httpx.AsyncClient(base_url=service.url) as client:
        response = await client.get("/api/x?y")

    assert response.text == "127.0.0.1 http /site/api /site/api/x"


@pytest.mark.parametrize(
    "wrong", [{"allowed_hosts": ["a:80"]}, {"trusted_proxies": ["a"]}, {"root_path": "site"}, {"bind": "fd:x"}, {"bind": "fd:-1"}], ids=str
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        WebConfig(**wrong)


# --- several processes ----------------------------------------------------------------------------------------------


async def test_several_may_listen_at_a_port_and_share_the_clients(web: Any) -> None:
    async with (
        web(show, reuse_port=True) as first,
        web(show, reuse_port=True, bind=f"127.0.0.1:{first.port}") as second,
    ):
        clients = [socket.create_connection(("127.0.0.1", first.port)) for _ in range(64)]
        with trio.fail_after(4):
            while first.connections + second.connections < 64:  # noqa: ASYNC110  nothing tells
                await trio.sleep(0.01)
        shares = first.connections, second.connections
        for client in clients:
            client.close()

    assert min(shares) > 5


async def test_a_port_is_not_shared_unless_both_want_it(web: Any) -> None:
    async with web(show, reuse_port=True) as first:
        with pytest.raises(StartupError, match="already in use"):
            async with dispatcher(bind=f"127.0.0.1:{first.port}").open():
                pass


async def test_a_socket_may_be_inherited_and_outlives_the_dispatcher(web: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        answers = []
        for _ in range(2):
            async with web(show, bind=f"fd:{bound.fileno()}") as service, httpx.AsyncClient() as client:
                answers.append((await client.get(service.url)).text)

    assert answers == ["127.0.0.1 http  /"] * 2


async def test_an_inherited_unix_socket_is_left_to_its_owner(web: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)
        bound.listen()
        async with web(show, bind=f"fd:{bound.fileno()}") as service:
            async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path)) as client:
                answer = (await client.get("http://x/")).text
            address = service.url
        kept = await trio.to_thread.run_sync(os.listdir, tmp_path)

    assert answer == "None http  /"
    assert address == f"http+unix:{path}"
    assert kept == ["s"]


def dispatcher(**config: Any) -> WebDispatcher:
    return WebDispatcher(config=WebConfig(**config), context=fake_context("dispatcher/web"))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("closed", "bad file descriptor"), ("client", "no socket that listens"), ("public", "plaintext")],
)
async def test_a_descriptor_that_is_no_good_is_named(kind: str, reason: str) -> None:
    with socket.socket() as one, socket.create_server(("0.0.0.0", 0)) as public:
        number = {"closed": 99_999, "client": one.fileno(), "public": public.fileno()}[kind]
        with pytest.raises(StartupError, match=reason):
            async with dispatcher(bind=f"fd:{number}").open():
                pass
