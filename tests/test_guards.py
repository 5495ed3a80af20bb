"""What `conftest.py` at the root does for every test of the repository."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import trio

from kernel import Secret

ROOT = Path(__file__).parents[1]


@pytest.fixture
def guards(pytestconfig: pytest.Config) -> Any:
    """The module itself, which no test can import by a name."""
    plugins = pytestconfig.pluginmanager.get_plugins()
    return next(plugin for plugin in plugins if getattr(plugin, "__file__", None) == str(ROOT / "conftest.py"))


def test_the_files_whose_tests_stay_together_exist(guards: Any) -> None:
    assert [file for file in guards._TOGETHER if not (ROOT / file).is_file()] == []


def test_tests_that_start_brokers_share_a_process_and_others_do_not(guards: Any) -> None:
    scopes = [
        guards.scope(f"tests/amqp/{test}")
        for test in ("test_loss.py::test_a", "test_tls.py::test_b[::]", "test_pika.py::test_c", "test_pika.py::test_d")
    ]

    assert scopes[0] == scopes[1] != scopes[2] == scopes[3]
    assert guards.scope("tests/core/test_router.py::test_e[::]") == "tests/core/test_router.py::test_e[::]"


def test_a_secret_that_is_printed_fails_the_test(guards: Any) -> None:
    def told(section: str, text: str, outcome: str = "passed") -> str:
        report = pytest.TestReport("x", ("x", 1, "x"), {}, outcome, None, "call", sections=[(section, text)])  # type: ignore[arg-type]
        return guards.without_secrets(report).outcome

    hidden = Secret("yellow-feathers-of-a-guard").reveal()

    assert told("Captured stdout call", f"password={hidden};") == "failed"
    assert told("Captured log call", f"a\n{hidden}") == "failed"
    assert told("Captured stderr setup", "***") == "passed"
    assert told("Captured stdout call", hidden, "skipped") == "skipped"


LEAKS = [sys.executable, "-c", "import os, sys; print(os.environ['CANARY_PASSWORD']); sys.stdout.flush()"]


def read_to_the_end() -> None:
    with subprocess.Popen(LEAKS, stdout=subprocess.PIPE, text=True, env={}) as process:
        assert process.stdout is not None
        assert [*process.stdout]


def read_at_once() -> None:
    assert subprocess.run(LEAKS, capture_output=True, check=True, env=None).stdout


def read_by_trio() -> None:
    async def run() -> None:
        await trio.run_process(LEAKS, capture_stdout=True)

    trio.run(run)


def read_from_a_file(file: IO[bytes] | None = None) -> None:
    subprocess.run(LEAKS, stdout=file, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("way", [read_to_the_end, read_at_once, read_by_trio])
def test_a_child_that_prints_the_canary_fails_the_test(way: Callable[[], None], guards: Any) -> None:
    way()

    assert guards.shown_by_children() == ["CANARY_PASSWORD"]
    assert guards.shown_by_children() == []


@pytest.mark.slow
def test_a_child_that_prints_it_into_a_file_fails_the_test(guards: Any, tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as file:
        read_from_a_file(file)

    assert guards.shown_by_children() == ["CANARY_PASSWORD"]
