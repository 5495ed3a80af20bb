"""No output of a service shows a secret: every place where one may be kept, every way to fail, every way out.

One service has everything on that looks at it; its drivers, workers and application fail with all that they know in the
text of their exceptions, and log it. All that comes out of it is collected and searched.
"""

from __future__ import annotations

import gzip
import http.client
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from kernel._control import client
from kernel._control.places import Place

CANARIES = {
    "environment": "yellow-feathers-of-the-environment",
    "file": "blue-feathers-of-a-file",
    "dsn": "red-feathers-of-an-address",
    "pair": "black-feathers-of-a-pair",
    "rotated": "green-feathers-that-came-later",
}
PATIENCE = 30.0
CODE = """
import logging, sys, warnings
from contextlib import asynccontextmanager
import attrs, trio
from kernel import DeadLetter, Retry, Secret, handles
from kernel.abc import Context, Driver
from kernel.errors import PermanentError, UnavailableError

@attrs.frozen
class Config:
    password: Secret
    token: Secret
    url: Secret
    pairs: Secret
    breaks: bool = False

    def all(self):
        inner = [self.url.reveal().split(":")[2].partition("@")[0], self.pairs.reveal().partition("Password=")[2]]
        known = [self.password.reveal(), self.token.reveal(), self.token.fresh(), self.url.reveal(), *inner]
        return " ".join([*known, repr(known), self.pairs.reveal()])

@attrs.frozen
class Store(Driver):
    Config = Config
    config: Config
    context: Context

    @asynccontextmanager
    async def open(self):
        await trio.lowlevel.checkpoint()
        self.context.log.warning("opens", config=self.config, all=self.config.all())
        logging.getLogger("store").warning("opens with %s", self.config.all())
        warnings.warn(self.config.all())
        self.context.report_degraded(self.config.all())
        if self.config.breaks:
            raise ConnectionError(self.config.all())
        yield self.config

class Odd(Exception):
    def __init__(self, config):
        super().__init__(config.all(), config)
        self.told = config.all()

    def __str__(self):
        return self.told

class Handlers:
    def __init__(self, store: Config):
        self.store = store

    @handles("exception")
    async def exception(self, payload):
        print(Odd(self.store).args[1])
        raise Odd(self.store)

    @handles("permanent")
    async def permanent(self, payload):
        try:
            raise Odd(self.store)
        except Odd as error:
            raise PermanentError(self.store.all()) from error

    @handles("unavailable")
    async def unavailable(self, payload):
        raise UnavailableError(self.store.all())

    @handles("group")
    async def group(self, payload):
        raise ExceptionGroup(self.store.all(), [Odd(self.store), ValueError(self.store.all())])

    @handles("base")
    async def base(self, payload):
        raise BaseException(self.store.all())

    @handles("letter")
    async def letter(self, payload):
        return DeadLetter(self.store.all())

    @handles("again")
    async def again(self, payload):
        return Retry(0.01, self.store.all())

class Listens:
    def __init__(self, store: Config):
        self.store = store

    async def run(self):
        await trio.sleep(0.2)
        raise Odd(self.store)

class Api:
    def __init__(self, store: Config, events, rpc):
        self.store, self.events, self.rpc = store, events, rpc

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        _, way, subject = scope["path"].split("/")
        if way == "raise":
            raise Odd(self.store)
        body = b""
        if way == "call":
            try:
                await self.rpc.call(subject, None)
            except Exception as error:
                body = repr((type(error).__name__, str(error), vars(error))).encode()
        else:
            await self.events.publish(subject, None)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""
MANIFEST = """
[kernel]
name = "canary"
grace_period = 20.0
drain_timeout = 1.0

[logging]
format = "{format}"
level = "debug"
{file}

[dispatchers.health]
plugin = "health"
bind = "127.0.0.1:0"
page = true

[dispatchers.metrics]
plugin = "prometheus"
bind = "127.0.0.1:0"
handlers = true

[drivers.traces]
plugin = "otel"
endpoint = "{sink}/v1/traces"
sample = 1.0
headers = {{ authorization = {{ env = "PASSWORD" }} }}

[drivers.errors]
plugin = "sentry"
dsn = {{ env = "SENTRY" }}

[drivers.queue]
plugin = "memory"

[drivers.events]
plugin = "publisher"
driver = "queue"
protocol = "json"

[drivers.rpc]
plugin = "rpc_client"
driver = "queue"
protocol = "json"

[drivers.store]
use = "leaky:Store"
{secrets}

[drivers.broken]
use = "leaky:Store"
essential = false
breaks = true
{secrets}
[drivers.broken.restart]
max_restarts = 1
backoff_initial = 0.01

[dispatchers.api]
plugin = "web"
bind = "127.0.0.1:0"
access_log = "json"
access_log_file = "access.log"

[dispatchers.work]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "work"
bindings = ["#"]

[workers.handlers]
use = "leaky:Handlers"
dispatcher = "work"
retry = {{ attempts = 2, backoff_initial = 0.01 }}

[workers.listens]
use = "leaky:Listens"
essential = false
[workers.listens.restart]
max_restarts = 1
backoff_initial = 0.01

