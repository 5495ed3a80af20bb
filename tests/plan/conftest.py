"""What every test of plans is given."""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest


@pytest.fixture(autouse=True)
def same_path() -> Generator[None]:
    """Take folders off the path again that a test had put there: planning a service inside another leaves its own."""
    before = list(sys.path)
    yield
    sys.path[:] = before
