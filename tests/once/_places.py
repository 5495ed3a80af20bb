"""Where the processes of a cluster keep the lease of their timer: each kind of place that there is, for real."""

from __future__ import annotations

import importlib.util
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType

import attrs
import pytest
import trio
from kernel_amqp.core import Settings, with_names
from kernel_amqp.link.connect import LinkSettings
from kernel_amqp.link.link import open_link
from kernel_sqlite import SqliteConfig, SqliteDriver
from pamqp import commands

from kernel import new_id
from kernel.testing import fake_context

ROOT = Path(__file__).parents[2]
RABBITMQ = ("127.0.0.1", 5672)
EFFECTS = "CREATE TABLE effect (id TEXT NOT NULL)"


@attrs.frozen
class Place:
    """A driver, and what a test may do besides."""

    table: str
    """The table of the driver, without its name."""
    effect: str = ""
    """The statement with which a tick leaves its effect, in the transaction that remembers its id; empty without such."""
    effects: Callable[[], list[str]] = list
    """Returns the ids of the effects."""


@contextmanager
def sqlite(folder: Path) -> Iterator[Place]:
    path = folder / "queues.db"
    trio.run(_make_file, path)

    def effects() -> list[str]:
        with closing(sqlite3.connect(path)) as connection:
            return [id_ for (id_,) in connection.execute("SELECT id FROM effect")]

    table = f'plugin = "sqlite"\npath = "{path}"\nsynchronous = "normal"'
    yield Place(table, "INSERT INTO effect VALUES (?)", effects)


async def _make_file(path: Path) -> None:
    config, context = SqliteConfig(path=str(path)), fake_context("driver/place")
    async with SqliteDriver(config=config, context=context).open() as broker, broker.transaction() as transaction:
        await transaction.execute(EFFECTS)


@contextmanager
def postgres(folder: Path) -> Iterator[Place]:
    module = _module("plugins/postgres/tests/_cluster.py")
    if (programs := module.programs()) is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    with _short(folder) as short, module.open_cluster(short, programs) as cluster:
        cluster.query(EFFECTS)
        table = (
            f'plugin = "postgres"\ndsn = "{cluster.dsn}?password={cluster.password.replace(" ", "%20")}"\noutbox = true'
        )
        yield Place(
            table,
            "INSERT INTO effect VALUES (%s)",
            lambda: [str(row[0]) for row in cluster.query("SELECT id FROM effect")],
        )


@contextmanager
def redis(folder: Path) -> Iterator[Place]:
    module = _module("plugins/redis/tests/_server.py")
    if (program := module.program()) is None:
        pytest.skip("needs Redis: apt-get install redis-server")
    with _short(folder) as short, module.open_server(short, program) as server:
        yield Place(f'plugin = "redis"\ndsn = "redis://:{module.PASSWORD}@127.0.0.1:{server.port}"')


@contextmanager
def amqp(_: Path) -> Iterator[Place]:
    """On the RabbitMQ of the machine; its heartbeat is what frees the lease of a process that stands still."""
    prefix = f"once{new_id()[:8]}."
    try:
        trio.run(_delete, f"{prefix}none")
    except Exception as error:  # noqa: BLE001  whatever it is, there is no broker
        pytest.skip(f"needs RabbitMQ on {RABBITMQ[0]}:{RABBITMQ[1]}: {error}")
    try:
        yield Place(f'plugin = "amqp"\nheartbeat = 1\nprefix = "{prefix}"')
    finally:
        trio.run(_delete, f"{prefix}kernel.lease.timer.cluster.clock")


async def _delete(queue: str) -> None:
    settings = LinkSettings(hosts=(RABBITMQ,), core=Settings(response="\0guest\0guest"))
    async with open_link(settings) as link, link.open_channel() as channel:
        await channel.call(with_names(commands.Queue.Delete(), queue=queue))


@contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """Make a folder for a server."""
    made = folder / "server"
    made.mkdir()
    yield made


def _module(name: str) -> ModuleType:
    """Load the servers that the tests of a plugin start; they are no package."""
    spec = importlib.util.spec_from_file_location(f"once_{Path(name).stem}", ROOT / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


PLACES = {"sqlite": sqlite, "postgres": postgres, "redis": redis, "amqp": amqp}
