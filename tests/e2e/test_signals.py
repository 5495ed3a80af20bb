"""Signals to real processes, on the real clock: the status, the time it took, and who is named if somebody held it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import trio

from kernel._supervise.leash import AT_ONCE

from ._service import (
    DRAIN,
    FEED,
    GRACE,
    LOOP,
    MARGIN,
    MESSAGING,
    PATIENCE,
    Service,
    command,
    launched,
    running,
    write,
)

pytestmark = pytest.mark.slow

CLEAN, FAILED, CUT = 0, 1, 3
ENDS = r"kernel: (.*); ending the process"


async def busy(service: Service) -> None:
    """Wait until the code under test is where it holds the service."""
    await service.wait_said("busy", where="out")


def handler(body: str) -> str:
    """Return the code of a worker whose handler says that it is busy and then does something."""
    indented = "".join(f"        {line}\n" for line in body.strip().splitlines())
    return f"class Subject:\n    @handles('#')\n    async def on(self, payload: Any) -> None:\n        say('busy')\n{indented}{FEED}"


# --- handlers -------------------------------------------------------------------------------------------------------


async def test_a_slow_handler_finishes(tmp_path: Path) -> None:
    code = handler(f"await trio.sleep({DRAIN / 2})\nsay('finished')")
    async with running(tmp_path, MESSAGING, code, "--log-level", "debug") as service:
        await busy(service)

        status, took = await service.stop()

    assert status == CLEAN
    assert took < GRACE
    assert "finished" in service.out
    assert "returned to its source" not in service.err


async def test_a_hung_handler_is_cut_at_the_drain_timeout_and_its_delivery_returned(tmp_path: Path) -> None:
    async with running(tmp_path, MESSAGING, handler("await trio.sleep_forever()  # here")) as service:
        await busy(service)

        status, took = await service.stop()

    assert status == CUT
    assert DRAIN <= took < GRACE + MARGIN
    assert service.place() in line_with(service.err, "the drain is over")
    assert "returned to its source" in service.err
    assert "kernel: stopped" in service.err


SWALLOWS = """
while True:
    try:
        await trio.sleep_forever()  # here
    except BaseException:
        pass
