"""Two components that listen at one address are refused before either starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kernel import handles
from kernel._core.spec import Plan
from kernel._manifest.manifest import from_mapping, load
from kernel._manifest.registry import Registry, discover
from kernel._plan.plan import resolve
from kernel.errors import PlanError


async def app(scope: Any, receive: Any, send: Any) -> None: ...


class Answerer:
    @handles("a")
    async def answer(self, payload: object) -> None: ...


REGISTRY = Registry((*discover().plugins, *Registry.of({"workers": {"app": app, "answerer": Answerer}}).plugins))


def plan(**dispatchers: dict[str, Any]) -> Plan:
    webs = {name for name, table in dispatchers.items() if table["plugin"] == "web"}
    workers: dict[str, Any] = {f"for_{name}": {"use": "app", "dispatcher": name} for name in webs}
    workers["one"] = {"use": "tests.plan.test_addresses:watch"}
    return resolve(from_mapping({"kernel": {"name": "x"}, "dispatchers": dispatchers, "workers": workers}), REGISTRY)


async def watch() -> None: ...


def web(bind: str | list[str], **more: Any) -> dict[str, Any]:
    return {"plugin": "web", "bind": bind, "insecure": True, **more}


def health(bind: str) -> dict[str, Any]:
    return {"plugin": "health", "bind": bind, "insecure": True}


def metrics(bind: str) -> dict[str, Any]:
    return {"plugin": "prometheus", "bind": bind, "insecure": True}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (web("127.0.0.1:8080"), web("127.0.0.1:8080")),
        (web("127.0.0.1:8080"), health("127.0.0.1:8080")),
        (health("127.0.0.1:8080"), metrics("127.0.0.1:8080")),
        (web("127.0.0.1:8080"), metrics("localhost:8080")),
        (web("0.0.0.0:8080"), health("127.0.0.1:8080")),
        (web("127.0.0.1:8080"), web("0.0.0.0:8080")),
        (web("[::]:8080"), health("[::1]:8080")),
        (web(["127.0.0.1:1234", "127.0.0.1:8080"]), health("127.0.0.1:8080")),
        (web("unix:/tmp/s"), health("unix:/tmp/s")),
    ],
)
def test_an_address_is_had_by_one(one: dict[str, Any], other: dict[str, Any]) -> None:
    with pytest.raises(PlanError) as caught:
        plan(first=one, second=other)

    [problem] = caught.value.problems
    assert problem.path in {"[dispatchers.first]", "[dispatchers.second]"}
    assert "listens, too: give one another" in problem.text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (web("127.0.0.1:8080"), web("127.0.0.1:8081")),
        (web("127.0.0.1:0"), web("127.0.0.1:0")),
        (web("127.0.0.1:8080"), web("127.0.0.2:8080")),
        (web("127.0.0.1:8080"), web("[::1]:8080")),
        (web("0.0.0.0:8080"), web("[::]:8080")),
        (web("127.0.0.1:8080", reuse_port=True), web("127.0.0.1:8080", reuse_port=True)),
        (web("unix:/tmp/s"), web("unix:/tmp/t")),
        (web("fd:3"), web("fd:4")),
    ],
)
def test_addresses_that_go_together_are_left_alone(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert {"dispatcher/first", "dispatcher/second"} <= plan(first=one, second=other).components.keys()


def test_one_that_names_an_address_twice_is_told_so() -> None:
    with pytest.raises(PlanError, match=r"127\.0\.0\.1:8080, where it listens already: name each address once"):
        plan(first=web(["127.0.0.1:8080", "127.0.0.1:8080"]))


@pytest.mark.parametrize("plugin", ["websocket", "zmq_reply"])
def test_other_plugins_say_where_they_listen_too(plugin: str) -> None:
    table = {"port": 8080} if plugin == "websocket" else {"bind": ["127.0.0.1:8080"]}
    protocol = "jsonrpc" if plugin == "websocket" else "json"
    tables = {
        "kernel": {"name": "x"},
        "dispatchers": {"calls": {"plugin": plugin, "protocol": protocol, **table}, "health": health("127.0.0.1:8080")},
        "workers": {"answerer": {"use": "answerer", "dispatcher": "calls"}},
    }
    with pytest.raises(PlanError, match=r"127\.0\.0\.1:8080, where dispatcher/\w+ listens, too"):
        resolve(from_mapping(tables), REGISTRY)


def test_a_service_inside_has_no_address_of_the_outer_one(tmp_path: Path) -> None:
    (tmp_path / "inner.toml").write_text('[kernel]\nname = "inner"\n[dispatchers.health]\nbind = "127.0.0.1:8080"\n')
    outer = '[kernel]\nname = "outer"\n[dispatchers.metrics]\nplugin = "prometheus"\nbind = "127.0.0.1:8080"\n'
    worker = '[workers.one]\nuse = "tests.plan.test_addresses:watch"\n[services.desk]\nmanifest = "inner.toml"\n'
    (tmp_path / "kernel.toml").write_text(outer + worker)
    with pytest.raises(PlanError, match=r"127\.0\.0\.1:8080, where dispatcher/"):
        resolve(load(tmp_path / "kernel.toml", environ={}), REGISTRY)
