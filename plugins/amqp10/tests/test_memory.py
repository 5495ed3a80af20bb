"""A fact about the memory of the engine, which is not Python's: nothing is used after it was freed, or freed twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kernel_amqp10.link.proton import Proton

PROGRAM = Path(__file__).parent / "letting_go.py"


@pytest.mark.slow
def test_nothing_is_freed_twice_however_a_conversation_ends_and_whoever_lets_go_first(proton: Proton) -> None:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("needs valgrind: apt-get install valgrind")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}

    done = subprocess.run(
        [valgrind, "--undef-value-errors=no", "--error-exitcode=9", sys.executable, PROGRAM],
        env={**environment, "PYTHONMALLOC": "malloc"},
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
    )

    assert (done.returncode, done.stdout) == (0, "all let go\n"), done.stderr
