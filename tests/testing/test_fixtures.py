"""The fixtures that come with the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kernel.testing import Faults

pytest_plugins = ["pytester"]
MANIFEST = {"kernel": {"name": "x"}, "workers": {"w": {"use": "trio:sleep_forever"}}}


async def test_open_kernel_is_there_without_an_import(open_kernel: Callable[..., Any], autojump_clock: Any) -> None:
    async with open_kernel(MANIFEST) as service:
        assert service.kernel.is_ready


def test_faults_are_new_for_each_test(faults: Faults) -> None:
    assert faults.count("driver/store", "save") == 0


@pytest.mark.usefixtures("no_leaks")
def test_a_test_that_leaves_nothing_passes() -> None:
    assert True


FIXTURES = """
import os, subprocess, sys, threading
import trio

MANIFEST = {"kernel": {"name": "x"}, "workers": {"w": {"use": "trio:sleep_forever"}}}
KEPT = []

async def test_opens(open_kernel, autojump_clock):
    async with open_kernel(MANIFEST) as service:
        assert service.kernel.is_ready

def test_faults_are_new_for_each_test(faults):
    assert type(faults).__name__ == "Faults"

def test_reaches_no_fault(faults):
    faults.fail("driver/store", "save", error=OSError())

def test_leaks_a_descriptor(no_leaks):
    KEPT.append(os.open(os.devnull, os.O_RDONLY))

def test_leaks_a_thread(no_leaks):
    threading.Thread(target=threading.Event().wait, daemon=True).start()

def test_leaks_a_child_process(no_leaks):
    KEPT.append(subprocess.Popen(["sleep", "0.3"]))

async def test_leaks_though_it_opens_a_kernel(open_kernel, autojump_clock):
    async with open_kernel(MANIFEST):
        KEPT.append(os.open(os.devnull, os.O_RDONLY))
"""


@pytest.mark.slow
def test_fixtures_are_there_and_fail_tests_that_leave_something_behind(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ntrio_mode = true\n")
    pytester.makepyfile(FIXTURES)

    result = pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider", "-rE")

    result.assert_outcomes(passed=7, errors=5)
    result.stdout.fnmatch_lines_random([
        "*left behind: descriptor * (/dev/null)",
        "*left behind: thread *",
        "*left behind: child process *",
        "*never reached: call 1 of driver/store.save*",
    ])
