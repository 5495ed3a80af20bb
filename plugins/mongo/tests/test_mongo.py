"""Documents on an emulator of MongoDB, from a service on trio: whatever is cancelled, lost or refused."""

from __future__ import annotations

import gc
import random
from collections.abc import Generator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from kernel_mongo import IndexTable, Mongo, MongoConfig, MongoDriver
from kernel_mongo._config import problems
from pymongo.errors import DuplicateKeyError

from kernel import ComponentFailed, Secret, State, StateChanged, Usage
from kernel.errors import StartupError, UnavailableError
from kernel.testing import OpenKernel, check_driver, fake_context

from .conftest import OpenMongo, Server, manifest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # A connection whose making was cancelled is left to the garbage collector by pymongo.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def garbage_is_of_this_test() -> Generator[None]:
    """Collect what it leaves, while its warnings are let pass."""
    yield
    gc.collect()


async def use(mongo: Mongo) -> None:
    await mongo["used"].replace_one({"_id": 1}, {"_id": 1, "yes": True}, upsert=True)
    assert await mongo["used"].find_one({"_id": 1}) == {"_id": 1, "yes": True}


async def test_it_keeps_the_promises_of_a_driver(server: Server, open_kernel: OpenKernel) -> None:
    loop = {
        "kernel": {"name": "test"},
        "drivers": {"aio": {"plugin": "asyncio"}},
        "workers": {"w": {"use": "trio:sleep_forever"}},
    }
    async with open_kernel(loop) as service:
        context = attrs.evolve(fake_context("driver/mongo"), driver=service.resource("driver/aio"))
        config = MongoConfig(dsn=server.dsn, database="test")
        await check_driver(lambda: MongoDriver(config=config, context=context), use=use)


# --- what it can do ------------------------------------------------------------------------------------------------


async def test_documents_are_written_found_changed_and_deleted(open_mongo: OpenMongo) -> None:
    async with open_mongo() as mongo:
        notes = mongo["notes"]
        await notes.delete_many({})
        one = await notes.insert_one({"_id": "a", "n": 1})
        many = await notes.insert_many([{"_id": number, "n": number % 3} for number in range(10)])
        changed = await notes.update_many({"n": 2}, {"$set": {"n": 20}})
        found = await notes.find_one_and_update({"_id": "a"}, {"$inc": {"n": 1}}, return_document=True)
        counts = (await notes.count(), await notes.count({"n": 20}), sorted(await notes.distinct("n")))
        gone = (await notes.find_one_and_delete({"_id": "a"}), await notes.find_one({"_id": "a"}))
        summed = [
            row async for row in notes.aggregate([{"$match": {"n": 20}}, {"$group": {"_id": "$n", "c": {"$sum": 1}}}])
        ]
        deleted = await notes.delete_many({"n": 20})

    assert (one, many, changed.modified_count, found) == ("a", list(range(10)), 3, {"_id": "a", "n": 2})
    assert (counts, gone, summed, deleted) == (
        (11, 3, [0, 1, 2, 20]),
        ({"_id": "a", "n": 2}, None),
        [{"_id": 20, "c": 3}],
        3,
    )


@pytest.mark.parametrize("batch", [1, 7, 100])
async def test_what_is_found_comes_whole_in_whatever_batches(open_mongo: OpenMongo, batch: int) -> None:
    async with open_mongo(batch=batch) as mongo:
        rows = mongo["rows"]
        await rows.delete_many({})
        await rows.insert_many([{"n": number} for number in range(25)])
        found = [row["n"] async for row in rows.find({}, sort=[("n", -1)])]
        limited = [row["n"] async for row in rows.find({"n": {"$gt": 3}}, sort=[("n", 1)], limit=9)]
        async with aclosing(rows.find({})) as left:
            async for _ in left:
                break
        await use(mongo)

    assert (found, limited) == (list(range(24, -1, -1)), list(range(4, 13)))


