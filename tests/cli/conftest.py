"""A folder with a service, for the tests of the command line."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ._service import CODE, SERVICE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a service, as the current one; what a command imports from it is forgotten."""
    (tmp_path / "kernel.toml").write_text(SERVICE)
    (tmp_path / "tea.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "KERNEL_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    sys.modules.pop("tea", None)  # of a test that planned in this process
    yield tmp_path
    sys.modules.pop("tea", None)


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """Have the garbage collector look again at what a command kept from it: in a process of tests, it does not stay."""
    yield
    gc.unfreeze()
