"""`kernel run --watch`: a real process that is started again when its code or its manifest has changed."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path

import pytest
import trio

from kernel.testing import free_port

from . import _service
from ._crew import SITE, WEB, answers, until_refused
from ._service import GRACE, LOOP, MARGIN, MESSAGING, Service, launched

pytestmark = pytest.mark.slow

PATIENCE = 60.0
WATCH = "--watch"
FIRST = "async def run() -> None:\n    say('first version')\n    await trio.sleep_forever()\n"
SECOND = FIRST.replace("first", "second")
CLEAN = 0


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("watchfiles", reason="needs watchfiles")
    monkeypatch.setattr(_service, "PATIENCE", PATIENCE)


def write(directory: Path, code: str) -> None:
    (directory / "workers.py").write_text(_service.HEAD + code)


async def wait_count(service: Service, text: str, count: int) -> None:
    with trio.fail_after(PATIENCE):
        while service.err.count(text) < count:  # noqa: ASYNC110  what it writes is read meanwhile
            await trio.sleep(0.01)


async def test_changed_code_is_run(tmp_path: Path) -> None:
    async with launched(tmp_path, LOOP, FIRST, WATCH) as service:
        await service.wait_said("first version", where="out")
        write(tmp_path, SECOND)
        await service.wait_said("second version", where="out")

        status, _ = await service.stop()

    assert status == CLEAN
    assert service.err.count("starting again") == 1


async def test_a_change_in_a_module_and_in_a_folder_below_is_seen(tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "__init__.py").touch()
    (tmp_path / "shelf" / "names.py").write_text("NAME = 'tea'\n")
    code = "from shelf.names import NAME\n" + FIRST.replace("'first version'", "NAME")
    async with launched(tmp_path, LOOP, code, WATCH) as service:
        await service.wait_said("tea", where="out")
        (tmp_path / "shelf" / "names.py").write_text("NAME = 'mug'\n")  # in the same second, and of the same size
        await service.wait_said("mug", where="out")


@pytest.mark.parametrize(
    ("name", "broken", "said"),
    [
        ("workers.py", "import nothing_of_that_name\n", "nothing_of_that_name"),
        ("workers.py", "def (:\n", "[workers.subject].use"),
        ("kernel.toml", "[kernel\n", "kernel.toml:1"),
        ("kernel.toml", "[workers.subject]\nuse = 'workers:runn'\n", "did you mean"),
    ],
    ids=["import", "syntax", "toml", "manifest"],
)
async def test_a_mistake_is_shown_and_waited_out(tmp_path: Path, name: str, broken: str, said: str) -> None:
    async with launched(tmp_path, LOOP, FIRST, WATCH) as service:
        await service.wait_said("first version", where="out")
        right = (tmp_path / name).read_text()
        (tmp_path / name).write_text(broken)
        await service.wait_said(said)
        await service.wait_said("waiting for a change")
        (tmp_path / name).write_text(right)
        await wait_count(service, "process/0: ready", 2)

        status, _ = await service.stop()

    assert status == CLEAN


async def test_a_manifest_that_is_wrong_from_the_start_is_waited_out(tmp_path: Path) -> None:
    async with launched(tmp_path, LOOP + "nonsense = 1\n", FIRST, WATCH) as service:
        await service.wait_said("waiting for a change")
        path = tmp_path / "kernel.toml"
        path.write_text(path.read_text().replace("nonsense = 1\n", ""))
        await service.wait_said("first version", where="out")


async def test_what_has_been_accepted_is_finished_before_the_new_code_runs(tmp_path: Path) -> None:
    code = """
class Subject:
    @handles("#")
    async def on(self, payload: Any) -> None:
        say("begun")
        await trio.sleep(0.2)
        say("finished")
async def feed(events: Any) -> None:
    await events.publish("work.one", 1)
    await trio.sleep_forever()
"""
    async with launched(tmp_path, MESSAGING, code, WATCH) as service:
        await service.wait_said("begun", where="out")
        write(tmp_path, code.replace('"begun"', '"begun anew"'))
        await service.wait_said("begun anew", where="out")

    assert re.sub(r"(?m)^[^bf].*\n", "", service.out).splitlines()[:3] == ["begun", "finished", "begun anew"]


async def test_a_port_stays_open_while_the_service_is_started_again(tmp_path: Path) -> None:
    manifest = """
    [dispatchers.web]
    plugin = "web"
    bind = "127.0.0.1:0"
    stop_timeout = 0.15
    [workers.site]
    use = "workers:Site"
    dispatcher = "web"
    stop_timeout = 0.05
    """
    code = """
class Site:
    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first version"})
