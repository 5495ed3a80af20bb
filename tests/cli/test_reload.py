"""A service that runs as a process is reloaded: by a signal and by hand, with its files as they are then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from ._service import PATIENCE, kernel

MANIFEST = """
[kernel]
name = "shop"
[drivers.queue]
plugin = "memory"
[workers.loop]
use = "tea:run"
[workers.loop.config]
label = "one"
[workers.other]
use = "tea:other"
"""
CODE = """
import attrs, trio
@attrs.frozen
class Config:
    label: str
    password: object = None
class Loop:
    def __init__(self, config: Config):
        self.config = config
    async def run(self):
        print(f"label {self.config.label}", flush=True)
        await trio.sleep_forever()
run = Loop
async def other():
    print("other", flush=True)
    await trio.sleep_forever()
"""


@attrs.frozen
class Shop:
    process: subprocess.Popen[str]
    folder: Path

    @property
    def manifest(self) -> Path:
        return self.folder / "kernel.toml"

    def edit(self, old: str, new: str) -> None:
        text = self.manifest.read_text()
        assert old in text
        self.manifest.write_text(text.replace(old, new))

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return kernel(*words, KERNEL_CONTROL_DIR=str(self.folder / "run"))

    def told(self, what: str) -> dict[str, Any]:
        """The next record of the log that says so."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            record: dict[str, Any] = json.loads(line)
            if record["event"].startswith(what):
                return record
        raise AssertionError(f"it never said {what!r}")

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def shop(folder: Path, *options: str, manifest: str = MANIFEST, code: str = CODE) -> Iterator[Shop]:
    (folder / "kernel.toml").write_text(manifest)
    (folder / "tea.py").write_text(code)
    process = subprocess.Popen(
        [sys.executable, "-m", "kernel", "run", "--log-format", "json", *options, str(folder / "kernel.toml")],
        env={**os.environ, "KERNEL_CONTROL_DIR": str(folder / "run")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        opened = Shop(process, folder)
        opened.told("ready")
        yield opened
    finally:
        process.kill()
        process.communicate()


Hup = Callable[[Shop], None]


def by_signal(opened: Shop) -> None:
    opened.process.send_signal(signal.SIGHUP)


def by_command(opened: Shop) -> None:
    assert opened.command("reload").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("reload", [by_signal, by_command])
def test_a_service_becomes_what_its_file_says(reload: Hup, tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        first = {opened.said(), opened.said()}
        opened.edit('"one"', '"two"')
        reload(opened)
        record = opened.told("reloaded")

        assert first == {"label one", "other"}
        assert opened.said() == "label two"
        assert record["restarted"] == ["worker/loop"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["", '[kernel]\nname = "shop"\n[drivers.qu', MANIFEST.replace("tea:run", "tea:nobody")],
    ids=["empty", "half", "wrong"],
)
def test_a_manifest_that_is_wrong_changes_nothing_and_every_problem_is_told(text: str, tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        opened.manifest.write_text(text)
        done = opened.command("reload")
        by_signal(opened)
        first, second = opened.told("not reloaded"), opened.told("not reloaded")
        opened.manifest.write_text(MANIFEST)
        again = opened.command("reload")

        assert done.returncode == 1
        assert str(opened.manifest) in done.stderr
        assert first["error"] == second["error"]
        assert again.stdout.startswith("reloaded in ")
        assert again.stdout.endswith("nothing restarted\n")


@pytest.mark.slow
def test_who_waits_for_a_service_that_dies_meanwhile_is_told(tmp_path: Path) -> None:
    (tmp_path / "gone.py").write_text("import os\ndef setup(tables):\n    os.kill(os.getpid(), 9)\n")
    with shop(tmp_path) as opened:
        opened.edit('name = "shop"', 'name = "shop"\nsetup = "gone:setup"')
        done = opened.command("reload")

    assert done.returncode == 1
    assert done.stderr.startswith(f"kernel: shop (pid {opened.process.pid}) ")


@pytest.mark.slow
def test_a_file_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        text = MANIFEST.replace('"one"', '"two"')
        with open(opened.manifest, "w") as file:
            file.write(text.partition("[workers.other]")[0])  # which would be a manifest
            file.flush()
            by_signal(opened)
            file.write(text.removeprefix(text.partition("[workers.other]")[0]))
        record = opened.told("reloaded")

        assert record["restarted"] == ["worker/loop"]
        assert "removed" not in record


@pytest.mark.slow
def test_a_hundred_signals_in_a_second_are_a_few_reloads(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        opened.edit('"one"', '"two"')
        for _ in range(100):
            by_signal(opened)
            time.sleep(0.005)
        opened.edit('"two"', '"three"')
        opened.command("reload")
        tree = json.loads(opened.command("tree", "--json").stdout)
        opened.process.send_signal(signal.SIGTERM)
        out, log = opened.process.communicate(timeout=PATIENCE)

        reloads = sum(json.loads(line)["event"] == "reloaded" for line in log.splitlines())
        assert 1 <= reloads <= 10
        assert {one["id"]: one["state"] for one in tree["components"]}["worker/loop"] == "ready"
        assert out.splitlines()[-1] == "label three"
        assert opened.process.returncode == 0


@pytest.mark.slow
def test_a_signal_while_it_stops_changes_nothing(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        opened.edit('"one"', '"two"')
        opened.process.send_signal(signal.SIGTERM)
        opened.told("stopping")  # of signals that come together, it sees SIGHUP first
        for _ in range(5):
            by_signal(opened)
        out, log = opened.process.communicate(timeout=PATIENCE)

        assert "label two" not in out
        assert opened.process.returncode == 0
        assert not any(json.loads(line)["event"] == "reloaded" for line in log.splitlines())


@pytest.mark.slow
def test_a_diff_says_what_a_reload_would_do_and_does_nothing(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        same = opened.command("plan", "--diff")
        opened.edit('"one"', '"two"')
        opened.edit("[workers.other]\nuse", "[workers.third]\nuse")
        with open(opened.manifest, "a") as file:
            file.write('[logging]\nlevel = "warning"\n')
        diff = opened.command("plan", "--diff")
        tree = json.loads(opened.command("tree", "--json").stdout)
        as_json = json.loads(opened.command("plan", "--diff", "--json").stdout)

        assert same.stdout == f"{opened.manifest}: nothing would change\n"
        lines = diff.stdout.splitlines()
        assert lines[0] == "starts   worker/third"
        assert lines[1:5] == [
            f'         [workers.third].use: - -> "tea:other"  ({opened.manifest}:11)',
            "ends     worker/other",
            "restarts worker/loop",
            f'         [workers.loop.config].label: "one" -> "two"  ({opened.manifest}:9)',
        ]
        assert '         [logging].level: "info" -> "warning"' in diff.stdout
        assert {one["id"] for one in tree["components"]} == {"driver/queue", "worker/loop", "worker/other"}
        assert as_json["changed"] == ["worker/loop"]
        assert "[workers.third].timeout" in {value["path"] for value in as_json["values"]}  # all, also defaults


@pytest.mark.slow
def test_a_diff_is_refused_where_the_reload_would_be(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        opened.edit('name = "shop"', 'name = "other"')
        diff, told = opened.command("plan", "--diff"), opened.command("reload")

        assert "[kernel].name: cannot change while the service runs" in diff.stderr
        assert (diff.stdout, diff.returncode, diff.stderr) == (told.stdout, told.returncode, told.stderr)


@pytest.mark.slow
def test_what_is_no_component_is_taken_over_while_it_runs(tmp_path: Path) -> None:
    with shop(tmp_path) as opened:
        with open(opened.manifest, "a") as file:
            file.write('[logging]\nlevel = "debug"\n')
        opened.edit('name = "shop"', 'name = "shop"\ngrace_period = 33.0')
        record = (opened.command("reload"), opened.told("reloaded"))[1]
        level = opened.command("log-level")
        stopped = json.loads(opened.command("stop", "--json").stdout)

        assert "restarted" not in record
        assert level.stdout.splitlines()[0] == "debug"
        assert stopped["grace_period"] == 33.0


@pytest.mark.slow
def test_a_secret_is_read_again_and_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("yellow-feathers")
    secret.chmod(0o600)
    manifest = MANIFEST.replace('label = "one"', 'label = "one"\npassword = { file = "password" }')
    with shop(tmp_path, manifest=manifest) as opened:
        none = opened.command("reload").stdout
        secret.write_text("green-feathers")
        diff = opened.command("plan", "--diff").stdout
        told = opened.command("reload").stdout

        assert none.endswith("nothing restarted\n")
        assert diff.splitlines() == [
            "restarts worker/loop",
            "         no value of its own that is shown differs: a secret, a file, or what it uses or feeds does",
        ]
        assert told.endswith("restarted: worker/loop\n")


@pytest.mark.slow
def test_overlays_and_options_stay_as_they_were_given(tmp_path: Path) -> None:
    (tmp_path / "prod.toml").write_text('[workers.loop.config]\nlabel = "prod"\n')
    with shop(tmp_path, "--overlay", str(tmp_path / "prod.toml"), "--set", "workers.other.stop_timeout=1.5") as opened:
        opened.edit('"one"', '"two"')
        unmoved = opened.command("reload").stdout
        (tmp_path / "prod.toml").write_text('[workers.loop.config]\nlabel = "live"\n')
        moved = opened.command("reload").stdout

        assert unmoved.endswith("nothing restarted\n")
        assert moved.endswith("restarted: worker/loop\n")


SIGN = """
from contextlib import asynccontextmanager
from pathlib import Path
from kernel.abc import Driver, Renews
class Sign(Driver, Renews):
    def __init__(self, config, context):
        self.context = context
    @asynccontextmanager
    async def open(self):
        yield
    async def renew(self):
        await trio.sleep(0.3)
        paint = self.context.path("paint").read_text()
        return [paint] if paint else []
"""


@pytest.mark.slow
def test_what_is_read_again_and_no_good_is_told_by_command_and_signal(tmp_path: Path) -> None:
    (tmp_path / "paint").write_text("the paint is wet")
    manifest = f'{MANIFEST}[drivers.sign]\nuse = "tea:Sign"\n'
    with shop(tmp_path, manifest=manifest, code=CODE + SIGN) as opened:
        refused = opened.command("reload")
        first = opened.told("reloaded")
        by_signal(opened)
        second = opened.told("reloaded")
        (tmp_path / "paint").write_text("")
        taken = opened.command("reload")

        assert refused.returncode == 1
        assert refused.stdout.endswith("\n  driver/sign goes on as it was: the paint is wet\n")
        assert [(one["level"], one["refused"]) for one in (first, second)] == [
            ("warning", ["driver/sign: the paint is wet"])
        ] * 2
        assert (taken.returncode, taken.stdout.endswith("nothing restarted\n")) == (0, True)
