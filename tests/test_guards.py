"""What `conftest.py` at the root does for every test of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
