"""Objects on a real service: stored whole or not at all, whatever is cancelled, lost or refused."""

from __future__ import annotations

import gc
import random
import ssl
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
import trio.testing
import trustme
from kernel_s3 import ObjectMissingError, ObjectStore, ObjectTooLargeError, S3Config, S3Error
from kernel_s3._config import SMALLEST_PART, problems

from kernel import Event, Secret, State, StateChanged, Usage
from kernel.errors import StartupError, UnavailableError
from kernel.testing import check_driver, fake_context

from .conftest import BUCKET, OpenStore, Server, driver

pytestmark = [
    pytest.mark.slow,
    # What httpx and aiobotocore leave to the garbage collector when requests are broken off.
    pytest.mark.filterwarnings("ignore:.*AsyncIteratorByteStream:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def garbage_is_of_this_test() -> Generator[None]:
    """Collect what they leave, while its warnings are let pass."""
    yield
    gc.collect()


async def use(store: ObjectStore) -> None:
    await store.put("used", b"yes")
    assert await store.get("used") == b"yes"


async def uploads(store: ObjectStore) -> list[Any]:
    return (await store.client.list_multipart_uploads(Bucket=BUCKET)).get("Uploads", [])


async def in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await trio.lowlevel.checkpoint()
        yield piece


async def test_it_keeps_the_promises_of_a_driver(server: Server) -> None:
    await check_driver(lambda: driver(server), use=use)


# --- what it can do ------------------------------------------------------------------------------------------------


async def test_an_object_is_put_looked_at_read_and_deleted(open_store: OpenStore) -> None:
    async with open_store() as store:
        etag = await store.put("a/ü b", b"tea", content_type="text/plain", metadata={"by": "me"})
        info = await store.metadata("a/ü b")
        content = await store.get("a/ü b")
        await store.delete("a/ü b")
        await store.delete("a/ü b")
        with pytest.raises(ObjectMissingError) as missing:
            await store.get("a/ü b")
        with pytest.raises(ObjectMissingError):
            await store.metadata("a/ü b")

    assert (info.key, info.size, info.etag, info.content_type) == ("a/ü b", 3, etag, "text/plain")
    assert (info.metadata, content, missing.value.where) == ({"by": "me"}, b"tea", f"{BUCKET}/a/ü b")


@pytest.mark.parametrize(
    "sizes",
    [
        [0],
        [1],
        [SMALLEST_PART],
        [SMALLEST_PART + 1],
        [3] * 5,
        [SMALLEST_PART * 2, 0, 7],
        [SMALLEST_PART, SMALLEST_PART],
    ],
    ids=str,
)
@pytest.mark.parametrize("is_whole", [True, False], ids=["bytes", "iterable"])
async def test_any_length_is_stored_as_it_is(open_store: OpenStore, sizes: list[int], is_whole: bool) -> None:
    parts = [random.Random(size).randbytes(size) for size in sizes]
    async with open_store(part_size=SMALLEST_PART) as store:
        await store.put("long", b"".join(parts) if is_whole else in_pieces(*parts))
        async with store.stream("long") as content:
            read = b"".join([piece async for piece in content])
        assert await uploads(store) == []

    assert read == b"".join(parts)


@attrs.define(eq=False)
class Steps(trio.abc.Instrument):
    """Counts what the event loop does."""

    count: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


@pytest.mark.parametrize("parts", [1, 2])
async def test_content_is_sent_in_large_pieces_whatever_it_is(open_store: OpenStore, parts: int) -> None:
    async with open_store(part_size=SMALLEST_PART) as store:
        await store.put("first", b"")
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await store.put("lines", b"\n" * (2**20 if parts == 1 else SMALLEST_PART + 1))
        trio.lowlevel.remove_instrument(steps)

    assert steps.count < 5000


async def test_keys_are_listed_in_order_over_many_pages(open_store: OpenStore) -> None:
    async with open_store() as store:
        for number in range(5):
            await store.put(f"listed/{number}", b"x" * number)
        pages = store.client.get_paginator
        store.client.get_paginator = lambda name: _Small(pages(name))
        found = [(one.key, one.size) async for one in store.list("listed/")]
        first = [one.key async for one in store.list("nothing-has-this/")]

    assert (found, first) == ([(f"listed/{number}", number) for number in range(5)], [])


class _Small:
    """Asks for two at a time."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def paginate(self, **told: Any) -> Any:
        return self.inner.paginate(**told, PaginationConfig={"PageSize": 2})


async def test_whoever_has_an_address_can_put_and_get_for_a_while(open_store: OpenStore) -> None:
    async with open_store() as store, httpx.AsyncClient() as client:
        put = await client.put(await store.presign("shared", method="put"), content=b"tea")
        got = await client.get(await store.presign("shared"))
        bare = await client.get(f"{store.client.meta.endpoint_url}/{BUCKET}/shared")
        for wrong in (0.5, 8 * 86_400):
            with pytest.raises(ValueError, match="a week"):
                await store.presign("shared", expires=wrong)

    assert (put.status_code, got.content, bare.status_code) == (200, b"tea", 403)


async def test_a_call_can_name_another_bucket(open_store: OpenStore) -> None:
    async with open_store(bucket="") as store:
        await store.put("elsewhere", b"tea", bucket=BUCKET)
        assert await store.get("elsewhere", bucket=BUCKET) == b"tea"
        with pytest.raises(ValueError, match="nobody/has"):
            await store.put("x", b"", bucket="nobody/has")
        with pytest.raises(S3Error, match="nobody-made-this"):
            [one async for one in store.list(bucket="nobody-made-this")]
        with pytest.raises(ValueError, match="no bucket"):
            await store.get("x")


# --- what is bounded, cancelled and lost -----------------------------------------------------------------------------


async def test_what_is_too_large_is_not_held_in_memory_and_can_be_streamed(open_store: OpenStore) -> None:
    async with open_store(max_object_bytes=100_000) as store:
        await store.put("large", b"x" * 100_001)
        with pytest.raises(ObjectTooLargeError, match="max_object_bytes = 100000"):
            await store.get("large")
        async with store.stream("large") as content:
            assert sum([len(piece) async for piece in content]) == 100_001
        async with store.stream("large") as content:
            async for _ in content:
                break  # what is not read is thrown away
        await use(store)


async def test_200_random_cancellations_leave_the_connections_in_step(open_store: OpenStore) -> None:
    chance = random.Random(7)
    async with open_store() as store:
        await store.put("steady", b"tea" * 1000)
        for number in range(200):
            with trio.move_on_after(chance.random() * 0.02):
                if number % 3:
                    await store.get("steady")
                else:
                    await store.put(f"mine/{number % 5}", bytes([number]) * 10_000)
        assert await store.get("steady") == b"tea" * 1000
        for number in range(5):
            with trio.move_on_after(30):
                await store.put(f"mine/{number}", bytes([number]))
            assert await store.get(f"mine/{number}") == bytes([number])


@pytest.mark.parametrize("sent", [0, 1, 2])
@pytest.mark.parametrize("how", ["cancelled", "raised"])
async def test_an_upload_that_does_not_end_leaves_nothing(open_store: OpenStore, sent: int, how: str) -> None:
    async def never_ending(reached: trio.CancelScope) -> AsyncIterator[bytes]:
        for _ in range(sent):
            yield b"x" * (SMALLEST_PART + 1)
        if how == "raised":
            raise ValueError("the source broke")
        reached.cancel()
        await trio.sleep_forever()

    async with open_store(part_size=SMALLEST_PART) as store:
        await store.put("kept", b"as it was")
        with trio.CancelScope() as scope:
            if how == "raised":
                with pytest.raises(ValueError, match="the source broke"):
                    await store.put("kept", never_ending(scope))
            else:
                await store.put("kept", never_ending(scope))
        assert await store.get("kept") == b"as it was"
        assert await uploads(store) == []


async def test_who_waits_for_a_connection_waits_inside_its_own_deadline(open_store: OpenStore) -> None:
    async with open_store(max_connections=1) as store:
        await store.put("busy", b"x" * 3_000_000)
        async with store.stream("busy") as content:
            await anext(content)
            with trio.move_on_after(0.2) as scope:
                await store.get("busy")
        assert scope.cancelled_caught
        await use(store)


async def test_a_pool_without_a_free_connection_is_told_as_that_and_says_nothing_of_the_service(server: Server) -> None:
    events: list[Event] = []
    async with driver(server, events, max_connections=1, connect_timeout=0.2, attempts=1).open() as store:
        await store.put("busy", b"x" * 3_000_000)
        async with store.stream("busy") as content:
            await anext(content)
            with pytest.raises(
                UnavailableError, match=r"scans/used: no connection became free within `connect_timeout`"
            ):
                await store.get("used")
        await use(store)

    assert not [event for event in events if isinstance(event, StateChanged)]


async def test_whoever_looks_sees_how_many_requests_are_under_way(server: Server) -> None:
    asked: list[Callable[[], Usage]] = []
    context = attrs.evolve(fake_context("driver/archive"), report_usage=asked.append)
    async with driver(server, context=context, max_connections=1).open() as store, trio.open_nursery() as nursery:
        [look] = asked
        await store.put("busy", b"x" * 3_000_000)
        assert look() == Usage(used=0, limit=1)
        async with store.stream("busy") as content:
            await anext(content)
            nursery.start_soon(store.get, "busy")
            await trio.testing.wait_all_tasks_blocked()

            assert look() == Usage(used=1, waiting=1, limit=1)
            nursery.cancel_scope.cancel()
    assert look() == Usage(used=0, limit=1)


async def test_a_server_that_is_killed_is_told_of_and_found_again(server: Server) -> None:
    events: list[Event] = []
    async with driver(server, events, attempts=1).open() as store:
        await use(store)
        server.kill()
        try:
            with pytest.raises(UnavailableError):
                await store.get("used")
        finally:
            await trio.to_thread.run_sync(server.start)
        await use(store)

    assert [event.new for event in events if isinstance(event, StateChanged)] == [State.DEGRADED, State.READY]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"secret_key": Secret("wrong-horse-battery")}, "does not let us in"),
        ({"access_key": "nobody"}, "does not let us in"),
        ({"bucket": "nobody-made-this"}, 'there is no bucket "nobody-made-this"'),
    ],
    ids=["password", "user", "bucket"],
)
async def test_what_no_second_attempt_changes_ends_the_start(server: Server, config: dict[str, Any], text: str) -> None:
    with pytest.raises(StartupError, match=text) as refused:
        async with driver(server, **config).open():
            pass

    assert "horse" not in str(refused.value)


async def test_a_server_that_is_away_can_be_tried_again(server: Server) -> None:
    with pytest.raises(UnavailableError):
        async with driver(server, endpoint_url="http://127.0.0.1:1", attempts=1).open():
            pass


async def test_a_certificate_for_another_name_is_refused(server: Server, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.example").configure_cert(context)

    async def greet(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with trio.move_on_after(5):
            try:
                await stream.do_handshake()
            except trio.BrokenResourceError:
                return

    async with trio.open_nursery() as nursery:
        serve = trio.serve_ssl_over_tcp
        [listener] = await nursery.start(
            lambda task_status: serve(greet, 0, context, host="127.0.0.1", task_status=task_status)
        )
        port = listener.transport_listener.socket.getsockname()[1]
        with pytest.raises((StartupError, UnavailableError), match="certificate verify failed"):
            async with driver(
                server, endpoint_url=f"https://127.0.0.1:{port}", ca=str(tmp_path / "ca.pem"), attempts=1
            ).open():
                pass
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"access_key": "a"}, "belong together"),
        ({"secret_key": Secret("a-secret")}, "belong together"),
        ({"session_token": Secret("a-secret")}, "belongs to"),
        ({"ca": "ca.pem", "endpoint_url": "http://x"}, "`ca` is for TLS"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fields_that_do_not_fit_together_are_problems(config: dict[str, Any], text: str) -> None:
    [problem] = problems(S3Config(**config))

    assert text in problem


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"bucket": "A"}, "3 to 63"),
        ({"bucket": "a/b"}, "3 to 63"),
        ({"endpoint_url": "ftp://x"}, "must be http"),
        ({"endpoint_url": "https://me:pass@x"}, "has a user in it"),
        ({"part_size": 1}, "part_size"),
    ],
    ids=str,
)
def test_fields_that_cannot_be_are_refused(config: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        S3Config(**config)
