"""The scripts of the gate can be read; what they find, only running them tells."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPTS = [
    path
    for path in sorted((Path(__file__).parents[1] / ".ci").iterdir())
    if path.read_text().startswith("#!/usr/bin/env bash")
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_a_script_of_the_gate(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script], check=False, capture_output=True, text=True).stderr == ""
