"""A worker in a process has the secrets of its config, and nothing else has them."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path
from typing import Any

import attrs
import pytest
from kernel_pools import ProcessPool

from kernel import DeadLetter, Secret
from kernel.abc import PlainWorker
from kernel.errors import PlanError
from kernel.testing import open_kernel

from .conftest import OpenPool, manifest

PROCESSES: dict[str, Any] = {"plugin": "process_pool", "processes": 1}
CANARY = "yellow-feathers"
ENVIRON = {"TOKEN": CANARY, "OTHER": "blue"}

pytestmark = pytest.mark.slow


@attrs.frozen
class Account:
    token: Secret
    others: list[Secret] = attrs.field(factory=list[Secret])


class Teller:
    """Knows a secret."""

    def __init__(self, config: Account) -> None:
        self.config = config

    def __call__(self, what: str) -> Any:
        match what:
            case "length":
                return [len(one.reveal()) for one in (self.config.token, *self.config.others)]
            case "shown":
                return f"{self.config} {self.config.token!r}"
            case "environment":
                return [*os.environ.values(), Path("/proc/self/cmdline").read_text()]
            case "raise":
                raise ValueError(f"not {self.config.token.reveal()}")
            case _:
                return self.config.token


class Strict(Teller):
    """Says what it must not."""

    def __init__(self, config: Account) -> None:
        raise ValueError(f"bad {config.token.reveal()}")


def count(ask: str, config: Account) -> list[int]:
    return Teller(config)("length")


def teller(name: str = "Teller", **config: Any) -> dict[str, Any]:
    return {
        "use": f"{__name__}:{name}",
        "config": {"token": {"env": "TOKEN"}, **config},
        "retry": {"attempts": 1},
    }


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the service, of which processes have a part."""
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", ["Teller", "count"])
async def test_a_worker_in_a_process_has_the_secrets_of_its_config(name: str, open_pool: OpenPool) -> None:
    async with open_pool(PROCESSES, teller(name, others=[{"env": "OTHER"}]), environ=ENVIRON) as client:
        assert await client.ask("x", "length") == [len(CANARY), len("blue")]


async def test_a_secret_is_nowhere_in_a_process_but_in_its_config(open_pool: OpenPool) -> None:
    async with open_pool(PROCESSES, teller(), environ=ENVIRON) as client:
        shown, around = await client.ask("x", "shown"), await client.ask("x", "environment")

    assert CANARY not in f"{shown} {around}"


async def test_a_secret_does_not_come_back(open_pool: OpenPool) -> None:
    async with open_pool(PROCESSES, teller(), expected=Exception, environ=ENVIRON) as client:
        await client.tell("x", "return")
        (settled,) = await client.service.wait_settled(1)

    assert isinstance(settled.outcome, DeadLetter)
    assert "a Secret cannot be pickled" in settled.outcome.reason


async def test_a_secret_that_a_process_says_is_masked_as_one_that_the_service_says() -> None:
    async with open_kernel(manifest(PROCESSES, teller()), expected=ValueError, environ=ENVIRON) as service:
        await service.publish("publisher", "x", "raise")
        (settled,) = await service.wait_settled(1)

    assert isinstance(settled.outcome, DeadLetter)
    assert "ValueError: not ***" in settled.outcome.reason


async def test_a_secret_in_the_error_of_a_constructor_is_masked() -> None:
    async with open_kernel(manifest(PROCESSES, teller("Strict")), environ=ENVIRON) as service:
        await service.publish("publisher", "x", "length")
        await service.wait_settled(1)
        told = [one.reason for one in service.kernel.snapshot().components if one.id == "driver/pool"]

    assert told == ["a process fails at making the object of worker/calls: ValueError: bad ***"]


async def test_a_new_process_has_what_the_file_of_a_secret_holds_then(tmp_path: Path, open_pool: OpenPool) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    worker = teller(token={"file": str(file)})
    async with open_pool({**PROCESSES, "max_tasks_per_child": 2}, worker) as client:
        before = await client.ask("x", "length")
        file.write_text("eleven")
        lengths = [await client.ask("x", "length") for _ in range(2)]

    assert [before, *lengths] == [[3], [3], [6]]


@attrs.frozen
class Odd:
    """Has what cannot be serialized."""

    size: int
    lock: Any = attrs.field(factory=threading.Lock)


@attrs.frozen
class Unreadable:
    """Can be written, and not be read."""

    size: int

    def __reduce__(self) -> Any:
        return int, ("no number",)


class WithOdd:
    def __init__(self, config: Odd) -> None:
        """Takes it."""

    def __call__(self, payload: Any) -> None:
        """Handles."""


class WithUnreadable(WithOdd):
    def __init__(self, config: Unreadable) -> None:
        """Takes it."""


class Named:
    def __call__(self, payload: Any) -> None:
        """Handles."""


Renamed, Named = Named, WithOdd  # type: ignore[misc]  # what is called so is something else


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("WithOdd", "has a config that cannot go to another process.*: TypeError: cannot pickle '_thread.lock' object"),
        ("WithUnreadable", "has a config that cannot go to another process.*: ValueError: invalid literal"),
    ],
)
async def test_check_says_what_of_a_config_cannot_go_to_a_process(name: str, problem: str) -> None:
    worker = {"use": f"{__name__}:{name}", "config": {"size": 1}}
    with pytest.raises(PlanError, match=problem) as told:
        async with open_kernel(manifest(PROCESSES, worker)):
            pytest.fail("it opened")

    assert "workers.calls.config" in str(told.value)


async def test_check_says_of_a_class_that_it_cannot_be_found_in_another_process() -> None:
    with pytest.raises(PlanError, match=r"cannot go to another process.*not the same object"):
        async with open_kernel(manifest(PROCESSES, {"use": f"{__name__}:Renamed"})):
            pytest.fail("it opened")


async def test_threads_take_any_config() -> None:
    worker = {"use": f"{__name__}:WithOdd", "config": {"size": 1}}
    async with open_kernel(manifest({"plugin": "thread_pool"}, worker)) as service:
        await service.publish("publisher", "x", 1)
        await service.wait_settled(1)


def test_to_ask_whether_a_config_can_go_reveals_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Secret, "reveal", pytest.fail)
    monkeypatch.setattr(Secret, "fresh", pytest.fail)
    worker = PlainWorker(id="", use=Teller, is_function=False, arguments={"config": Account(Secret(CANARY))})

    assert ProcessPool.refusal(worker) == ""
    with pytest.raises(TypeError, match="a Secret cannot be pickled"):
        pickle.dumps(worker.arguments)
