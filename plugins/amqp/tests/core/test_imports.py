"""The core stands alone: what it imports is the standard library, attrs and pamqp."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import kernel_amqp.core
import pytest

FOLDER = Path(kernel_amqp.core.__file__).parent
ALLOWED = sys.stdlib_module_names - {"asyncio", "threading", "socket", "ssl", "select", "time"} | {"attrs", "pamqp"}


def imported(path: Path) -> set[str]:
    """Top names that a file imports; a relative import counts only if it leaves the core."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= (
                {(node.module or "").partition(".")[0]}
                if node.level == 0
                else {"kernel_amqp"}
                if node.level > 1
                else set()
            )
    return names


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_the_core_does_no_io_and_knows_no_clock_and_no_kernel(path: Path) -> None:
    assert imported(path) - ALLOWED == set()
