"""Facts about a service as an object: it starts, is ready, stops, and leaves no process behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kernel import Service
from kernel.errors import StartupError

pytestmark = pytest.mark.slow

CODE = """
import trio
class Loop:
    def __init__(self, config):
        self.size = config["size"]
    async def __aenter__(self):
        self.say("started")
    async def __aexit__(self, *_):
        self.say("stopped")
    def say(self, what):
        with open(what, "a") as file:
            file.write(str(self.size))
    async def run(self):
        await trio.sleep_forever()
class Main(Loop):
    async def run(self):
        return self.size
async def never():
    await trio.sleep_forever()
async def at_once():
    return 6
class Slow(Loop):
    async def __aenter__(self):
        await trio.sleep_forever()
"""


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "loops.py").write_text(CODE)
    (tmp_path / "kernel.toml").write_text('[workers.loop]\nuse = "loops:Loop"\nconfig = { size = 1 }\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path / "kernel.toml"


def is_gone(pid: int) -> bool:
    """Wait until a process that is no child of ours has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 30)[0])
    finally:
        os.close(descriptor)


def test_a_process_is_ready_when_it_is_started_and_gone_when_it_is_stopped(manifest: Path) -> None:
    with Service(manifest, overrides={"workers.loop.config.size": 5}) as service:
        pid = service.pid
        assert pid is not None
        os.kill(pid, 0)
        with pytest.raises(RuntimeError, match="runs already"):
            service.start()

    assert service.pid is None
    assert service.stop() == service.wait() == 0
    assert Path("stopped").read_text() == "5"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_is_reloaded_is_what_its_manifest_says(manifest: Path) -> None:
    service = Service(manifest)
    with pytest.raises(RuntimeError, match="does not run"):
        service.reload()
    with service:
        manifest.write_text(manifest.read_text().replace("size = 1", "size = 2"))
        service.reload()
        ends = time.monotonic() + 60
        while Path("started").read_text() != "12" and time.monotonic() < ends:
            time.sleep(0.01)
        replaced = Path("stopped").read_text()

    assert (replaced, Path("started").read_text()) == ("1", "12")
    assert Path("stopped").read_text() == "12"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"workers.loop.use": "loops:Lop"}, "ended, with status 2, before it was ready"),
        (
            {"workers.loop.use": "loops:Slow", "workers.loop.start_timeout": 60},
            "did not become ready in time, with status",
        ),
    ],
)
def test_what_does_not_become_ready_is_an_error_and_leaves_nothing(
    manifest: Path, overrides: dict[str, object], expected: str
) -> None:
    service = Service(manifest, overrides=overrides)

    with pytest.raises(StartupError, match=expected):
        service.start(within=0.5 if "60" in str(overrides) else 60)

    assert service.pid is None


def test_it_stops_in_order_when_its_parent_is_killed(manifest: Path) -> None:
    code = "import kernel, time; s = kernel.Service('kernel.toml').start(); print(s.pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()

        assert is_gone(pid)
        assert Path("stopped").read_text() == "1"
    finally:
        parent.kill()
        parent.communicate()


def test_its_status_is_that_of_its_main_worker(manifest: Path) -> None:
    main = {"workers.loop.use": "loops:Main", "workers.loop.main": True, "workers.loop.config.size": 7}

    service = Service(manifest, overrides=main).start()

    assert service.wait() == 7


def test_what_returns_at_once_has_started_and_has_its_status(manifest: Path) -> None:
    main = {"workers.loop.use": "loops:at_once", "workers.loop.main": True, "workers.slow.use": "loops:Slow"}
    manifest.write_text("[workers.loop]\n[workers.slow]\ndepends = []\n")

    assert Service(manifest, overrides=main).start().wait() == 6


def test_what_is_told_to_stop_before_it_is_ready_has_not_started(manifest: Path) -> None:
    code = "async def stop():\n    import os, signal, trio\n    os.kill(os.getpid(), signal.SIGTERM)\n    await trio.sleep_forever()\n"
    (manifest.parent / "stopping.py").write_text(code)
    manifest.write_text(
        '[workers.stop]\nuse = "stopping:stop"\n[workers.slow]\nuse = "loops:Slow"\nconfig = { size = 1 }\n'
    )

    with pytest.raises(StartupError, match="ended, with status"):
        Service(manifest).start()


def test_it_runs_here(manifest: Path) -> None:
    main = {"workers.loop.use": "loops:Main", "workers.loop.main": True}

    result = Service(manifest, overrides=main).run()

    assert (result.status, result.returned) == (0, 1)


async def test_it_is_open_here(manifest: Path) -> None:
    async with Service(manifest, overrides={"workers.loop.config.size": 3}).open() as components:
        assert getattr(components["worker/loop"], "size", 0) == 3
