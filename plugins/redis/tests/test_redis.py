from __future__ import annotations

import gc
import random
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import attrs
import coredis
import pytest
import trio
from coredis.exceptions import ConnectionError as RedisConnectionError
from kernel_redis import RedisConfig, RedisDriver
from kernel_redis._config import address, problems

from kernel import Event, Secret, State, StateChanged, Usage
from kernel.errors import StartupError, UnavailableError
from kernel.testing import check_driver, fake_context

from ._server import PASSWORD, Server
from .conftest import OpenRedis, driver

# coredis leaves streams of anyio to the garbage collector when connections break or fail.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")


@pytest.fixture(autouse=True)
def garbage_is_of_this_test() -> Generator[None]:
    """Collect what coredis leaves, while its warnings are let pass."""
    yield
    gc.collect()


async def use(client: coredis.Redis[Any]) -> None:
    await client.set("used", "yes")
    assert await client.get("used") == "yes"


@pytest.mark.slow
async def test_it_keeps_the_promises_of_a_driver(server: Server) -> None:
    await check_driver(lambda: driver(server), use=use)


# --- what it can do ------------------------------------------------------------------------------------------------


async def test_commands_pipelines_scripts_and_streams(open_redis: OpenRedis) -> None:
    async with open_redis() as client:
        await client.delete(["counted", "stream"])
        async with client.pipeline(transaction=True) as pipeline:
            counts = [pipeline.incr("counted") for _ in range(3)]
        script = client.register_script("return ARGV[1]")
        await client.xgroup_create("stream", "group", identifier="0", mkstream=True)
        await client.xadd("stream", {"a": "1"})
        read = await client.xreadgroup("group", "me", {"stream": ">"})

        assert [await count for count in counts] == [1, 2, 3]
        assert await script(args=["echo"]) == "echo"
        assert read is not None
        assert dict(read["stream"][0].field_values) == {"a": "1"}


async def test_what_is_published_reaches_who_has_subscribed(open_redis: OpenRedis) -> None:
    async with open_redis() as client, client.pubsub(channels=["news"]) as subscription:
        await client.publish("news", "tea")
        with trio.fail_after(5):
            async for message in subscription:
                if message["type"] == "message":
                    break

        assert message["data"] == "tea"


# --- connections ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_200_random_cancellations_leave_every_answer_with_its_question(
    open_redis: OpenRedis, server: Server
) -> None:
    chance = random.Random(1)
    async with open_redis(maxsize=2) as client:
        for number in range(200):
            with trio.move_on_after(chance.choice([0.0, 0.0002, 0.0005, 0.001])):
                await client.echo(f"cut {number}")
            assert await client.echo(str(number)) == str(number)
        assert server.clients() <= 2


async def test_a_command_that_blocks_can_be_cancelled(open_redis: OpenRedis) -> None:
    async with open_redis(maxsize=2) as client:
        with trio.move_on_after(0.1) as scope:
            await client.blpop(["nothing"], timeout=60)

        assert scope.cancelled_caught
        await use(client)


async def test_a_server_that_restarts_is_told_and_reached_again(server: Server) -> None:
    events: list[Event] = []
    async with driver(server, events, check_interval=0.05).open() as client:
        server.stop()
        try:
            with pytest.raises((RedisConnectionError, OSError)):
                await client.get("used")
            await states(events, 1)
        finally:
            server.start()
        await states(events, 2)
        await use(client)

    assert [event.new for event in events if isinstance(event, StateChanged)] == [State.DEGRADED, State.READY]


async def states(events: list[Event], count: int) -> None:
    with trio.fail_after(10):
        while len(events) < count:  # noqa: ASYNC110  the driver looks again and again
            await trio.sleep(0.01)


# --- who is let in -------------------------------------------------------------------------------------------------


async def test_a_wrong_password_is_not_tried_again(server: Server) -> None:
    with pytest.raises(StartupError, match="does not let us in") as refused:
        async with driver(server, password=Secret("wrong horse")).open():
            pytest.fail("it opened")

    assert "horse" not in str(refused.value)


async def test_a_server_that_wants_a_password_is_told_as_that(server: Server) -> None:
    with pytest.raises(StartupError, match="asks for a password: write `password`"):
        async with driver(server, password=None).open():
            pytest.fail("it opened")


