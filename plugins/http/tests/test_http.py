from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import h11
import httpx
import pytest
import trio
import trio.testing
import trustme
from kernel_http import HttpConfig, HttpDriver, HttpRequestDone, ResponseTooLargeError
from kernel_http._config import problems

from kernel import Event, Secret, State, StateChanged, Usage
from kernel.errors import StartupError, UnavailableError
from kernel.testing import fake_context

from .conftest import ask, closed, driver, echo, open_server, statuses

OVER_NOTHING = {"sku": "tea"}


# --- what is tried again ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_what_may_come_twice_is_tried_again(method: str) -> None:
    async with open_server(statuses(503, 429)) as server, driver(server.url).open() as client:
        answer = await client.request(method, "/x")

        assert (answer.status_code, len(server.requests)) == (200, 3)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_what_may_not_come_twice_is_sent_once(method: str) -> None:
    async with open_server(statuses(503)) as server, driver(server.url).open() as client:
        answer = await client.request(method, "/x")

        assert (answer.status_code, len(server.requests)) == (503, 1)


async def test_an_idempotency_key_lets_anything_come_twice() -> None:
    async with open_server(statuses(503)) as server, driver(server.url).open() as client:
        answer = await client.post("/x", json=OVER_NOTHING, headers={"Idempotency-Key": "1"})

        assert (answer.json(), len(server.requests)) == (OVER_NOTHING, 2)


async def test_a_body_that_is_made_while_it_is_sent_is_sent_once() -> None:
    async def body() -> AsyncIterator[bytes]:
        await trio.lowlevel.checkpoint()
        yield b"x"

    async with open_server(statuses(503)) as server, driver(server.url).open() as client:
        answer = await client.put("/x", content=body())

        assert (answer.status_code, len(server.requests)) == (503, 1)


async def test_attempts_are_bounded_and_the_last_answer_is_returned() -> None:
    async with open_server(statuses(503, 503, 503)) as server, driver(server.url, attempts=2).open() as client:
        answer = await client.get("/x")

        assert (answer.status_code, len(server.requests)) == (503, 2)


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_what_would_not_become_better_is_not_tried_again(status: int) -> None:
    async with open_server(statuses(status)) as server, driver(server.url).open() as client:
        answer = await client.get("/x")

        assert (answer.status_code, len(server.requests)) == (status, 1)


async def test_an_answer_that_asks_for_too_long_a_wait_is_returned() -> None:
    async with open_server(statuses(503, retry_after="60")) as server, driver(server.url).open() as client:
        answer = await client.get("/x")

        assert (answer.status_code, len(server.requests)) == (503, 1)


async def test_no_attempt_begins_after_the_deadline() -> None:
    async with open_server(statuses(503, retry_after="5")) as server, driver(server.url).open() as client:
        with trio.fail_after(4):
            answer = await client.get("/x")

        assert (answer.status_code, len(server.requests)) == (503, 1)


async def test_a_server_that_comes_back_is_reached_by_the_next_attempt() -> None:
    async with open_server(echo) as server:
        port = server.port
    events: list[Event] = []
    async with driver(f"http://127.0.0.1:{port}", events, attempts=2).open() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("/x")
        async with open_server(echo, port=port):
            await ask(client)
        states = [event.new for event in events if isinstance(event, StateChanged)]
        done = [(event.status, event.attempts) for event in events if isinstance(event, HttpRequestDone)]

        assert states == [State.DEGRADED, State.READY]
        assert done == [(0, 2), (200, 1)]


