"""An access log that cannot be written: what is lost is said and counted, and no line is glued to half of another."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
import trio.testing
from kernel_web import LinesMissed
from kernel_web.asgi.access import LINES_MAX, AccessLog, as_text
from kernel_web.asgi.missed import CALM, Missed
from kernel_web.wire.lines import LinesFile

from kernel.testing import fake_context

from .conftest import _recorder

FULL = os.strerror(errno.ENOSPC).lower()
TOO_LARGE = os.strerror(errno.EFBIG).lower()


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"four"})


def missed(events: list[Any]) -> list[int]:
    return [event.lines for event in events if isinstance(event, LinesMissed)]


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file of the process become longer, as if its disk were full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def opened(path: Path) -> LinesFile:
    file = LinesFile(path)
    file.open()
    return file


# --- the file -------------------------------------------------------------------------------------------------------


def test_what_was_written_in_part_is_lost_and_the_next_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = opened(path)
    with room_for(10):
        before = file.write(b"first\nsecond\nthird\n")
        meanwhile = file.write(b"fourth\n")
    after = file.write(b"fifth\n")

    assert (before, meanwhile, after) == ((2, TOO_LARGE), (1, TOO_LARGE), (0, ""))
    assert path.read_bytes() == b"first\nseco\nfifth\n"


def test_no_line_is_begun_where_the_room_ends_with_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = opened(path)
    with room_for(6):
        lost = file.write(b"first\nsecond\n")
    file.write(b"third\n")

    assert lost == (1, TOO_LARGE)
    assert path.read_bytes() == b"first\nthird\n"


def test_half_a_line_that_is_cut_off_the_file_leaves_no_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = opened(path)
    with room_for(3):
        file.write(b"first\n")
    os.truncate(path, 0)
    file.write(b"second\n")

    assert path.read_bytes() == b"second\n"


def test_half_a_line_of_another_process_or_of_a_life_before_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"hal")
    opened(path).write(b"first\n")
    one, other = opened(path), opened(path)
    with room_for(path.stat().st_size + 2):
        other.write(b"second\n")
        one.write(b"third\n")
    other.write(b"fourth\n")
    one.write(b"fifth\n")

    assert path.read_bytes() == b"hal\nfirst\nse\nfourth\nfifth\n"


@pytest.mark.parametrize("how", ["renamed", "deleted", "replaced", "link"])
def test_a_file_that_is_taken_away_is_made_anew(tmp_path: Path, how: str) -> None:
    path = tmp_path / "log"
    if how == "link":
        path.symlink_to(tmp_path / "first")
    file = opened(path)
    file.write(b"first\n")
    if how == "renamed":
        path.rename(tmp_path / "log.1")
    else:
        path.unlink()
    if how == "replaced":
        path.write_bytes(b"another\n")
    elif how == "link":
        path.symlink_to(tmp_path / "second")
    told = file.write(b"second\n")

    assert told == (0, "")
    assert path.read_bytes() == (b"another\nsecond\n" if how == "replaced" else b"second\n")
    assert [one.read_bytes() for one in tmp_path.glob("log.*")] == ([b"first\n"] if how == "renamed" else [])


def test_a_file_that_cannot_be_made_anew_is_said_and_made_later(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "log"
    file = opened(path)
    path.unlink()
    folder.rmdir()
    lost = file.write(b"first\nsecond\n")
    folder.mkdir()
    file.write(b"third\n")

    assert lost == (2, os.strerror(errno.ENOENT).lower())
    assert path.read_bytes() == b"third\n"


def test_a_pipe_that_has_no_reader_is_said(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="No such device"):
        LinesFile(path).open()
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = opened(path)
    file.write(b"first\n")
    read = os.read(reader, 100)
    os.close(reader)
    lost = file.write(b"second\n")

    assert read == b"first\n"
    assert lost == (1, os.strerror(errno.EPIPE).lower())


async def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    file = LinesFile(None)
    file._fd = writer
    lines, read, told = b"a line\n" * 30_000, bytearray(), list[tuple[int, str]]()
    async with trio.open_nursery() as nursery:

        async def write() -> None:
            told.append(await trio.to_thread.run_sync(file.write, lines))
            os.close(writer)

        nursery.start_soon(write)
        while data := await trio.to_thread.run_sync(os.read, reader, 65536):
            read += data
    os.close(reader)

    assert told == [(0, "")]
    assert read == lines


# --- what is said ---------------------------------------------------------------------------------------------------


def a_log(path: Path) -> tuple[AccessLog, list[Any], list[dict[str, Any]]]:
    events: list[Any] = []
    logs: list[dict[str, Any]] = []
    context = attrs.evolve(fake_context("dispatcher/web", events=events), log=_recorder(logs))
    return AccessLog(opened(path), as_text, Missed(context, "access.log")), events, logs


def add(log: AccessLog, count: int) -> None:
    log.add([("", "GET", 404, 0.5, 0, 5)] * count, [("127.0.0.1", b"/a", "1.1", "x")] * count, "now")


async def test_it_is_said_when_lines_are_lost_and_how_many_when_it_goes_on(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    log, events, logs = a_log(tmp_path / "log")
    with room_for(1):
        for count in (3, 4, 5):
            add(log, count)
            await log.flush()
        mock_clock.jump(3 * CALM)  # in which nothing is written
        await log.flush()
    add(log, 2)
    await log.flush()
    mock_clock.jump(CALM / 2)
    await log.flush()
    too_early = list(logs)
    mock_clock.jump(CALM / 2)
    await log.flush()
    await log.close()

    began = {"level": "warning", "event": "lines of the access log are lost", "file": "access.log", "reason": TOO_LARGE}
    assert too_early == [began]
    assert logs[1:] == [{"level": "warning", "event": "the access log goes on", "file": "access.log", "missed": 12}]
    assert missed(events) == [3, 9]
    assert log.dropped == 12


async def test_what_is_lost_now_and_then_is_said_once(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    log, events, logs = a_log(tmp_path / "log")
    for _ in range(10):
        add(log, LINES_MAX + 1)
        await log.flush()
        mock_clock.jump(CALM * 0.9)
    await log.close()

    assert [line["event"] for line in logs] == [
        "lines of the access log are lost",
        "the access log has ended, and lines of it are lost",
    ]
    assert logs[1]["missed"] == sum(missed(events)) == 10


async def test_a_full_disk_is_said_by_a_service_and_costs_no_request(web: Any) -> None:
    async with (
        web(app, access_log="json", access_log_file="/dev/full") as service,
        httpx.AsyncClient(base_url=service.url) as client,
    ):
        statuses = [(await client.get("/")).status_code for _ in range(3)]
    told = [line for line in service.logs if "access log" in line["event"]]

    assert statuses == [200] * 3
    assert [line.get("reason") or line.get("missed") for line in told] == [FULL, 3]
    assert sum(missed(service.events)) == 3


@pytest.mark.slow
async def test_a_pipe_that_nobody_reads_is_said_while_it_goes_on_and_at_the_stop(web: Any, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(reader, bytes(4096))
    try:
        async with web(app, access_log="text", access_log_file=str(path)) as service:
            access = service.dispatcher._server.shared.ended.access
            add(access, 5)
            with trio.fail_after(20):
                while access._portions:  # noqa: ASYNC110  a thread takes them
                    await trio.sleep(0.01)
            add(access, LINES_MAX + 7)
            meanwhile = [line for line in service.logs if "access log" in line["event"]]
            await service.stop()
    finally:
        with suppress(BlockingIOError):
            while True:
                os.read(reader, 65536)
        os.close(reader)
    told = [line for line in service.logs if "access log" in line["event"]]

    assert [line["reason"] for line in meanwhile] == ["they are not taken as fast as they come"]
    assert told[1:] == [
        {
            "level": "warning",
            "event": "the access log has ended, and lines of it are lost",
            "file": str(path),
            "missed": 5 + LINES_MAX + 7,
        }
    ]
    assert missed(service.events) == [7, 5 + LINES_MAX]