[workers.api]
use = "leaky:Api"
dispatcher = "api"
"""
SECRETS = """
password = { env = "PASSWORD" }
token = { file = "token" }
url = { env = "URL" }
pairs = { env = "PAIRS" }
"""
SUBJECTS = ("exception", "permanent", "unavailable", "group", "base", "letter", "again")


@attrs.define
class Sink:
    """Takes what is posted: spans and reports."""

    url: str
    came: list[tuple[str, bytes]] = attrs.field(factory=list[tuple[str, bytes]])

    def of(self, part: str) -> bytes:
        return b"\n".join(body for path, body in self.came if part in path)


@contextmanager
def sink() -> Iterator[Sink]:
    found = Sink("")

    class Takes(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            packed = self.headers.get("content-encoding") == "gzip"
            found.came.append((self.path, gzip.decompress(body) if packed else body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Takes) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def wait(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < until, what
        time.sleep(0.02)
    return found


def got(port: str, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=PATIENCE)
    connection.request("GET", path)
    answer = connection.getresponse()
    try:
        return f"{answer.status} {answer.headers} {answer.read().decode()}"
    finally:
        connection.close()


def written(at: Path, format_: str, url: str, *, to_file: bool) -> dict[str, str]:
    """Write a service into a folder; return its environment."""
    file = 'file = { path = "said/own.log" }' if to_file else ""
    (at / "leaky.py").write_text(CODE)
    (at / "kernel.toml").write_text(MANIFEST.format(format=format_, sink=url, secrets=SECRETS, file=file))
    (at / "token").write_text(CANARIES["file"])
    (at / "token").chmod(0o600)
    return os.environ | {
        "PASSWORD": CANARIES["environment"],
        "URL": f"amqp://shop:{CANARIES['dsn']}@127.0.0.1:9/",
        "PAIRS": f"Server=db;Password={CANARIES['pair']}",
        "SENTRY": url.replace("://", "://public@") + "/1",
        "KERNEL_CONTROL_DIR": str(at / "control"),
    }


@pytest.mark.slow
@pytest.mark.parametrize(("format_", "to_file"), [("text", False), ("json", True)])
def test_no_output_of_a_service_shows_a_secret(format_: str, to_file: bool, tmp_path: Path) -> None:
    with sink() as outside, open(tmp_path / "out", "wb") as out:
        environ = written(tmp_path, format_, outside.url, to_file=to_file)
        command = [sys.executable, "-m", "kernel", "run"]
        with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=out, stderr=out) as process:
            try:
                told = looked_at(tmp_path, process.pid)
                process.send_signal(signal.SIGTERM)
                process.wait(PATIENCE)
            finally:
                process.kill()
        told |= {"spans": outside.of("traces").decode("latin-1"), "reports": outside.of("envelope").decode()}
    told["output"] = (tmp_path / "out").read_text()
    told |= {file.name: file.read_text() for file in (*tmp_path.glob("said/*"), tmp_path / "access.log")}

    assert {name: found for name, text in told.items() if (found := shown(text))} == {}
    assert [name for name in ("output", "spans", "reports", "calls", "tree", "dead") if "***" not in told[name]] == []
    assert sorted(name for name, text in told.items() if not text) == []


def looked_at(at: Path, pid: int) -> dict[str, str]:
    """Have everything in a service fail, and look at it in every way."""

    def said() -> str:
        return "".join(file.read_text() for file in (at / "out", *at.glob("said/*")))

    def port(component: str) -> str:
        pattern = rf'dispatcher/{component}\W[^\n]*?http://127\.0\.0\.1:(\d+)|http://127\.0\.0\.1:(\d+)[^\n]*dispatcher/{component}"'
        found: re.Match[str] = wait(lambda: re.search(pattern, said()))
        return found[1] or found[2]

    api, health, metrics = map(port, ("api", "health", "metrics"))
    wait(lambda: " 503 " not in f" {got(health, '/live')}")
    answers = [got(api, "/raise/x")]
    (at / "token").write_text(CANARIES["rotated"])
    answers += [got(api, f"/{way}/{subject}") for way in ("call", "publish") for subject in SUBJECTS]
    wait(lambda: said().count("dead-lettered") >= len(SUBJECTS))
    place = Place(service="canary", pid=pid, path=at / "control" / f"canary-{pid}.sock")
    orders = {name: json.dumps(client.ask(place, name), default=str) for name in ("ps", "tree", "why")}
    looked = {name: got(health, f"/{name}") for name in ("status", "ready", "live", "page")}
    peeked = subprocess.run(
        [sys.executable, "-m", "kernel", "tree", "canary"],
        cwd=at, env=os.environ | {"KERNEL_CONTROL_DIR": str(place.path.parent)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        **orders, **looked, "metrics": got(metrics, "/metrics"), "calls": "\n".join(answers),
        "dead": said(), "command": peeked.stdout + peeked.stderr,
    }  # fmt: skip


def shown(text: str) -> list[str]:
    """Return which canaries a text shows, or what is left of one that was cut."""
    return [name for name, canary in CANARIES.items() if canary[: len("yellow-feath")] in text]
