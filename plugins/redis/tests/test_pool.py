"""The pool: every place is given back, however a command ends, and whoever looks sees what is true."""

from __future__ import annotations

import gc
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import coredis
import pytest
import trio
from coredis.exceptions import ConnectionError as RedisConnectionError
from kernel_redis import RedisConfig, RedisDriver

from kernel import Event, Secret, StateChanged, Usage
from kernel.errors import UnavailableError
from kernel.testing import fake_context

from ._server import PASSWORD, Server
from .conftest import none_left

# coredis leaves streams of anyio to the garbage collector when connections break or fail.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")

Client = coredis.Redis[Any]
Wait = Callable[[Client], Awaitable[object]]


@pytest.fixture(autouse=True)
def garbage_is_of_this_test() -> Generator[None]:
    """Collect what coredis leaves, while its warnings are let pass."""
    yield
    gc.collect()


@asynccontextmanager
async def open_watched(
    server: Server, events: list[Event] | None = None, **config: Any
) -> AsyncGenerator[tuple[Client, Callable[[], Usage]]]:
    """Open a driver, and what it reports of its connections."""
    asked: list[Callable[[], Usage]] = []
    context = attrs.evolve(fake_context("driver/redis", events=events), report_usage=asked.append)
    settings = RedisConfig(dsn=server.dsn, password=Secret(PASSWORD), **config)
    async with RedisDriver(config=settings, context=context).open() as client:
        yield client, asked[0]
    await none_left(server)


