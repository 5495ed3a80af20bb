"""A secret goes through everything that a service says, and comes out nowhere."""

from __future__ import annotations

import io
import json
import logging
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from typing_extensions import override

from kernel import DeliverySettled, Event, EventHub, Secret, handles
from kernel._cli.cli import execute
from kernel._core.spec import Plan
from kernel._delivery.failure import add_note
from kernel._log.capture import capture
from kernel._log.events import log_events
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry, discover
from kernel._plan.plan import resolve
from kernel._supervise.run import serve
from kernel.abc import Context, Driver
from kernel.errors import InvalidError

from ._logs import log_to

CANARY = "yellow-feathers"
CODE = """
from contextlib import asynccontextmanager
import logging
import attrs, trio
from kernel import Secret
from kernel.abc import Context, Driver

@attrs.frozen
class Config:
    password: Secret
    user: str = "shop"

@attrs.frozen
class Store(Driver):
    Config = Config
    config: Config
    context: Context

    @asynccontextmanager
    async def open(self):
        await trio.lowlevel.checkpoint()
        self.context.log.info("opens", config=self.config, password=self.config.password)
        logging.getLogger("store").warning("opens with %r, %s", self.config, self.config.password)
        raise ConnectionError(f"cannot connect with {self.config}")
        yield
"""
MANIFEST = """
[kernel]
name = "shop"
[drivers.store]
use = "own_store:Store"
password = { env = "PASSWORD" }
[drivers.store.restart]
policy = "never"
"""


@attrs.frozen
class Config:
    password: Secret


@attrs.frozen
class Store(Driver[Config]):
    """Fails with all that it knows in its message."""

    Config = Config
    config: Config
    context: Context

    @override
    @asynccontextmanager
    async def open(self) -> AsyncIterator[Config]:
        await trio.lowlevel.checkpoint()
        self.context.log.warning("opens", config=self.config, many=[self.config.password])
        self.context.report_degraded(f"{self.config}")
        logging.getLogger("store").warning("opens with %r, %s", self.config, self.config.password)
        yield self.config
        error = ConnectionError(f"lost {self.config}", self.config.password)
        add_note(error, f"with {self.config.password}")
        raise error


class Worker:
    """Fails with what its driver gave it."""

    def __init__(self, store: Config, events: Any) -> None:
        self.store = store
        self.events = events

    @handles("#")
    async def on(self, payload: Any) -> None:
        raise ValueError(f"{payload} {self.store} {self.store.password!r}")

    async def run(self) -> None:
        await trio.sleep(1)  # until the queue is there
        await self.events.publish("a.b", 1)
        await trio.sleep(5)
        raise ValueError(f"{self.store}")


def plan() -> Plan:
    broker = {"driver": "queue", "protocol": "json"}
    manifest = {
        "kernel": {"name": "shop", "grace_period": 20.0, "drain_timeout": 1.0},
        "drivers": {
            "store": {"plugin": "store", "password": {"env": "PASSWORD"}},
            "queue": {"plugin": "memory"},
            "events": {"plugin": "publisher", **broker},
        },
        "dispatchers": {"work": {"plugin": "consumer", "queue": "work", "bindings": ["#"], **broker}},
        "workers": {
            "w": {"use": "w", "dispatcher": "work", "retry": {"attempts": 1}, "restart": {"policy": "never"}},
        },
    }
    own = Registry.of({"drivers": {"store": Store}, "workers": {"w": Worker}})
    registry = Registry((*discover().plugins, *own.plugins))
    return resolve(from_mapping(manifest, environ={"PASSWORD": CANARY}), registry)


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
async def test_nothing_that_a_service_says_shows_a_secret(autojump_clock: Any, as_json: bool) -> None:
    stream, hub = io.StringIO(), EventHub()
    log = log_to(stream, level="debug", as_json=as_json)
    events: list[Event] = []
    hub.subscribe(events.append)
    log_events(hub, log)
    with capture(log):
        result = await serve(plan(), log=log.logger(), hub=hub)

    said = stream.getvalue()
    assert any(isinstance(event, DeliverySettled) and event.error for event in events)
    assert said.count("***") > 5
    assert "lost Config(password=***)" in said
    assert CANARY not in said + repr(events) + repr(result) + notes(result.errors)


def notes(errors: tuple[BaseException, ...]) -> str:
    return repr([getattr(error, "__notes__", ()) for error in errors])


def test_a_plan_shows_no_secret() -> None:
    assert CANARY not in repr(plan())


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["plan"],
        ["plan", "--json"],
        ["plan", "--mermaid"],
        ["run", "--log-level=debug"],
        ["run", "--log-level=debug", "--log-format=json"],
        ["run", "--log-level=debug", "--set=logging.file={path='said/own.log'}"],
    ],
    ids=" ".join,
)
def test_no_command_shows_a_secret(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_store.py").write_text(CODE)
    path = tmp_path / "kernel.toml"
    path.write_text(MANIFEST)
    monkeypatch.setenv("PASSWORD", CANARY)
    monkeypatch.setattr("kernel._cli.service.run", in_this_process)

    status = execute([*arguments, str(path)])

    out, err = capfd.readouterr()
    assert status == (1 if arguments[0] == "run" else 0)
    said = "".join(file.read_text() for file in tmp_path.glob("said/*"))
    assert bool(said) == ("logging.file" in arguments[-1])
    assert CANARY not in out + err + said
    assert "run" not in arguments or "***" in err


def in_this_process(plan: Plan, *, log: Any, hub: EventHub, ends_process: bool, **more: Any) -> Any:
    """Run as `kernel run` does, without what would end the tests."""
    from kernel._supervise.process import run  # noqa: PLC0415  the one that is replaced

    assert ends_process
    return run(plan, log=log, hub=hub, **more)


def test_a_manifest_that_is_wrong_shows_no_secret(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(CANARY)
    secret.chmod(0o600)
    bad = {
        "kernel": {"name": "x"},
        "drivers": {"store": {"plugin": "store", "password": {"file": str(secret)}, "pasword": {"env": "PASSWORD"}}},
    }
    with pytest.raises(InvalidError) as caught:
        resolve(from_mapping(bad, environ={"PASSWORD": CANARY}), Registry.of({"drivers": {"store": Store}}))

    assert "pasword" in str(caught.value)
    assert CANARY not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    "show",
    [
        str,
        repr,
        lambda secret: f"{secret}",
        lambda secret: json.dumps(secret, default=str),
    ],
    ids=["str", "repr", "format", "json"],
)
def test_a_secret_is_shown_as_asterisks(show: Callable[[Secret], str]) -> None:
    assert CANARY not in show(Secret(CANARY))


def test_a_secret_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Secret(CANARY))


def test_a_secret_is_revealed_to_who_asks_for_it() -> None:
    assert Secret(CANARY).reveal() == CANARY
    assert Secret(CANARY) == Secret(CANARY)
    assert len({Secret(CANARY), Secret(CANARY), Secret("other")}) == 2
    assert Secret(CANARY) != CANARY
