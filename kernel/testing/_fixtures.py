"""The pytest plugin: fixtures for tests of services and plugins.

pytest imports this module in every test run of everybody who has the package installed, before coverage starts: so
it imports nothing but pytest, and the fixtures import what they hand out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernel.testing import Faults, OpenKernel


@pytest.fixture
def open_kernel(no_leaks: None) -> OpenKernel:
    """`kernel.testing.open_kernel`, with a check afterwards that the test left nothing behind."""
    from kernel.testing import open_kernel as opener  # noqa: PLC0415  see the module docstring

    del no_leaks
    return opener


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail the test if it leaves descriptors, threads or child processes behind."""
    from kernel.testing import no_leaks as check  # noqa: PLC0415  see the module docstring

    with check():
        yield


@pytest.fixture
def faults() -> Iterator[Faults]:
    """A new script of `kernel.testing.Faults`, for `open_kernel(..., faults=faults)`; fails if one is never reached."""
    from kernel.testing import Faults as NewFaults  # noqa: PLC0415  see the module docstring

    script = NewFaults()
    yield script
    script.check_reached()
