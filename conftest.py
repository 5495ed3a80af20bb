"""Guards that hold for every test of the repository: in `tests`, `plugins` and `examples`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar

import hypothesis
import pytest
import trio

from kernel import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

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
CANARY = {"CANARY_PASSWORD": "yellow-feathers-of-every-child"}
"""In the environment of every process that a test starts: no output of it may show this."""
_is_secret = re.compile(r"PASSWORD|SECRET|TOKEN|DSN").search
"""Whether the name of a variable says that nothing may show its value."""
_KEPT: dict[str, bytes] = {}
"""What the processes that the test has started keep to themselves, by variable."""
_PRINTED: list[bytes] = []
"""What of their output the test has read."""
_FILES: set[str] = set()
"""Where else they print: paths, since an open file would be a leak to whoever looks for them."""
_ReportT = TypeVar("_ReportT", pytest.TestReport, pytest.CollectReport)
_FunctionT = TypeVar("_FunctionT", bound="Callable[..., object]")


@pytest.fixture(autouse=True)
def process_is_left_as_found() -> Generator[None]:
    """Fail a test that leaves the working directory, or what a signal does, changed for those after it."""
    before = _state_of_process()
    yield
    assert _state_of_process() == before


@pytest.fixture(autouse=True)
def children_show_no_secret(process_is_left_as_found: None) -> Generator[None]:
    """Fail a test of which a child has printed what its environment keeps secret."""
    yield
    shown = shown_by_children()
    assert shown == [], "what a process has printed that the test has started shows these variables of its environment"


@pytest.fixture(autouse=True)
def outside_does_not_matter(children_show_no_secret: None, monkeypatch: pytest.MonkeyPatch) -> None:
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


def shown_by_children() -> list[str]:
    """Return the variables that the children of a test have shown since this was last asked."""
    for path in _FILES:
        with suppress(OSError):  # it may be gone
            _PRINTED.append(Path(path).read_bytes())
    said = b"".join(_PRINTED)
    shown = sorted(name for name, value in _KEPT.items() if value in said)
    _FILES.clear()
    _PRINTED.clear()
    _KEPT.clear()
    return shown


def _unseen(function: _FunctionT) -> _FunctionT:
    """Keep a function out of what names the line at which a task or thread is: it is none of the test's."""
    function.__code__ = function.__code__.replace(co_filename="<children>")  # type: ignore[attr-defined]
    return function


class _Noting:
    """The output of a child, as a test reads it line by line: notes what is read."""

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever a stream has
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[Any]:
        return map(_noted, self._stream)

    def __next__(self) -> Any:  # noqa: ANN401  text or bytes
        return _noted(next(self._stream))

    def __enter__(self) -> Self:
        self._stream.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stream.__exit__(*raised)

    @_unseen
    def read(self, *size: int) -> Any:  # noqa: ANN401  text or bytes
        return _noted(self._stream.read(*size))

    @_unseen
    def readline(self, *size: int) -> Any:  # noqa: ANN401  as above
        return _noted(self._stream.readline(*size))


def _noted(output: Any) -> Any:  # noqa: ANN401  as above
    _PRINTED.append(output.encode(errors="replace") if isinstance(output, str) else bytes(output or b""))
    return output


def _note_file(output: object) -> None:
    """Note a file that a child prints into; it is read when the test is over."""
    descriptor = output if isinstance(output, int) else output.fileno() if hasattr(output, "fileno") else -1
    if descriptor >= 0 and S_ISREG(os.fstat(descriptor).st_mode):
        _FILES.add(os.readlink(f"/proc/self/fd/{descriptor}"))


def _watch_children() -> None:
    """Give every child the canary, and note what it prints, whoever starts it and reads that."""
    make, communicate, receive = (
        subprocess.Popen.__init__,
        subprocess.Popen.communicate,
        trio.lowlevel.FdStream.receive_some,
    )

    @_unseen
    def started(self: subprocess.Popen[Any], *args: Any, env: Mapping[str, str] | None = None, **kwargs: Any) -> None:  # noqa: ANN401  whatever it takes
        environ: dict[str, str] = {**(os.environ if env is None else env), **CANARY}
        for name, value in environ.items():
            if _is_secret(name) and len(value) >= _LONG_ENOUGH:
                _KEPT[name] = value.encode()
        for output in (kwargs.get("stdout"), kwargs.get("stderr")):
            _note_file(output)
        make(self, *args, env=environ, **kwargs)
        for name in ("stdout", "stderr"):
            if (stream := getattr(self, name)) is not None:
                setattr(self, name, _Noting(stream))

    @_unseen
    def communicated(self: subprocess.Popen[Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:  # noqa: ANN401  whatever it takes
        output, errors = communicate(self, *args, **kwargs)
        return _noted(output), _noted(errors)

    @_unseen
    async def received(self: trio.lowlevel.FdStream, *args: Any, **kwargs: Any) -> bytes | bytearray:  # noqa: ANN401  whatever it takes
        return _noted(await receive(self, *args, **kwargs))

    subprocess.Popen.__init__ = started  # type: ignore[method-assign,assignment]
    subprocess.Popen.communicate = communicated  # type: ignore[method-assign]
    trio.lowlevel.FdStream.receive_some = received  # type: ignore[method-assign,assignment]


_watch_secrets()
_watch_children()


def _state_of_process() -> tuple[object, ...]:
    return (Path.cwd(), *map(signal.getsignal, _SIGNALS))
