"""A log file: put aside by time and by size, made anew where it is gone, and lost records are counted."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kernel._core.policies import LogFilePolicy
from kernel._log.levels import Levels
from kernel._log.log import Log, LogSettings
from kernel._log.sinks import RotatingFile, Sink, Stream

from ._logs import UnprintableError

BEGIN = datetime(2026, 11, 27, 22, 30, tzinfo=UTC).timestamp()
HOUR, DAY = 3600.0, 86400.0


class Clock:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = BEGIN

    def __call__(self) -> float:
        return self.seconds

    def forward(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.log"


@pytest.fixture
def clock(path: Path) -> Clock:
    return Clock(path)


def opened(clock: Clock, **policy: Any) -> RotatingFile:
    return RotatingFile(clock.path, LogFilePolicy(path="shop.log", **policy), clock)


def log_to(sink: Sink, **settings: Any) -> Log:
    return Log(LogSettings(sink=sink, levels=Levels(), **settings))


def aside(path: Path) -> list[str]:
    return sorted(file.name.removeprefix("shop.log.") for file in path.parent.iterdir() if file != path)


def events(path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


def test_over_two_days_each_hour_has_its_file_and_the_last_24_are_kept(clock: Clock, path: Path) -> None:
    file = opened(clock, rotate="hourly", keep=24)
    written: dict[str, list[str]] = {}
    for number in range(int(2 * DAY / 600)):
        hour = datetime.fromtimestamp(clock(), UTC).strftime("%Y-%m-%d_%H")
        written.setdefault(hour, []).append(f"{number}\n")
        file.write(f"{number}\n")
        clock.forward(600)

    *before, last = written
    assert aside(path) == before[-24:]
    assert path.read_text() == "".join(written[last])
    for hour in before[-24:]:
        assert path.with_name(f"shop.log.{hour}").read_text() == "".join(written[hour])


def test_a_day_has_its_file(clock: Clock, path: Path) -> None:
    file = opened(clock, rotate="daily", keep=7)
    for _ in range(10 * 24):
        file.write("x\n")
        clock.forward(HOUR)

    assert aside(path) == [f"2026-1{day}" for day in ("1-30", "2-01", "2-02", "2-03", "2-04", "2-05", "2-06")]


def test_hours_in_which_nothing_is_said_have_no_file(clock: Clock, path: Path) -> None:
    file = opened(clock)
    file.write("one\n")
    clock.forward(5 * HOUR)
    file.write("two\n")

    assert aside(path) == ["2026-11-27_22"]
    assert path.read_text() == "two\n"


def test_a_file_has_its_size_and_no_line_is_in_two(clock: Clock, path: Path) -> None:
    file = opened(clock, rotate="never", max_bytes=100, keep=3)
    for number in range(70):
        file.write(f"line {number:03}\n")  # 9 bytes: 11 in a file

    assert [len(path.with_name(f"shop.log.{name}").read_text().splitlines()) for name in aside(path)] == [11, 11, 11]
    kept = [path.with_name(f"shop.log.{name}").read_text() for name in aside(path)]
    assert "".join([*kept, path.read_text()]) == "".join(f"line {number:03}\n" for number in range(33, 70))


def test_time_and_size_go_together(clock: Clock, path: Path) -> None:
    file = opened(clock, max_bytes=10)
    for _ in range(3):
        file.write("12345678\n")
    clock.forward(HOUR)
    file.write("x\n")

    assert aside(path) == ["2026-11-27_22", "2026-11-27_22.000001", "2026-11-27_22.000002"]


def test_a_line_that_is_larger_than_the_size_is_written(clock: Clock, path: Path) -> None:
    file = opened(clock, rotate="never", max_bytes=10)
    file.write(f"{'x' * 100}\n")
    file.write("y\n")

    assert path.read_text() == "y\n"


def test_what_a_process_left_an_hour_ago_is_put_aside_by_the_next_one(clock: Clock, path: Path) -> None:
    path.write_text("left\n")
    os.utime(path, (BEGIN - HOUR, BEGIN - HOUR))

    opened(clock).write("x\n")

    assert aside(path) == ["2026-11-27_21"]
    assert path.read_text() == "x\n"


def test_a_process_goes_on_in_the_file_of_the_same_hour(clock: Clock, path: Path) -> None:
    path.write_text("left\n")
    os.utime(path, (BEGIN - 60, BEGIN - 60))

    opened(clock).write("x\n")

    assert path.read_text() == "left\nx\n"


def test_a_clock_that_is_set_back_puts_nothing_aside(clock: Clock, path: Path) -> None:
    file = opened(clock)
    file.write("one\n")
    clock.forward(-2 * HOUR)
    file.write("two\n")

    assert not aside(path)


def test_only_what_was_put_aside_is_deleted(clock: Clock, path: Path) -> None:
    others = ["shop.log.old", "shop.log.gz", "shop.logs", "other.2026-11-27_22"]
    for other in others:
        path.with_name(other).write_text("x")
    file = opened(clock, keep=0)
    for _ in range(5):
        file.write("x\n")
        clock.forward(HOUR)

    assert {file.name for file in path.parent.iterdir()} == {"shop.log", *others}


@pytest.mark.parametrize("gone", ["deleted", "moved", "with-its-folder"])
def test_a_file_that_is_gone_is_made_anew(clock: Clock, path: Path, gone: str) -> None:
    clock.path = path = path.parent / "logs" / "shop.log"
    file = opened(clock)
    file.write("one\n")
    match gone:
        case "deleted":
            path.unlink()
        case "moved":
            path.rename(path.with_name("elsewhere"))
        case _:
            shutil.rmtree(path.parent)
    file.write("two\n")

    assert path.read_text() == "two\n"


def test_a_file_is_not_for_everybody_to_read(clock: Clock, path: Path) -> None:
    opened(clock).write("x\n")

    assert not path.stat().st_mode & 0o007


def test_a_device_keeps_its_name(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed: list[Path] = []
    monkeypatch.setattr(Path, "rename", lambda self, to: renamed.append(to))
    clock.path = Path(os.devnull)
    file = opened(clock, max_bytes=3)
    for _ in range(3):
        file.write("12345\n")
        clock.forward(HOUR)

    assert not renamed


# --- what cannot be written -------------------------------------------------------------------------------------------


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Let no file of this process become larger, while inside."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_the_records_and_nothing_else_and_they_are_counted(clock: Clock, path: Path) -> None:
    log = log_to(opened(clock), as_json=True, service="shop")
    logger = log.logger()
    logger.info("before")
    with disk_of(path.stat().st_size + 20):
        for number in range(5):
            logger.info("lost", number=number)
        assert log.lost == 5
    logger.info("after")

    whole, torn, told, after = path.read_text().splitlines()
    assert json.loads(whole)["event"] == "before"
    assert len(torn) == 20
    assert {"event": "records of the log were lost", "records": 5}.items() <= json.loads(told).items()
    assert json.loads(after)["event"] == "after"
    assert log.lost == 5


def test_what_a_file_does_not_take_goes_to_standard_error(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.path = Path("/dev/full")
    log = log_to(opened(clock))
    log.logger().error("no room")

    assert "error   kernel: no room\n" in capsys.readouterr().err
    assert log.lost == 1


ELSEWHERE = "the log cannot be written to its file, and goes to standard error"


class Flaky(Sink):
    """Takes what is written if it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.taken: list[str] = []

    def write(self, text: str) -> None:
        if self.error is not None:
            raise self.error
        self.taken.append(json.loads(text)["event"])


