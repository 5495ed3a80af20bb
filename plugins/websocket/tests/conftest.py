"""The two ways to a service behind a websocket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .service import AT_A_DOOR


@pytest.fixture(params=["port", "door"])
def either_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have the test run at a port of its own, and behind a `web` dispatcher."""
    token = AT_A_DOOR.set(request.param == "door")
    yield
    AT_A_DOOR.reset(token)