async def test_a_server_that_is_away_at_the_start_is_tried_again(server: Server) -> None:
    with pytest.raises(UnavailableError):
        async with driver(server, dsn="redis://127.0.0.1:1").open():
            pytest.fail("it opened")


async def test_a_database_that_is_not_there_is_not_tried_again(server: Server) -> None:
    with pytest.raises(StartupError, match="no such database"):
        async with driver(server, dsn=f"{server.dsn}/99").open():
            pytest.fail("it opened")


async def test_a_server_that_does_not_speak_tls_is_called_so(server: Server) -> None:
    with pytest.raises(UnavailableError, match="does not speak TLS"):
        async with driver(server, dsn=f"rediss://localhost:{server.port}", connect_timeout=0.2).open():
            pytest.fail("it opened")


async def test_an_answer_that_is_none_of_tls_is_called_so(server: Server) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"-ERR what\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, talk, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        with pytest.raises(UnavailableError, match="does not speak TLS, and"):
            async with driver(server, dsn=f"rediss://localhost:{port}").open():
                pytest.fail("it opened")
        nursery.cancel_scope.cancel()


async def test_a_server_that_hangs_is_called_so(server: Server) -> None:
    events: list[Event] = []
    async with driver(server, events, check_interval=0.1).open():
        with server.hanging():
            await states(events, 1)
        await states(events, 2)
    with (
        server.hanging(),
        trio.fail_after(5),
        pytest.raises(UnavailableError, match="does not answer within"),
    ):
        async with driver(server, check_interval=0.1, connect_timeout=0.1).open():
            pytest.fail("it opened")

    degraded = events[0]
    assert isinstance(degraded, StateChanged)
    assert degraded.reason == "the server does not answer within check_interval = 0.1 s"


async def test_tls_is_verified_against_the_authority_and_the_name(server: Server) -> None:
    ca = str(server.folder / "ca.pem")
    async with driver(server, dsn=f"rediss://localhost:{server.tls_port}", ca=ca).open() as client:
        await use(client)
    for host, trusted in (("127.0.0.1", ca), ("localhost", "")):
        with pytest.raises(StartupError, match="certificate verify failed"):
            async with driver(server, dsn=f"rediss://{host}:{server.tls_port}", ca=trusted).open():
                pytest.fail("it opened")


# --- the table -----------------------------------------------------------------------------------------------------


def test_an_address_is_read() -> None:
    assert address("redis://me:se%20cret@host:1/2") == {
        "host": "host",
        "port": 1,
        "db": 2,
        "username": "me",
        "password": "se cret",
    }
    assert address("unix:///run/redis.sock?db=3") == {"unix_socket_path": "/run/redis.sock", "db": 3}


@pytest.mark.parametrize("dsn", ["", "http://x", "redis://", "redis://:secret@x/y", "redis://x:port"])
def test_an_address_that_is_none_is_refused(dsn: str) -> None:
    with pytest.raises(ValueError, match="dsn must be") as refused:
        RedisConfig(dsn=dsn)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"dsn": "redis://x", "ca": "ca.pem"}, "`ca` is for TLS"),
        ({"dsn": "rediss://x", "key": "key.pem"}, "`certificate`, which is missing"),
    ],
)
def test_what_does_not_fit_together_is_a_problem(config: Any, problem: str) -> None:
    assert problem in "".join(problems(RedisConfig(**config)))


def test_secrets_are_not_shown() -> None:
    assert PASSWORD not in repr(RedisConfig(dsn="redis://x", password=Secret(PASSWORD)))


async def test_whoever_looks_sees_how_the_pool_is_used(server: Server) -> None:
    asked: list[Callable[[], Usage]] = []
    context = attrs.evolve(fake_context("driver/redis"), report_usage=asked.append)
    config = RedisConfig(dsn=server.dsn, password=Secret(PASSWORD), maxsize=3)

    async def wait(client: coredis.Redis[Any]) -> None:
        await client.blpop(["nobody-fills-it"], timeout=0)

    async with RedisDriver(config=config, context=context).open() as client, trio.open_nursery() as nursery:
        [look] = asked
        nursery.start_soon(wait, client)
        with trio.fail_after(5):
            while look().used != 1:  # noqa: ASYNC110  it connects in its own time
                await trio.sleep(0.01)
        assert look().limit == 3
        nursery.cancel_scope.cancel()