async def until(is_so: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not is_so():  # noqa: ASYNC110  the server and the driver do it in their own time
            await trio.sleep(0.005)


async def check_whole(client: Client, look: Callable[[], Usage]) -> None:
    """Check that as many connections can be had at once as there may be, and that none is taken."""
    limit = look().limit
    assert limit is not None
    await until(lambda: look().used == 0)
    async with trio.open_nursery() as nursery:
        for _ in range(limit):
            nursery.start_soon(pop, client)
        await until(lambda: look() == Usage(used=limit, limit=limit))
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        assert await client.echo("whole") == "whole"


# --- what waits is cancelled -----------------------------------------------------------------------------------------


async def pop(client: Client, seconds: float = 60) -> object:
    return await client.blpop(["nothing"], timeout=seconds)


async def move(client: Client) -> object:
    return await client.blmove("nothing", "nowhere", coredis.PureToken.LEFT, coredis.PureToken.LEFT, timeout=60)


async def read(client: Client) -> object:
    return await client.xread({"nothing": "$"}, block=60_000)


async def pop_in_a_pipeline(client: Client) -> None:
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.blpop(["nothing"], timeout=60)


async def replicate(client: Client) -> None:
    with client.ensure_replication(1, timeout_ms=60_000):
        await client.set("used", "yes")


async def subscribe(client: Client) -> None:
    async with client.pubsub(channels=["silence"]):
        await trio.sleep_forever()


WAITS: list[Wait] = [pop, move, read, pop_in_a_pipeline, replicate, subscribe]


@pytest.mark.slow
@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("at_once", [1, 8])
async def test_what_waits_can_be_cancelled_more_often_than_there_are_connections(
    server: Server, wait: Wait, at_once: int
) -> None:
    async with open_watched(server, maxsize=2, acquire_timeout=4) as (client, look):
        for _ in range(8 // at_once):
            async with trio.open_nursery() as nursery:
                for _ in range(at_once):
                    nursery.start_soon(wait, client)
                await until(lambda: look().used == min(at_once, 2))
                nursery.cancel_scope.cancel()

        await check_whole(client, look)


@pytest.mark.slow
@pytest.mark.parametrize("wait", WAITS)
async def test_200_cancellations_at_any_instant_leave_the_pool_whole(server: Server, wait: Wait) -> None:
    chance = random.Random(1)
    async with open_watched(server, maxsize=3) as (client, look):

        async def cut(task: int) -> None:
            for number in range(50):
                with trio.move_on_after(chance.choice([0.0, 0.0005, 0.001, 0.003, 0.006])):
                    await wait(client)
                with trio.move_on_after(chance.choice([0.0005, 0.005])):
                    assert await client.echo(f"{task} {number}") == f"{task} {number}"

        async with trio.open_nursery() as nursery:
            for task in range(4):
                nursery.start_soon(cut, task)

        await check_whole(client, look)


@pytest.mark.slow
@pytest.mark.parametrize("wait", [wait for wait in WAITS if wait is not subscribe])
async def test_who_is_cancelled_takes_no_answer_along_that_others_wait_for(server: Server, wait: Wait) -> None:
    """They share the only connection: the server has got the first question, and answers late."""
    answers: list[str] = []

    async def ask_first() -> None:
        answers.append(await client.echo("due"))

    async with open_watched(server, maxsize=1) as (client, look):
        await check_whole(client, look)
        async with trio.open_nursery() as nursery:
            with server.hanging():
                nursery.start_soon(ask_first)
                await until(lambda: look().used == 1)
                with trio.move_on_after(0.05):
                    await wait(client)
        await check_whole(client, look)

    assert answers == ["due"]


@pytest.mark.slow
async def test_who_waits_for_an_answer_to_others_waits_no_longer_than_for_a_connection(server: Server) -> None:
    async with open_watched(server, maxsize=1, acquire_timeout=0.2) as (client, look):
        await check_whole(client, look)
        async with trio.open_nursery() as nursery:
            with server.hanging():
                nursery.start_soon(ask, client)
                await until(lambda: look().used == 1)
                with pytest.raises(UnavailableError, match=r"acquire_timeout = 0\.2 s"):
                    await pop(client)
        await check_whole(client, look)


async def ask(client: Client) -> None:
    assert await client.echo("patient") == "patient"


async def test_who_gives_up_waiting_takes_nobodys_turn(server: Server) -> None:
    async with open_watched(server, maxsize=1) as (client, look), trio.open_nursery() as nursery:
        holding = trio.CancelScope()

        async def hold() -> None:
            with holding:
                await pop(client)

        nursery.start_soon(hold)
        await until(lambda: look().used == 1)
        for _ in range(3):
            with trio.move_on_after(0.01):
                await client.echo("given up")
        nursery.start_soon(ask, client)
        await until(lambda: look().waiting == 1)
        holding.cancel()

        await until(lambda: look().waiting == look().used == 0)


# --- connections that are being made -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("encrypted", [False, True])
async def test_who_is_cancelled_while_it_connects_leaves_the_place_and_no_word(
    server: Server, encrypted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tls = {"dsn": f"rediss://localhost:{server.tls_port}", "ca": str(server.folder / "ca.pem")} if encrypted else {}
    asked: list[Callable[[], Usage]] = []
    context = attrs.evolve(fake_context("driver/redis"), report_usage=asked.append)
    settings: dict[str, Any] = {"dsn": server.dsn, "password": Secret(PASSWORD), "maxsize": 3, **tls}
    async with RedisDriver(config=RedisConfig(**settings), context=context).open() as client:
        for number in range(40):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(pop, client)
                await trio.sleep(number / 5_000)
                nursery.cancel_scope.cancel()

        await check_whole(client, asked[0])
    await none_left(server)
    assert not caplog.records


@pytest.mark.slow
async def test_a_server_that_hangs_while_connections_are_made_keeps_no_place(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_watched(server, maxsize=2, connect_timeout=0.05) as (client, look):
        with trio.move_on_after(0.05):
            await pop(client)
        with server.hanging():
            for _ in range(3):
                with pytest.raises(RedisConnectionError, match=r"connect_timeout = 0\.05 s"):
                    await pop(client)

        await check_whole(client, look)
    assert not caplog.records


async def test_a_server_that_is_away_keeps_no_place(server: Server) -> None:
    async with open_watched(server, maxsize=2) as (client, look):
        server.stop()
        try:
            for _ in range(5):
                with pytest.raises((RedisConnectionError, OSError)):
                    await pop(client)
        finally:
            server.start()

        await check_whole(client, look)


async def test_a_driver_that_is_closed_while_it_connects_is_silent(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery, open_watched(server, maxsize=2) as (client, look):
        with trio.move_on_after(0.05):
            await pop(client)
        with server.hanging():
            nursery.start_soon(pop, client)
            await until(lambda: look().used == 1)
            await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    assert not caplog.records


# --- connections that break --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", WAITS[:4])
async def test_a_connection_that_breaks_while_it_is_waited_on_gives_its_place_back(server: Server, wait: Wait) -> None:
    async with open_watched(server, maxsize=2) as (client, look):
        for _ in range(4):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails, wait, client)
                await until(lambda: look().used == 1)
                await client.client_kill(type_=coredis.PureToken.NORMAL)

        await check_whole(client, look)


async def fails(wait: Wait, client: Client) -> None:
    with pytest.raises(RedisConnectionError):
        await wait(client)


@pytest.mark.slow
async def test_a_command_may_wait_longer_than_a_connection_may_be_idle(server: Server) -> None:
    async with open_watched(server, maxsize=2, idle_timeout=1, check_interval=0.1) as (client, look):
        assert await client.blpop(["nothing"], timeout=1.5) is None

        await until(lambda: look().idle == 1)


@pytest.mark.slow
async def test_what_is_idle_for_too_long_is_closed(server: Server) -> None:
    async with open_watched(server, maxsize=3, idle_timeout=1, check_interval=0.1) as (client, look):
        await check_whole(client, look)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(pop, client, 0.01)
        await until(lambda: look().idle == 3)  # the watch may be asking on one of them

        await until(lambda: look().idle == 1)  # that of the watch
        await until(lambda: server.clients() == 1)


# --- what is left on a connection ---------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_subscription_that_is_cancelled_leaves_nothing_to_the_next(server: Server) -> None:
    async with open_watched(server, maxsize=1) as (client, look):
        with trio.move_on_after(0.1):
            async with client.pubsub(channels=["old"]):
                await trio.sleep_forever()
        await until(lambda: look().used == 0)

        assert await client.publish("old", "tea") == 0


async def test_a_watch_that_is_cancelled_leaves_nothing_to_the_next(server: Server) -> None:
    async with open_watched(server, maxsize=1) as (client, _):
        await client.set("seen", "1")
        with server.hanging(), trio.move_on_after(0.05):
            async with client.pipeline() as pipeline, pipeline.watch("seen"):
                pytest.fail("it is watched")
        await client.set("seen", "2")
        async with client.pipeline(transaction=True) as pipeline:
            counted = pipeline.incr("seen")

        assert await counted == 3


async def test_what_is_cancelled_takes_no_answer_from_others(server: Server) -> None:
    async with open_watched(server, maxsize=2) as (client, look), trio.open_nursery() as nursery:
        with server.hanging():
            nursery.start_soon(ask, client)
            await until(lambda: look().used == 1)
            with trio.move_on_after(0.05):
                await pop(client)


async def test_commands_that_do_not_block_share_a_connection(server: Server) -> None:
    async with open_watched(server, maxsize=5) as (client, look), trio.open_nursery() as nursery:
        with server.hanging():
            for _ in range(20):
                nursery.start_soon(ask, client)
            await until(lambda: look() == Usage(used=1, limit=5))


# --- what is told ---------------------------------------------------------------------------------------------------------


async def test_an_exhausted_pool_says_what_is_exhausted(server: Server) -> None:
    async with open_watched(server, maxsize=2, acquire_timeout=0.05) as (client, look), trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(pop, client)
        await until(lambda: look().used == 2)

        with trio.fail_after(5), pytest.raises(UnavailableError) as raised:
            await client.get("used")
        nursery.cancel_scope.cancel()

    said = "driver/redis: no connection became free within acquire_timeout = 0.05 s; all of maxsize = 2 are in use"
    assert said in str(raised.value)


async def test_who_waits_for_a_connection_is_counted(server: Server) -> None:
    async with open_watched(server, maxsize=2) as (client, look), trio.open_nursery() as nursery:
        for _ in range(7):
            nursery.start_soon(pop, client)

        await until(lambda: look() == Usage(used=2, waiting=5, limit=2))
        nursery.cancel_scope.cancel()


async def test_a_pool_that_is_all_in_use_says_nothing_of_the_server(server: Server) -> None:
    events: list[Event] = []
    opened = open_watched(server, events, maxsize=1, acquire_timeout=0.05, check_interval=0.02)
    async with opened as (client, look), trio.open_nursery() as nursery:
        nursery.start_soon(pop, client)
        await until(lambda: look().used == 1)
        await until(lambda: look().waiting == 1)  # the watch
        await until(lambda: look().waiting == 0)
        nursery.cancel_scope.cancel()

    assert not [event for event in events if isinstance(event, StateChanged)]
