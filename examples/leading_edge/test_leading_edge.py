"""The requester gets its answers, and the service ends with its status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MANIFEST = Path(__file__).parent / "kernel.toml"


@pytest.mark.slow
def test_the_service_ends_when_the_requester_has_returned() -> None:
    command = [sys.executable, "-m", "kernel", "run", "--log-format", "json", str(MANIFEST), "--", "--count", "2"]

    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout) == (0, "1 -> 2\n2 -> 4\n")