# --- connections -------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_200_random_cancellations_leave_every_answer_with_its_request() -> None:
    chance = random.Random(1)

    async def slow(request: h11.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        await trio.sleep(0.0005)
        return await echo(request, body)

    async with open_server(slow) as server:
        async with driver(server.url, max_connections=2).open() as client:
            for number in range(200):
                with trio.move_on_after(chance.uniform(0.0, 0.006)):
                    await client.get(f"/cut/{number}")
                answer = await client.get(f"/{number}")
                assert answer.text == f"/{number}"
        await closed(server)

        assert server.opened > 1, "nothing was cut"


async def test_a_request_waits_for_a_connection_and_no_longer_than_it_may() -> None:
    async def hang(request: h11.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        held.set()
        await release.wait()
        return await echo(request, body)

    held, release = trio.Event(), trio.Event()
    async with (
        open_server(hang) as server,
        driver(server.url, max_connections=1, timeout=0.1, attempts=1).open() as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(lambda: client.get("/held", timeout=30))
        await held.wait()
        with pytest.raises(httpx.PoolTimeout):
            await client.get("/x")
        release.set()

        await ask(client)


@pytest.mark.parametrize("excess", [1, 1000, 1_000_000])
async def test_a_body_has_a_bound(excess: int) -> None:
    async def long(request: h11.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        await trio.lowlevel.checkpoint()
        return 200, {}, b"x" * (10 + excess if request.target == b"/long" else 10)

    async with open_server(long) as server, driver(server.url, max_response_bytes=10).open() as client:
        assert len((await client.get("/")).content) == 10
        with pytest.raises(ResponseTooLargeError, match="max_response_bytes = 10"):
            await client.get("/long")
        assert len((await client.get("/")).content) == 10


async def test_a_driver_is_not_ready_before_its_probe_is_answered() -> None:
    async with open_server(statuses(500)) as server:
        with pytest.raises(UnavailableError, match="answers 500"):
            async with driver(server.url, probe="/health").open():
                pytest.fail("it is ready")
        async with driver(server.url, probe="/health").open():
            pass


async def test_secret_headers_are_sent_and_not_shown() -> None:
    async with (
        open_server(echo) as server,
        driver(server.url, headers={"authorization": Secret("s3cret")}).open() as client,
    ):
        await ask(client)

        assert dict(server.requests[0].headers)[b"authorization"] == b"s3cret"
    assert "s3cret" not in repr(HttpConfig(base_url=server.url, headers={"authorization": Secret("s3cret")}))


# --- TLS ---------------------------------------------------------------------------------------------------------


async def test_tls_is_verified_against_the_authority_and_the_name(tmp_path: Path) -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_side)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    ca = str(tmp_path / "ca.pem")
    async with open_server(echo, tls=server_side) as server:
        async with driver(f"https://localhost:{server.port}", ca=ca).open() as client:
            await ask(client)
        for url, trusted in ((f"https://127.0.0.1:{server.port}", ca), (f"https://localhost:{server.port}", "")):
            events: list[Event] = []
            async with driver(url, events, ca=trusted, attempts=1).open() as client:
                with pytest.raises(httpx.ConnectError):
                    await ask(client)
            (degraded,) = [event for event in events if isinstance(event, StateChanged)]
            assert "certificate verify failed" in degraded.reason


async def test_a_certificate_that_is_not_there_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be used"):
        async with driver("https://localhost", ca=str(tmp_path / "no.pem")).open():
            pytest.fail("it opened")


# --- the table -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", "/x", "ftp://x", "http://", "http://me:secret@x", "http://x/?a=1", "http://x/#a", "http://x:port"]
)
def test_a_base_url_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as refused:
        HttpConfig(base_url=url)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"base_url": "http://x", "ca": "ca.pem"}, "`ca` is for https"),
        ({"base_url": "https://x", "key": "key.pem"}, "`certificate`, which is missing"),
        ({"base_url": "http://x", "backoff_initial": 20.0}, "at most `backoff_max`"),
    ],
)
def test_what_does_not_fit_together_is_a_problem(config: Any, problem: str) -> None:
    assert problem in "".join(problems(HttpConfig(**config)))


async def test_whoever_looks_sees_how_many_requests_are_under_way() -> None:
    asked: list[Callable[[], Usage]] = []
    release = trio.Event()

    async def hold(request: h11.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        await release.wait()
        return 200, {}, b""

    context = attrs.evolve(fake_context("driver/api"), report_usage=asked.append)
    async with open_server(hold) as server:
        config = HttpConfig(base_url=server.url, max_connections=2)
        async with HttpDriver(config=config, context=context).open() as client, trio.open_nursery() as nursery:
            [look] = asked
            for _ in range(3):
                nursery.start_soon(client.get, "/x")
            await trio.testing.wait_all_tasks_blocked()
            assert look() == Usage(used=2, waiting=1, limit=2)
            release.set()

        assert look() == Usage(used=0, limit=2)
