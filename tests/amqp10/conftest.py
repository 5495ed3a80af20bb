"""What the tests of AMQP 1.0 share: the engine, and a RabbitMQ of their own with its plugin."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from ..amqp._node import scripts
from ._node import Amqp10Node, running


@pytest.fixture(scope="session")
def engine() -> None:
    """The engine, which has to be compiled."""
    if importlib.util.find_spec("proton") is None:
        pytest.skip("needs python-qpid-proton: uv sync --group engine")


@pytest.fixture(scope="session")
def rabbit(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Amqp10Node]:
    """The node; those who stop it start it again."""
    programs = scripts()
    if programs is None:
        pytest.skip("needs rabbitmq-server")
    with running(tmp_path_factory.mktemp("node"), programs) as node:
        yield node