async def test_a_function_of_asyncio_has_all_that_pymongo_offers(open_mongo: OpenMongo) -> None:
    async def double(database: Any, key: str) -> Any:
        before = await database["run"].find_one({"_id": key})
        await database["run"].update_one({"_id": key}, {"$set": {"n": before["n"] * 2}})
        return (await database["run"].find_one({"_id": key}))["n"]

    async with open_mongo() as mongo:
        await mongo["run"].replace_one({"_id": "a"}, {"_id": "a", "n": 21}, upsert=True)

        assert await mongo.run(double, "a") == 42


async def test_what_the_server_refuses_is_what_pymongo_says(open_mongo: OpenMongo) -> None:
    async with open_mongo() as mongo:
        await mongo["once"].delete_many({})
        await mongo["once"].insert_one({"_id": 1})
        with pytest.raises(DuplicateKeyError):
            await mongo["once"].insert_one({"_id": 1})


async def test_indexes_of_the_manifest_are_there_before_the_service_is(open_mongo: OpenMongo) -> None:
    indexes = [
        {"collection": "indexed", "keys": {"author": 1, "created": -1}, "name": "by_author"},
        {"collection": "indexed", "keys": {"mail": 1}, "unique": True, "sparse": True},
    ]
    for _ in range(2):  # they are made once
        async with open_mongo(indexes=indexes) as mongo:
            made = await mongo.run(_indexes, "indexed")
            await mongo["indexed"].delete_many({})
            await mongo["indexed"].insert_one({"mail": "a"})
            with pytest.raises(DuplicateKeyError):
                await mongo["indexed"].insert_one({"mail": "a"})

    assert ["author", "created"] in made
    assert ["mail"] in made


async def _indexes(database: Any, name: str) -> list[Any]:
    """Return their fields; the emulator keeps neither names nor directions."""
    return [[name for name, _ in one["key"]] for one in (await database[name].index_information()).values()]


# --- what is cancelled and lost --------------------------------------------------------------------------------------


async def test_200_random_cancellations_leave_the_connections_in_step(open_mongo: OpenMongo) -> None:
    chance = random.Random(11)
    async with open_mongo(pool_max=3) as mongo:
        steady = mongo["steady"]
        await steady.delete_many({})
        await steady.insert_many([{"_id": number, "n": number * 7} for number in range(50)])
        for number in range(200):
            with trio.move_on_after(chance.random() * 0.01):
                assert await steady.find_one({"_id": number % 50}) == {"_id": number % 50, "n": number % 50 * 7}
        for number in range(50):
            assert await steady.find_one({"_id": number}) == {"_id": number, "n": number * 7}


async def test_200_calls_that_are_cancelled_while_they_wait_or_connect_leave_the_pool_whole(
    server: Server, open_kernel: OpenKernel
) -> None:
    chance, at_once = random.Random(3), 3

    async def ask(database: Any) -> None:
        while True:
            await database["held"].find_one({})

    async def cut(mongo: Mongo) -> None:
        for _ in range(50):
            with trio.move_on_after(chance.choice([0.0, 0.001, 0.003, 0.01])):
                await mongo.run(ask)

    def used() -> int:
        usage = next(one.usage for one in service.kernel.snapshot().components if one.id == "driver/mongo")
        assert usage is not None
        return usage.used

    async with open_kernel(manifest(server, pool_max=at_once)) as service:
        mongo: Mongo = service.resource("driver/mongo")
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(cut, mongo)

        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(mongo.run, ask)
            with trio.fail_after(20):
                while used() != at_once:  # noqa: ASYNC110  it happens in asyncio
                    await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
        await use(mongo)


