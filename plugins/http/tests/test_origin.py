"""What the table gives for one service is for nobody else: its headers, and its certificate."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import h11
import httpx
import pytest
import trio
import trustme
from kernel_http import HttpDriver

from kernel import Event, Secret, StateChanged

from .conftest import Answer, Server, driver, echo, open_server

TOKEN = b"s3cret"
HEADERS: dict[str, Any] = {
    "authorization": Secret("s3cret"),
    "X-Api-Key": Secret("s3cret"),
    "user-agent": "shop s3cret",
    "cookie": "a=s3cret",
}


def shop(url: str, events: list[Event] | None = None) -> HttpDriver:
    return driver(url, events, headers=HEADERS, attempts=1)


def leaked(server: Server) -> list[bytes]:
    return [name for request in server.requests for name, value in request.headers if TOKEN in value]


def redirect(status: int, location: str) -> Answer:
    async def answer(request: h11.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        await trio.lowlevel.checkpoint()
        return status, {"location": location}, b""

    return answer


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_absolute_url_of_another_port_gets_no_header_of_the_table(method: str) -> None:
    async with open_server(echo) as ours, open_server(echo) as other, shop(ours.url).open() as client:
        await client.request(method, f"{other.url}/x")
        await client.request(method, f"{ours.url}/x")

        assert leaked(other) == []
        assert dict(other.requests[0].headers)[b"user-agent"].startswith(b"python-httpx")
        assert sorted(leaked(ours)) == [b"authorization", b"cookie", b"user-agent", b"x-api-key"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_elsewhere_gets_no_header_of_the_table(status: int) -> None:
    async with open_server(echo) as other, open_server(redirect(status, f"{other.url}/x")) as ours:
        async with shop(ours.url).open() as client:
            answer = await client.post("/x", follow_redirects=True)

        assert (answer.status_code, len(other.requests)) == (200, 1)
        assert len(leaked(ours)) == 4
        assert leaked(other) == []


async def test_a_redirect_within_the_origin_and_back_to_it_gets_them_again() -> None:
    async def answer(request: h11.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if request.target == b"/1":
            return 307, {"location": "/2"}, b""
        return (307, {"location": back}, b"") if request.target == b"/2" else await echo(request, body)

    async with open_server(answer) as ours, open_server(redirect(307, f"{ours.url}/3")) as other:
        back = f"{other.url}/x"
        async with shop(ours.url).open() as client:
            await client.get("/1", follow_redirects=True)

        assert (len(leaked(ours)), leaked(other)) == (3 * 4, [])


@pytest.mark.parametrize(
    ("base", "url", "is_ours"),
    [
        ("http://stock.test", "http://STOCK.test:80/x", True),
        ("http://stock.test:80/api", "/x", True),
        ("https://stock.test:443", "https://stock.test/x", True),
        ("http://stock.test", "https://stock.test/x", False),
        ("https://stock.test", "http://stock.test/x", False),
        ("http://stock.test", "http://stock.test:81/x", False),
        ("http://stock.test", "http://stock.test.evil.test/x", False),
        ("http://stock.test", "http://stock.test@evil.test/x", False),
        ("http://stock.test", "http://api.stock.test/x", False),
    ],
)
async def test_the_origin_is_scheme_host_and_port(base: str, url: str, is_ours: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200)

    asked: list[httpx.Request] = []
    async with driver(base, headers={"x-api-key": Secret("s3cret")}, mock=answer).open() as client:
        made = await client.get(url)

    assert ("x-api-key" in asked[0].headers) == is_ours
    assert "x-api-key" not in made.request.headers


async def test_what_a_request_says_itself_stands() -> None:
    async with open_server(echo) as ours, shop(ours.url).open() as client:
        await client.get("/x", headers={"x-api-key": "mine", "user-agent": "mine"})

        assert sorted(leaked(ours)) == [b"authorization", b"cookie"]


async def test_who_answers_elsewhere_says_nothing_of_the_service() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        events: list[Event] = []
        async with open_server(echo) as ours, shop(ours.url, events).open() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://127.0.0.1:{nobody.getsockname()[1]}/x")

        assert [event for event in events if isinstance(event, StateChanged)] == []


async def test_our_certificate_is_shown_to_the_service_only(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("me@test").private_key_and_cert_chain_pem.write_to_path(tmp_path / "me.pem")
    asks = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(asks)
    authority.configure_trust(asks)
    asks.verify_mode = ssl.CERT_OPTIONAL
    shown: list[bool] = []

    class Watched(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            if self.server_side:
                shown.append(bool(self.getpeercert()))

    asks.sslobject_class = Watched
    files = {"ca": str(tmp_path / "ca.pem"), "certificate": str(tmp_path / "me.pem")}
    async with (
        open_server(echo, tls=asks) as ours,
        open_server(echo, tls=asks) as other,
        driver(f"https://localhost:{ours.port}", **files).open() as client,
    ):
        await client.get("/x")
        await client.get(f"https://localhost:{other.port}/x")

    assert shown == [True, False]
