"""What every test of supervision starts from."""

from __future__ import annotations

import pytest

from ._stage import Stage


@pytest.fixture
def stage() -> Stage:
    """An empty stage; a test asks for `autojump_clock` itself, since pytest-trio looks only there."""
    return Stage()
