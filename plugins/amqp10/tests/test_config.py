from __future__ import annotations

from typing import Any

import pytest
from kernel_amqp10 import Amqp10Config, Amqp10Driver
from kernel_amqp10._config import Amqp10TlsTable
from kernel_amqp10.link import proton as engine

from kernel import Secret
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import discover
from kernel._plan.plan import Plan, resolve
from kernel.abc import Capability, Queue, Topology
from kernel.errors import PlanError, StartupError
from kernel.testing import fake_context


def problems(**keys: Any) -> str:
    return "\n".join(Amqp10Config(**keys).problems())


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"hosts": ("broker.example",)}, "`password` is missing"),
        ({"username": "me"}, "`password` is missing"),
        ({"management": ""}, "`management` is missing"),
        ({"mechanism": "EXTERNAL"}, "needs a `certificate`"),
        ({"backoff_initial": 5.0, "backoff_max": 1.0}, "`backoff_max` must not be less"),
    ],
)
def test_what_does_not_go_together_is_told(keys: dict[str, Any], said: str) -> None:
    assert said in problems(**keys)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"hosts": ("[::1]:1",)},
        {"hosts": ("broker.example",), "password": Secret("x")},
        {"dialect": "artemis", "management": "", "mechanism": "ANONYMOUS", "hosts": ("broker.example",)},
        {
            "dialect": "artemis",
            "mechanism": "EXTERNAL",
            "tls": Amqp10TlsTable(certificate="cert.pem"),
            "hosts": ("broker.example",),
        },
    ],
)
def test_what_goes_together_is_no_problem(keys: dict[str, Any]) -> None:
    assert problems(**keys) == ""


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"hosts": ()}, "at least one host"),
        ({"hosts": ("a:b",)}, "must be"),
        ({"hosts": ("::1",)}, "in brackets"),
        ({"management": "ftp://x"}, "must be the URL"),
        ({"management": "http://user:word@x"}, "without a user"),
        ({"idle_timeout": 0.5}, "idle_timeout"),
        ({"max_frame_bytes": 100}, "max_frame_bytes"),
    ],
)
def test_what_no_key_can_be_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Amqp10Config(**keys)


def service(**queue: object) -> dict[str, object]:
    return {
        "kernel": {"name": "shop"},
        "drivers": {"queue": {"plugin": "amqp10"}},
        "dispatchers": {"work": {"plugin": "consumer", "driver": "queue", "protocol": "json", "queue": "q", **queue}},
        "workers": {"work": {"use": f"{__name__}:work", "dispatcher": "work"}},
    }


def plan_of(manifest: dict[str, object]) -> Plan:
    return resolve(from_mapping(manifest, environ={}), discover())


async def work(payload: dict[str, object]) -> None:
    """Takes anything."""


def test_check_says_that_the_engine_is_missing_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    [missing] = Amqp10Driver.check(Amqp10Config())

    assert "python-qpid-proton is not installed" in missing
    assert "pip install 'trio-kernel-amqp10[engine]'" in missing
    assert "apt-get install gcc" in missing


async def test_a_service_without_the_engine_does_not_start_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "proton", None)

    with pytest.raises(StartupError, match="python-qpid-proton"):
        async with Amqp10Driver(config=Amqp10Config(), context=fake_context("driver/queue")).open():
            pass


@pytest.mark.parametrize(
    ("queue", "capability"),
    [
        ({"max_length": 10}, "max_length"),
        ({"ttl": 10.0}, "ttl"),
        ({"partition_by": "subject"}, "ordering"),
        ({"deduplication_window": 10.0}, "deduplication"),
    ],
)
def test_what_it_cannot_do_is_refused(
    queue: dict[str, object], capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernel_amqp10._driver.is_installed", lambda: True)

    with pytest.raises(PlanError, match=f'needs "{capability}", which'):
        plan_of(service(**queue))


def test_what_it_can_do_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel_amqp10._driver.is_installed", lambda: True)

    assert plan_of(service(dead_letters="grave", options={"max_priority": 9})) is not None


def test_artemis_cannot_declare_options() -> None:
    topology = Topology(queues=[Queue(name="q", options=object())])

    assert list(Amqp10Driver.check_topology(Amqp10Config(dialect="artemis"), topology)) == [
        'queue "q" has `options`, which `dialect = "artemis"` cannot declare'
    ]
    assert list(Amqp10Driver.check_topology(Amqp10Config(), topology)) == []


def test_the_password_is_not_shown() -> None:
    assert "hush" not in repr(Amqp10Config(password=Secret("hush")))


def test_the_engine_is_found_without_being_imported() -> None:
    assert engine.is_installed() in {True, False}


def test_artemis_does_not_tell_that_nobody_gets_a_message() -> None:
    lacking = Amqp10Driver.capabilities_of(Amqp10Config()) - Amqp10Driver.capabilities_of(
        Amqp10Config(dialect="artemis")
    )

    assert lacking == {Capability.MANDATORY}
