from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture
def address() -> Iterator[str]:
    """An endpoint that nobody else uses; short, since the system bounds the length of such paths."""
    folder = tempfile.mkdtemp(prefix="kz")
    yield f"ipc://{folder}/s"
    shutil.rmtree(folder)
