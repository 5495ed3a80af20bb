"""`kernel run --watch`: a real process that is started again when its code or its manifest has changed."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
import trio

from . import _service
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
