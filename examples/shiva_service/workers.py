"""Shiva's example workers: one that counts messages in a database, a daemon, and a health check over HTTP."""

from __future__ import annotations

import logging

import attrs
import coredis
import trio
from kernel_postgres import Database
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from kernel import Envelope, handles

log = logging.getLogger(__name__)


async def schema(postgres: Database) -> None:
    """Make the table, before anybody uses it."""
    await postgres.execute("CREATE TABLE IF NOT EXISTS bench (id text PRIMARY KEY, number int)")


class Bench:
    """Writes each message once, and how many there were into Redis."""

    def __init__(self, postgres: Database, redis: coredis.Redis[str]) -> None:
        self.postgres = postgres
        self.redis = redis

    @handles("shiva.bench")
    async def bench(self, message: dict[str, int], envelope: Envelope) -> None:
        """Count one message."""
        statement = "INSERT INTO bench VALUES (%s, %s) ON CONFLICT DO NOTHING"
        await self.postgres.execute(statement, [envelope.id, message["number"]])
        await self.redis.incr("bench")


@attrs.frozen(kw_only=True)
class DaemonConfig:
    """The `config` table of the daemon."""

    echo: str
    interval: float = 60.0
    """Seconds."""


class Daemon:
    """Says something, again and again."""

    def __init__(self, config: DaemonConfig) -> None:
        self.config = config

    async def run(self) -> None:
        """Say it until the service stops."""
        while True:
            log.warning("%s", self.config.echo)
            await trio.sleep(self.config.interval)


class Healthcheck:
    """Answers whether the databases do."""

    def __init__(self, postgres: Database, redis: coredis.Redis[str]) -> None:
        self.postgres = postgres
        self.redis = redis
        self.app = Starlette(routes=[Route("/healthcheck", self.check)])

    async def check(self, _: Request) -> JSONResponse:
        """Ask both."""
        [(rows,)] = await self.postgres.execute("SELECT count(*) FROM bench")
        return JSONResponse({"rows": rows, "counted": int(await self.redis.get("bench") or 0)})
