"""What the tests of this plugin share: the engine, which has to be compiled."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest
from kernel_amqp10.link.proton import load

if TYPE_CHECKING:
    from kernel_amqp10.link.proton import Proton


@pytest.fixture(scope="session")
def proton() -> Proton:
    """The engine; the guard of the repository makes the skip a failure where `CI` is set."""
    if importlib.util.find_spec("proton") is None:
        pytest.skip("needs python-qpid-proton: uv sync --group engine")
    return load()
