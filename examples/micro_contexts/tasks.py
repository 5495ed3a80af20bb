"""The tasks of micro-framework's README: plain functions and methods, each in the context that the manifest names."""

from __future__ import annotations

import logging
import os
from typing import Any

from kernel import Failure, handles

log = logging.getLogger(__name__)


@handles("task.test")
def test(payload: dict[str, Any]) -> None:
    """Fail, so that the failure worker is called."""
    raise ValueError(f"no {payload['name']}")


def test_failure(failure: Failure) -> None:
    """Is called when all attempts were in vain."""
    log.warning("failed after %s attempts: %s", failure.attempts, failure.payload)


def has_some_value(payload: object) -> bool:
    """Say which payloads `test2` wants."""
    return isinstance(payload, dict) and payload.get("some_key") == "some_value"


@handles("task.test2")
def test2(payload: dict[str, Any]) -> None:
    """Do something in a greedy thread."""
    log.warning("called with %s", payload["some_key"])


class Class:
    """A worker with a method, in a process."""

    @handles("task.class_method")
    def class_method(self, payload: dict[str, Any]) -> int:
        """Return which process that is."""
        return os.getpid()
