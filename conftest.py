"""Guards that hold for every test of the repository: in `tests`, `plugins` and `examples`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import hypothesis
import pytest

from kernel import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FROM_OUTSIDE = ("KERNEL_MANIFEST", "NOTIFY_SOCKET", "WATCHDOG_USEC")
hypothesis.settings.register_profile("kernel", deadline=None)  # timings never decide a test
hypothesis.settings.load_profile("kernel")
_NODE = "a RabbitMQ of their own"
_BROKER = "the RabbitMQ of the machine"
_ON_BROKER = (
    "tests/amqp/",
    "examples/",
    *(f"plugins/amqp/tests/{part}" for part in ("broker/", "link/", "tools/", "test_conf")),
)
"""Where the tests are that use it: each deletes the places for delayed messages that it has used, which all share."""
_TOGETHER = {
    "tests/amqp/test_faults.py": _NODE,
    "tests/amqp/test_loss.py": _NODE,
    "tests/amqp/test_tls.py": _NODE,
    "tests/cli/test_new.py": "the cache of mypy",
    "tests/docs/test_reader.py": "the clone, and the port that the documents name",
}
"""What the tests of a file share that is costly: they run in one process, where several share the tests."""
_SERVERS = ("plugins/mongo/", "plugins/postgres/", "plugins/redis/", "plugins/s3/", "tests/amqp10/", "tests/stomp/")
"""Folders whose tests share one server that they start."""
_HIDDEN: set[str] = set()
"""The text of every `Secret` that has been made."""
_LONG_ENOUGH = 6
_ReportT = TypeVar("_ReportT", pytest.TestReport, pytest.CollectReport)


@pytest.fixture(autouse=True)
def process_is_left_as_found() -> Generator[None]:
    """Fail a test that leaves the working directory, or what a signal does, changed for those after it."""
    before = _state_of_process()
    yield
    assert _state_of_process() == before


@pytest.fixture(autouse=True)
def outside_does_not_matter(process_is_left_as_found: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide settings of the caller's shell that a kernel would take as its own.

    `monkeypatch` comes after the other guard, so that what a test patched is back before the guard looks.
    """
    for name in _FROM_OUTSIDE:
        monkeypatch.delenv(name, raising=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let no secret be printed and, where the whole suite must run, no test off because it "needs" what is absent."""
    return without_secrets(without_excuse((yield)))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Do the same for whole files."""
    return without_excuse((yield))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Where several processes share the tests, give each the next one; what belongs together goes to one of them."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415  not there unless it calls this

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    return Scheduling(config, log)


def scope(nodeid: str) -> str:
    """Return what a test shares with those that run in the same process: its own id if it shares nothing.

    The peers that `tests/amqp` talks with last as long as a file.
    """
    file = nodeid.partition("::")[0]
    for folder in _SERVERS:
        if file.startswith(folder):
            return folder
    return _TOGETHER.get(file, _BROKER if file.startswith(_ON_BROKER) else nodeid)


def without_excuse(report: _ReportT) -> _ReportT:
    """Make a skip whose reason starts with "needs " a failure if the environment says `CI`."""
    if os.environ.get("CI") and report.skipped and isinstance(report.longrepr, tuple):
        file, line, reason = report.longrepr
        if reason.removeprefix("Skipped: ").startswith("needs "):
            report.outcome = "failed"
            report.longrepr = f"{file}:{line}: {reason}: a skip is a failure here, because CI is set"
    return report


def without_secrets(report: pytest.TestReport) -> pytest.TestReport:
    """Make a test a failure if what was printed or logged while it ran has the text of a `Secret` in it."""
    said = "".join(text for name, text in report.sections if name.startswith("Captured "))
    if report.passed and said and (shown := [text for text in _HIDDEN if text in said]):
        report.outcome = "failed"
        report.longrepr = f"{len(shown)} secrets stand in what was printed, the first of {len(shown[0])} characters"
    return report


def _watch_secrets() -> None:
    """Note the text of every secret that a test, or what it tests, makes; a short one may stand anywhere by chance."""
    make = Secret.__init__

    def noted(self: Secret, text: str, *, again: Callable[[], str] | None = None) -> None:
        make(self, text, again=again)
        if len(text) >= _LONG_ENOUGH:
            _HIDDEN.add(text)

    Secret.__init__ = noted  # type: ignore[method-assign]


_watch_secrets()


def _state_of_process() -> tuple[object, ...]:
    return (Path.cwd(), *map(signal.getsignal, _SIGNALS))