"""
    async with launched(tmp_path, manifest, code, WATCH) as service:
        await service.wait_said("process/0: ready")
        port = int(service.err.partition("http://127.0.0.1:")[2].split()[0])
        write(tmp_path, code.replace("first", "second"))
        await service.wait_said("starting again")
        with trio.fail_after(PATIENCE):
            answer = b""
            while b"second version" not in answer:
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
                    answer = b"".join([piece async for piece in stream])

    assert answer.endswith(b"second version")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_while_it_waits_for_a_change(tmp_path: Path, number: int) -> None:
    async with launched(tmp_path, LOOP, "import nothing_of_that_name\n", WATCH) as service:
        await service.wait_said("waiting for a change")

        status, took = await service.stop(number)

    assert status == CLEAN
    assert took < GRACE + MARGIN


async def test_a_worker_that_has_returned_is_run_again_by_a_change(tmp_path: Path) -> None:
    code = "async def run() -> None:\n    say('first version')\n    await trio.sleep(0)\n"
    async with launched(tmp_path, LOOP + "main = true\n", code, WATCH) as service:
        await service.wait_said("waiting for a change")
        write(tmp_path, code.replace("first", "second"))
        await service.wait_said("second version", where="out")


# --- what an operator sees ------------------------------------------------------------------------------------------


async def kernel(*words: str) -> str:
    """Return what a command prints."""
    done = await trio.run_process([sys.executable, "-m", "kernel", *words], capture_stdout=True)
    return done.stdout.decode()


@pytest.fixture
def _own_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_CONTROL_DIR", str(tmp_path / "run"))


BROKEN = {
    "syntax": (LOOP, "def (:\n", "e2e"),
    "import": (LOOP, "import nothing_of_that_name\n", "e2e"),
    "manifest": (LOOP + "nonsense = 1\n", FIRST, "e2e"),
    "toml": ("[workers\n", FIRST, "folder_of_its_own"),
    "gone": ("[workers.subject]\nuse = 'workers:run'\n", "os._exit(7)\n", "e2e"),
    "done": (LOOP + "main = true\n", "async def run() -> None:\n    await trio.sleep(0)\n", "e2e"),
}


@pytest.mark.parametrize(("what", "count"), [*((what, "1") for what in BROKEN), ("import", "2"), ("toml", "2")])
@pytest.mark.usefixtures("_own_sockets")
async def test_one_that_waits_for_a_change_is_seen_and_stopped(tmp_path: Path, what: str, count: str) -> None:
    manifest, code, name = BROKEN[what]
    directory = tmp_path / "folder_of_its_own"
    directory.mkdir()
    async with launched(directory, manifest, code, WATCH, "--processes", count) as service:
        await service.wait_said("waiting for a change")
        with trio.fail_after(PATIENCE):
            while not (seen := json.loads(await kernel("ps", "--json"))) or seen[0]["pid"] != service.process.pid:
                pass
        tree = await kernel("tree")
        why = await kernel("why")
        await kernel("stop")
        status = await service.wait()

    assert [one["service"] for one in seen] == [name]
    assert "process 0 is waiting for a change: it ended with status" in tree
    assert "process 0 is waiting for a change: it ended with status" in why
    assert status == CLEAN


@pytest.mark.usefixtures("_own_sockets")
async def test_one_whose_import_hangs_is_seen_and_stopped(tmp_path: Path) -> None:
    async with launched(tmp_path, LOOP, "say('importing')\ntime.sleep(60)\n", WATCH) as service:
        await service.wait_said("importing", where="out")
        tree = await kernel("tree")
        await kernel("stop")
        status = await service.wait()

    assert "process 0 is starting" in tree
    assert status == CLEAN


@pytest.mark.usefixtures("_own_sockets")
async def test_one_that_runs_answers_for_itself_alone_and_after_a_mistake_the_watcher_does(tmp_path: Path) -> None:
    async with launched(tmp_path, LOOP, FIRST, WATCH) as service:
        await service.wait_said("process/0: ready")
        running = json.loads(await kernel("ps", "--json"))
        write(tmp_path, "def (:\n")
        await service.wait_said("waiting for a change")
        with trio.fail_after(PATIENCE):
            while not (waiting := json.loads(await kernel("ps", "--json"))):
                pass
        write(tmp_path, SECOND)
        await wait_count(service, "process/0: ready", 2)
        again = json.loads(await kernel("ps", "--json"))

    assert [one["service"] for one in (*running, *waiting, *again)] == ["e2e"] * 3
    assert [one["state"] for one in (*running, *waiting, *again)] == ["ready", "not ready", "ready"]
    assert waiting[0]["pid"] == service.process.pid


@pytest.mark.parametrize("order", ["restart", "SIGHUP"])
@pytest.mark.usefixtures("_own_sockets")
async def test_one_that_waits_for_a_change_is_started_again_when_it_is_told_to(tmp_path: Path, order: str) -> None:
    code = "if not os.path.exists('mended'):\n    raise ValueError('not yet')\n" + FIRST
    async with launched(tmp_path, LOOP, code.replace("'mended'", repr(str(tmp_path / "mended"))), WATCH) as service:
        await service.wait_said("waiting for a change")
        (tmp_path / "mended").touch()
        if order == "restart":
            await kernel("restart")
        else:
            service.send(signal.SIGHUP)
        await service.wait_said("first version", where="out")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.usefixtures("_own_sockets")
async def test_all_of_the_manifest_may_change(tmp_path: Path, count: int) -> None:
    old, new = free_port(), free_port()
    manifest = WEB.replace("127.0.0.1:0", f"127.0.0.1:{old}")
    async with launched(tmp_path, manifest, SITE, WATCH, "--processes", str(count)) as service:
        await wait_count(service, ": ready pid", count)
        assert await answers(old)
        path = tmp_path / "kernel.toml"
        path.write_text(path.read_text().replace(f":{old}", f":{new}").replace('"e2e"', '"other"'))
        await until_refused(old)
        await wait_count(service, ": ready pid", 2 * count)
        seen = json.loads(await kernel("ps", "--json"))
        answered = await answers(new)
        await kernel("stop", "--service", "other")
        status = await service.wait()

    assert [one["service"] for one in seen] == (["other"] if count == 1 else ["other", "other.0", "other.1"])
    assert answered
    assert status == CLEAN
