"""What `kernel check` finds in a table of the protocols, and where it looks for the exceptions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MANIFEST = """\
[drivers.queue]
plugin = "memory"

[protocols.rpc]
plugin = "nameko_rpc"
exceptions = {exceptions}

[drivers.rpc]
plugin = "rpc_client"
driver = "queue"
protocol = "rpc"
"""
ERRORS = "class OutOfStockError(Exception): ...\n\n\nlimit = 3\n"

pytestmark = pytest.mark.slow


def kernel(folder: Path, command: str, exceptions: list[str]) -> subprocess.CompletedProcess[str]:
    (folder / "kernel.toml").write_text(MANIFEST.format(exceptions=json.dumps(exceptions)))
    (folder / "stock_errors.py").write_text(ERRORS)
    line = [sys.executable, "-m", "kernel", command, "kernel.toml"]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_exceptions_are_found_in_the_folder_of_the_manifest_and_shown_in_the_plan(tmp_path: Path) -> None:
    shown = kernel(tmp_path, "plan", ["stock_errors:OutOfStockError", "KeyError"])

    assert shown.returncode == 0, shown.stderr
    assert 'exceptions = ["stock_errors:OutOfStockError", "builtins:KeyError"]' in " ".join(shown.stdout.split())


def test_every_wrong_exception_is_a_problem_of_the_manifest(tmp_path: Path) -> None:
    wrong = {
        "stock_errors:OutOfStokError": 'did you mean "OutOfStockError"?',
        "stock_error:OutOfStockError": 'there is no module "stock_error"',
        "stock_errors:limit": 'must be a class derived from Exception, got "stock_errors:limit"',
        "SystemExit": 'must be a class derived from Exception, got "SystemExit"',
        "OutOfStockError": 'must be "module:Name"',
    }

    checked = kernel(tmp_path, "check", ["KeyError", *wrong])

    assert checked.returncode == 2
    assert [text for text in wrong.values() if text not in checked.stderr] == []
    assert checked.stderr.count("kernel.toml:6: [protocols.rpc].exceptions") == len(wrong)