async def test_a_server_that_is_killed_is_told_of_and_found_again(tmp_path: Path, open_kernel: OpenKernel) -> None:
    server = Server(tmp_path)
    try:
        await trio.to_thread.run_sync(server.start)
        table = manifest(server, check_interval=0.2, connect_timeout=1.0)
        async with open_kernel(table) as service:
            mongo: Mongo = service.resource("driver/mongo")
            await use(mongo)
            server.kill()
            await service.wait_event(StateChanged, lambda event: event.new is State.DEGRADED)
            with pytest.raises(UnavailableError):
                await use(mongo)
            await trio.to_thread.run_sync(server.start)
            await service.wait_event(
                StateChanged, lambda event: (event.old, event.new) == (State.DEGRADED, State.READY)
            )
            await use(mongo)
    finally:
        server.kill()


async def test_an_exhausted_pool_waits_inside_the_callers_deadline(open_mongo: OpenMongo) -> None:
    async def hold(database: Any) -> None:
        async with database.client.start_session():
            for _ in range(200):
                await database["held"].find_one({})

    async with open_mongo(pool_max=1) as mongo, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(mongo.run, hold)
        with trio.move_on_after(0.001) as scope:
            for _ in range(10):
                await mongo["held"].find_one({})
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_whoever_looks_sees_how_the_connections_are_used(server: Server, open_kernel: OpenKernel) -> None:
    seen = trio.Event()

    async def ask(database: Any) -> None:
        while not seen.is_set():
            await database["held"].find_one({})

    def used() -> Usage | None:
        return next(one.usage for one in service.kernel.snapshot().components if one.id == "driver/mongo")

    async def until(wanted: Usage) -> None:
        with trio.fail_after(20):
            while used() != wanted:  # noqa: ASYNC110  it happens in asyncio
                await trio.sleep(0.001)

    async with open_kernel(manifest(server, pool_max=1)) as service, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(service.resource("driver/mongo").run, ask)
        await until(Usage(used=1, waiting=2, limit=1))
        seen.set()

        await until(Usage(used=0, idle=1, limit=1))


# --- what is refused -------------------------------------------------------------------------------------------------


async def test_a_server_that_is_away_is_tried_again(server: Server, open_kernel: OpenKernel) -> None:
    table = manifest(server, dsn="mongodb://127.0.0.1:1", connect_timeout=0.1)
    async with open_kernel(table, ready=False, expected=UnavailableError) as service:
        failed = await service.wait_event(ComponentFailed)

    assert failed.restart_in is not None
    assert "Connect call failed" in str(failed.error)
    assert "timeouts" not in str(failed.error)


@pytest.mark.parametrize("plugin", ["thread_pool", "asyncio"])
async def test_only_a_loop_of_asyncio_will_do(server: Server, open_kernel: OpenKernel, plugin: str) -> None:
    context = fake_context("driver/mongo", driver=object())
    with pytest.raises(StartupError, match='plugin = "asyncio"'):
        async with MongoDriver(config=MongoConfig(dsn=server.dsn, database="test"), context=context).open():
            pass


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"username": "me"}, "`password` is missing"),
        ({"password": Secret("yellow-feathers")}, "`username` is missing"),
        ({"pool_min": 9, "pool_max": 3}, "more than"),
    ],
    ids=["password", "username", "pool"],
)
def test_fields_that_do_not_fit_together_are_problems(config: dict[str, Any], text: str) -> None:
    [problem] = problems(MongoConfig(dsn="mongodb://x", database="x", **config))

    assert text in problem


@pytest.mark.parametrize("dsn", ["", "x", "mongodb://", "http://x", "mongodb://me:yellow-feathers@", "mongodb://[x"])
def test_what_is_no_address_is_refused_without_what_it_says(dsn: str) -> None:
    with pytest.raises(ValueError, match="must be mongodb://") as refused:
        MongoConfig(dsn=dsn, database="x")

    assert "feathers" not in str(refused.value)


@pytest.mark.parametrize("keys", [{}, {"a": 2}, {"a": "rising"}], ids=str)
def test_an_index_says_how_each_field_is_sorted(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"keys|must be 1"):
        IndexTable(collection="x", keys=keys)