def said(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """Return what standard error has got: each event, and the error that it comes with."""
    lines = map(json.loads, capsys.readouterr().err.splitlines())
    return [(line["event"], line.get("error", "")) for line in lines]


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("/proc/no/shop.log", "[Errno 2] No such file or directory: '/proc/no'"),
        ("/dev/null/shop.log", "[Errno 17] File exists: '/dev/null'"),
        ("/proc", "[Errno 21] Is a directory: '/proc'"),
        ("/dev/full", "[Errno 28] No space left on device"),
    ],
    ids=["no folder", "below a file", "a folder", "full"],
)
def test_standard_error_says_once_why_the_log_goes_there(
    clock: Clock, capsys: pytest.CaptureFixture[str], where: str, why: str
) -> None:
    clock.path = Path(where)
    log = log_to(opened(clock), as_json=True)
    for number in range(3):
        log.logger().info(f"line {number}")

    assert said(capsys) == [(ELSEWHERE, why), ("line 0", ""), ("line 1", ""), ("line 2", "")]
    assert log.lost == 3


def test_a_text_log_says_why_as_the_kernel_does(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    clock.path = Path("/proc")
    log_to(opened(clock)).logger().info("x")

    why = f"error   kernel: {ELSEWHERE} error=\"[Errno 21] Is a directory: '/proc'\"\n"
    assert why in capsys.readouterr().err


def test_a_sink_that_has_recovered_says_again_why_it_takes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Flaky()
    log = log_to(sink, as_json=True)
    for error in (OSError(errno.ENOSPC, "full"), None, OSError(errno.EIO, "broken")):
        sink.error = error
        log.logger().info("one")
        log.logger().info("two")

    assert said(capsys) == [
        (ELSEWHERE, "[Errno 28] full"),
        ("one", ""),
        ("two", ""),
        (ELSEWHERE, "[Errno 5] broken"),
        ("one", ""),
        ("two", ""),
    ]
    assert sink.taken == ["records of the log were lost", "one", "two"]
    assert log.lost == 4


def test_an_error_of_a_sink_that_has_no_text_breaks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Flaky()
    sink.error = UnprintableError()
    log_to(sink, as_json=True).logger().info("x")

    assert said(capsys) == [(ELSEWHERE, "<unprintable UnprintableError>"), ("x", "")]


def test_without_a_standard_error_nothing_is_said_and_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    sink = Flaky()
    sink.error = OSError(errno.ENOSPC, "full")
    log = log_to(sink, as_json=True)
    log.logger().info("x")

    assert log.lost == 1


def test_a_stream_that_takes_nothing_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    stream.close()
    log = log_to(Stream(stream), as_json=True)
    log.logger().info("x")

    assert said(capsys) == []
    assert log.lost == 1


def test_a_folder_that_cannot_be_written_costs_nothing_else(clock: Clock, path: Path) -> None:
    path.mkdir()  # where the file should be
    log = log_to(opened(clock))
    log.logger().info("x")

    assert log.lost == 1


def test_a_pipe_that_nobody_reads_makes_nobody_wait(clock: Clock, path: Path) -> None:
    os.mkfifo(path)
    log = log_to(opened(clock))
    log.logger().info("x")

    assert log.lost == 1


def test_a_file_that_cannot_be_renamed_goes_on(clock: Clock, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, to: Path) -> None:
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr(Path, "rename", refuse)
    file = opened(clock)
    file.write("one\n")
    clock.forward(HOUR)
    file.write("two\n")

    assert path.read_text() == "one\ntwo\n"


def test_the_end_of_an_hour_on_a_full_disk_loses_no_file(clock: Clock, path: Path) -> None:
    file = opened(clock)
    file.write("one\n")
    clock.forward(HOUR)
    with disk_of(0), pytest.raises(OSError, match="too large"):
        file.write("two\n")
    file.write("three\n")

    assert path.with_name("shop.log.2026-11-27_22").read_text() == "one\n"
    assert path.read_text() == "three\n"


def test_the_last_words_are_in_the_file_and_on_standard_error(
    clock: Clock, path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = log_to(opened(clock), as_json=True, service="shop")
    log.logger().info("x")
    log.last_words("it ends", ["worker/w at a.py:1"])

    [said] = capfd.readouterr().err.splitlines()
    assert path.read_text().splitlines()[-1] == said
    assert {"event": "it ends", "service": "shop", "culprits": ["worker/w at a.py:1"]}.items() <= json.loads(
        said
    ).items()