"""
HOLDS = {
    "swallows-cancelled": SWALLOWS,
    "sleeps-in-the-loop": "time.sleep(60)  # here",
    "computes": "while True: payload = payload + 1  # here",
    "waits-for-a-thread": "await trio.to_thread.run_sync(time.sleep, 60)  # here",
    "is-shielded": "with trio.CancelScope(shield=True): await trio.sleep(60)  # here",
    "waits-for-a-child-process": "subprocess.run(['sleep', '60'])  # here",
}


@pytest.mark.parametrize("body", HOLDS.values(), ids=HOLDS.keys())
async def test_a_handler_that_cannot_be_cancelled_is_named_and_the_process_ends_in_time(
    tmp_path: Path, body: str
) -> None:
    async with running(tmp_path, MESSAGING, handler(body)) as service:
        await busy(service)

        status, took = await service.stop()

    [why] = {"what was left behind does not end", "grace_period = 1.5 s is over"} & set(re.findall(ENDS, service.err))
    assert status == CUT
    assert took < GRACE + MARGIN
    assert service.place() in service.err.partition(why)[2]


@pytest.mark.parametrize("hold", ["swallows-cancelled", "waits-for-a-thread", "is-shielded"])
async def test_what_is_left_behind_holds_the_process_no_longer_than_the_stop_budget(tmp_path: Path, hold: str) -> None:
    """However long the grace period is: `kernel check` has proved that a stop takes no longer."""
    longer = "kernel.grace_period=60"
    async with running(tmp_path, MESSAGING, handler(HOLDS[hold]), "--set", longer) as service:
        await busy(service)
        status, took = await service.stop()

    said = service.err.partition("kernel: what was left behind does not end; ending the process")
    assert status == CUT
    assert took < GRACE + MARGIN  # all budgets here are shorter than that grace period
    assert service.place() in said[2]


async def test_the_last_words_are_a_record_where_the_log_is_json(tmp_path: Path) -> None:
    code = handler(HOLDS["sleeps-in-the-loop"])
    async with launched(tmp_path, MESSAGING, code, "--log-format=json") as service:
        await service.wait_said("the event loop is blocked")
        status, _ = await service.stop()

    said = [json.loads(line) for line in service.err.splitlines()]
    assert status == CUT
    assert {"level": "error", "service": "e2e", "component": "kernel"}.items() <= said[-1].items()
    assert service.place() in said[-1]["culprits"][0]


@pytest.mark.parametrize("body", [HOLDS["sleeps-in-the-loop"], HOLDS["computes"]], ids=["sleeps", "computes"])
async def test_a_line_that_blocks_the_loop_is_named_while_it_does(tmp_path: Path, body: str) -> None:
    async with running(tmp_path, MESSAGING, handler(body)) as service:
        await service.wait_said("the event loop is blocked")
        await service.wait_said(service.place())

        assert service.process.returncode is None


async def test_a_blocked_loop_that_goes_on_is_told_to_those_who_listen(tmp_path: Path) -> None:
    async with running(tmp_path, MESSAGING, handler("time.sleep(0.9)  # here\nsay('on')")) as service:
        await service.wait_said("the event loop is blocked")
        await service.wait_said("on", where="out")

        status, _ = await service.stop()

    assert status == CLEAN
    assert service.err.count("the event loop is blocked") == 1


def line_with(text: str, part: str) -> str:
    [line] = [line for line in text.splitlines() if part in line]
    return line


# --- loops and threads ----------------------------------------------------------------------------------------------


async def test_a_loop_that_swallows_cancelled_is_named(tmp_path: Path) -> None:
    body = SWALLOWS.replace("\n", "\n    ")
    async with running(tmp_path, LOOP, f"async def run() -> None:\n    say('busy'){body}") as service:
        await busy(service)

        status, took = await service.stop()

    assert status == CUT
    assert took < GRACE + MARGIN
    assert service.place() in line_with(service.err, "stop_timeout is over")


async def test_a_thread_that_is_left_running_is_named_and_does_not_hold_the_process(tmp_path: Path) -> None:
    code = """
    async def run() -> None:
        threading.Thread(target=time.sleep, args=[60], name="forgotten").start()
        say("busy")
        await trio.sleep_forever()
    """
    async with running(tmp_path, LOOP, code) as service:
        await busy(service)

        status, took = await service.stop()

    assert status == CLEAN
    assert took < GRACE + MARGIN
    assert "forgotten" in service.err


async def test_a_child_process_that_is_left_running_does_not_hold_the_process(tmp_path: Path) -> None:
    code = """
    async def run() -> None:
        child = subprocess.Popen(["sleep", "3"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        say("busy")
        await trio.sleep_forever()
    """
    async with running(tmp_path, LOOP, code) as service:
        await busy(service)

        status, took = await service.stop()

    assert status == CLEAN
    assert took < GRACE + MARGIN


# --- clients --------------------------------------------------------------------------------------------------------

WEB = """
[dispatchers.web]
plugin = "web"
bind = "127.0.0.1:0"
stop_timeout = 0.15
[workers.site]
use = "workers:Site"
dispatcher = "web"
stop_timeout = 0.05
"""
FLOOD = """
class Site:
    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            say("busy")
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
"""
SOCKET = """
class Site:
    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        say("busy")
        await receive()
        say("left")
"""
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def connect(service: Service) -> trio.SocketStream:
    await service.wait_said("http://127.0.0.1:")
    address = service.err.partition("http://127.0.0.1:")[2].split()[0]
    return await trio.open_tcp_stream("127.0.0.1", int(address))


async def test_a_client_that_never_reads_does_not_hold_the_process(tmp_path: Path) -> None:
    async with running(tmp_path, WEB, FLOOD) as service, await connect(service) as client:
        await client.send_all(GET)
        await busy(service)
        await trio.sleep(0.2)  # until the buffers of both sockets are full

        status, took = await service.stop()

    assert status == CUT
    assert took < GRACE + MARGIN
    assert "GET /" in line_with(service.err, "the drain is over")


async def test_an_idle_websocket_is_closed_and_does_not_hold_the_process(tmp_path: Path) -> None:
    async with running(tmp_path, WEB, SOCKET) as service, await connect(service) as client:
        await client.send_all(UPGRADE)
        await busy(service)

        status, took = await service.stop()

    assert status in {CLEAN, CUT}
    assert took < GRACE + MARGIN
    assert "grace_period" not in service.err


# --- startup --------------------------------------------------------------------------------------------------------

SLOW_START = """
[drivers.first]
use = "workers:First"
stop_timeout = 0.1
[drivers.slow]
use = "workers:Slow"
depends = ["driver/first"]
stop_timeout = 0.1
"""
SLOW_CODE = """
from contextlib import asynccontextmanager
import attrs
from kernel.abc import Context, Driver, NoConfig

@attrs.frozen
class First(Driver):
    config: NoConfig
    context: Context
    @asynccontextmanager
    async def open(self):
        say("first opens")
        try:
            yield 1
        finally:
            say("first closes")

@attrs.frozen
class Slow(Driver):
    config: NoConfig
    context: Context
    @asynccontextmanager
    async def open(self):
        say("slow opens")
        try:
            await trio.sleep_forever()  # here
        finally:
            say("slow gives up")
        yield 1
"""


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.05, 0.2])
async def test_a_stop_while_a_driver_opens_unwinds_what_is_open(tmp_path: Path, delay: float) -> None:
    async with launched(tmp_path, SLOW_START, SLOW_CODE) as service:
        await service.wait_said("slow opens", where="out")
        await trio.sleep(delay)

        status, took = await service.stop()

    assert status == CLEAN
    assert took < GRACE + MARGIN
    assert service.out.split("\n")[:4] == ["first opens", "slow opens", "slow gives up", "first closes"]


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.3, 0.4, 0.5, 0.6])
async def test_a_stop_at_any_instant_of_the_startup_leaves_nothing_open(tmp_path: Path, delay: float) -> None:
    async with launched(tmp_path, SLOW_START, SLOW_CODE) as service:
        await trio.sleep(delay)

        status, took = await service.stop()

    # Before anything is opened, the process may end as the signal would have it.
    assert status in {CLEAN, -signal.SIGTERM}
    assert status == CLEAN or not service.out
    assert took < GRACE + MARGIN
    assert service.out.count("first opens") == service.out.count("first closes")


async def test_a_driver_that_blocks_the_loop_while_it_opens_is_named(tmp_path: Path) -> None:
    code = SLOW_CODE.replace("await trio.sleep_forever()", "time.sleep(60)")
    async with launched(tmp_path, SLOW_START, code) as service:
        await service.wait_said("slow opens", where="out")

        status, took = await service.stop()

    assert status == CUT
    assert took < GRACE + MARGIN
    assert service.place() in service.err.partition("grace_period")[2]


# --- more signals ---------------------------------------------------------------------------------------------------

HUNG = handler("await trio.sleep_forever()  # here")
LONG_DRAIN = "--set=kernel.grace_period=30", "--set=kernel.drain_timeout=20"


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
async def test_the_second_sigint_skips_the_drain(tmp_path: Path, first: signal.Signals) -> None:
    async with running(tmp_path, MESSAGING, HUNG, *LONG_DRAIN) as service:
        await busy(service)
        service.send(first)
        await service.wait_said("kernel: stopping")
        if first is signal.SIGTERM:  # so this is the first of its kind
            service.send(signal.SIGINT)
        await trio.sleep(AT_ONCE + 0.1)
        assert service.process.returncode is None

        status, took = await service.stop(signal.SIGINT)

    assert status == CUT
    assert took < MARGIN
    assert "skipping the drain" in service.err


async def test_sigint_that_comes_twice_at_once_is_one(tmp_path: Path) -> None:
    """As under `uv run` or a shell's script, which pass on what the terminal has sent to all of them."""
    code = handler("await trio.sleep(1.0)\nsay('finished')")
    async with running(tmp_path, MESSAGING, code, *LONG_DRAIN) as service:
        await busy(service)
        service.send(signal.SIGINT)
        service.send(signal.SIGINT)

        status = await service.wait()

    assert status == CLEAN
    assert "finished" in service.out
    assert "skipping the drain" not in service.err


async def test_a_second_sigterm_changes_nothing(tmp_path: Path) -> None:
    code = handler("await trio.sleep(0.6)\nsay('finished')")
    async with running(tmp_path, MESSAGING, code, *LONG_DRAIN) as service:
        await busy(service)
        service.send(signal.SIGTERM)
        await service.wait_said("kernel: stopping")

        status, _ = await service.stop()

    assert status == CLEAN
    assert "finished" in service.out
    assert service.err.count("kernel: stopping") == 1


async def test_sigterm_again_and_again_until_the_process_is_gone_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, MESSAGING, handler("await trio.sleep(0.1)")) as service:
        await busy(service)
        while service.process.poll() is None:
            service.send(signal.SIGTERM)
            await trio.sleep(0.001)

    assert service.process.returncode == CLEAN


async def test_sighup_changes_nothing_where_the_manifest_is_as_it_was(tmp_path: Path) -> None:
    async with running(tmp_path, MESSAGING, handler("pass")) as service:
        await busy(service)
        service.send(signal.SIGHUP)
        await service.wait_said("reload")

        status, _ = await service.stop()

    assert "kernel: reloaded" in line_with(service.err, "reload")
    assert service.err.count("driver/queue: ready") == 1
    assert status == CLEAN


async def test_sigterm_under_load_finishes_what_was_taken(tmp_path: Path) -> None:
    code = """
    class Subject:
        @handles("#")
        async def on(self, payload: Any) -> None:
            say(f"begin {payload}")
            await trio.sleep(0.01)
            say(f"end {payload}")
    async def feed(events: Any) -> None:
        for number in range(1_000_000):
            await events.publish("work.one", number)
            await trio.sleep(0)
    """
    async with running(tmp_path, MESSAGING, code) as service:
        await service.wait_said("end 100\n", where="out")

        status, took = await service.stop()

    begun, ended = (
        sorted(line for line in service.out.splitlines() if line.startswith(word)) for word in ("begin", "end")
    )
    assert status == CLEAN
    assert took < GRACE + MARGIN
    assert [line.removeprefix("begin") for line in begun] == [line.removeprefix("end") for line in ended]


# --- output that nobody takes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("redirect", ["", "2>&1"], ids=["stdout", "both"])
async def test_an_output_that_is_closed_changes_nothing(tmp_path: Path, redirect: str) -> None:
    code = """
    async def run() -> None:
        open("ready", "w").close()
        log = logging.getLogger("noise")
        while True:
            log.warning("x" * 1000)
            await trio.sleep(0.01)
    """
    manifest = write(tmp_path, LOOP, code)
    script = f'"$@" {redirect} & echo $! > pid; wait $!; echo $? > status'
    pipe = f"( {script} ) | head -1"
    shell = await trio.lowlevel.open_process(["sh", "-c", pipe, "sh", *command(manifest)], cwd=tmp_path)
    with trio.fail_after(PATIENCE):
        while not (tmp_path / "ready").exists():  # noqa: ASYNC110  all other output goes nowhere
            await trio.sleep(0.05)
        await trio.sleep(0.3)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
        await shell.wait()

    assert (tmp_path / "status").read_text().strip() == str(CLEAN)


UNREAD = {"waits": "await trio.sleep_forever()", "blocks": HOLDS["sleeps-in-the-loop"], "swallows": SWALLOWS}


@pytest.mark.parametrize("body", UNREAD.values(), ids=UNREAD.keys())
async def test_a_log_that_nobody_reads_does_not_hold_the_process(tmp_path: Path, body: str) -> None:
    manifest = write(tmp_path, MESSAGING, handler(body))
    ours, theirs = socket.socketpair()  # its other end stands for a reader that has stopped
    with ours, theirs:
        process = await trio.lowlevel.open_process(command(manifest), stdout=subprocess.PIPE, stderr=theirs.fileno())
        assert process.stdout is not None
        try:
            async with process.stdout as out:
                with trio.fail_after(PATIENCE):
                    while b"busy" not in await out.receive_some():
                        pass
                _fill(theirs)
                began = trio.current_time()
                process.terminate()
                with trio.fail_after(PATIENCE):
                    status = await process.wait()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    assert status == CUT
    assert trio.current_time() - began < GRACE + MARGIN


def _fill(end: socket.socket) -> None:
    while True:
        try:
            end.send(b"x", socket.MSG_DONTWAIT)
        except BlockingIOError:
            return


# --- what workers log -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "json"])
async def test_what_workers_log_with_the_standard_library_is_in_the_log(tmp_path: Path, form: str) -> None:
    code = """
    log = logging.getLogger(__name__)
    async def run() -> None:
        log.debug("not shown")
        log.info("orders: %s", 2)
        await trio.sleep_forever()
    """
    async with launched(tmp_path, LOOP, code, f"--log-format={form}") as service:
        await service.wait_said("orders: 2")

        status, _ = await service.stop()

    assert status == CLEAN
    assert "workers" in line_with(service.err, "orders: 2")
    assert "not shown" not in service.err
