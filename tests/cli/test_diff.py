"""What a reload from one manifest to another would do, told without a service that runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ._service import SERVICE, kernel

NAMED = """
import attrs
from kernel import Secret

@attrs.frozen
class Keys:
    password: Secret

class Named:
    Config = Keys
    def __init__(self, config: Keys) -> None: ...
    async def run(self) -> None: ...
"""
INNER = '[kernel]\nname = "inner"\n[workers.cook]\nuse = "tea:run"\n'
SERVICES = '[services.kitchen]\nmanifest = "inner.toml"\n'


@pytest.fixture
def both(folder: Path) -> tuple[Path, Path]:
    """Two manifests of one service that say the same, and one that is inside of another."""
    (folder / "inner.toml").write_text(INNER)
    (folder / "old.toml").write_text(SERVICE)
    (folder / "new.toml").write_text(SERVICE)
    return folder / "old.toml", folder / "new.toml"


def test_two_that_mean_the_same_change_nothing(both: tuple[Path, Path]) -> None:
    told = kernel("plan", "--diff", "old.toml", "new.toml")

    assert (told.returncode, told.stdout, told.stderr) == (0, "new.toml: nothing would change\n", "")


def test_what_restarts_begins_and_ends_is_told_with_the_values_that_differ(both: tuple[Path, Path]) -> None:
    _old, new = both
    new.write_text(f'{SERVICE.replace("0.5", "0.7", 1)}[workers.second]\nuse = "tea:run"\n')
    there, back = kernel("plan", "--diff", "old.toml", "new.toml"), kernel("plan", "--diff", "new.toml", "old.toml")

    assert there.stdout.splitlines() == [
        "starts   worker/second",
        '         [workers.second].use: - -> "tea:run"  (new.toml:13)',
        "restarts driver/queue",
        "         [drivers.queue].stop_timeout: 0.5 -> 0.7  (new.toml:8)",
    ]
    assert back.stdout.splitlines()[:2] == ["ends     worker/second", "restarts driver/queue"]


def test_of_a_service_inside_that_goes_or_comes_only_what_was_written_is_told(both: tuple[Path, Path]) -> None:
    _old, new = both
    new.write_text(SERVICE + SERVICES)
    there, back = kernel("plan", "--diff", "old.toml", "new.toml"), kernel("plan", "--diff", "new.toml", "old.toml")

    assert there.stdout.splitlines() == [
        "starts   worker/kitchen/cook",
        '         [workers.kitchen/cook].use: - -> "tea:run"  (inner.toml:4)',
        "changes while it runs",
        '         [services.kitchen].manifest: - -> "inner.toml"  (new.toml:13)',
    ]
    assert back.stdout.splitlines() == [
        "ends     worker/kitchen/cook",
        "changes while it runs",
        '         [services.kitchen].manifest: "inner.toml" -> -',
    ]


def test_overlays_and_values_of_the_command_line_are_for_both(both: tuple[Path, Path]) -> None:
    _old, new = both
    new.write_text(SERVICE.replace("0.5", "0.7"))
    same = kernel("plan", "--diff", "old.toml", "new.toml", "--set", "drivers.queue.stop_timeout=1.0")
    as_json = kernel("plan", "--diff", "--json", "old.toml", "new.toml", "--set", "drivers.queue.stop_timeout=1.0")

    assert same.stdout.splitlines()[0] == "restarts worker/loop"
    assert json.loads(as_json.stdout)["changed"] == ["worker/loop"]


def test_what_comes_from_a_pipe_finds_what_it_names_where_one_works(both: tuple[Path, Path]) -> None:
    old, new = both
    (old.parent / "pw").write_text("a secret of the shop")
    (old.parent / "pw").chmod(0o600)
    (old.parent / "base.toml").write_text(SERVICE)
    pw = "[workers.cook2]\nuse = 'tea:Named'\n[workers.cook2.config]\npassword = { file = 'pw' }\n"
    (old.parent / "tea.py").write_text((old.parent / "tea.py").read_text() + NAMED)
    for path in both:
        path.write_text("[kernel]\nextends = 'base.toml'\n" + pw)
    with old.open("rb") as file:
        told = subprocess.run(
            ["bash", "-c", f"{sys.executable} -m kernel plan --diff <(cat) {new.name}"],
            stdin=file,
            cwd=old.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert (told.returncode, told.stdout, told.stderr) == (0, "new.toml: nothing would change\n", "")


def test_a_secret_that_has_changed_is_told_without_it(both: tuple[Path, Path]) -> None:
    folder = both[0].parent
    (folder / "tea.py").write_text((folder / "tea.py").read_text() + NAMED)
    for number, path in enumerate(both):
        (folder / f"pw{number}").write_text(f"a secret of the shop, {number}")
        (folder / f"pw{number}").chmod(0o600)
        secret = f"[workers.named.config]\npassword = {{ file = 'pw{number}' }}\n"
        path.write_text(f"{SERVICE}[workers.named]\nuse = 'tea:Named'\n{secret}")
    told = kernel("plan", "--diff", "old.toml", "new.toml")

    assert told.stdout.splitlines() == [
        "restarts worker/named",
        "         no value of its own that is shown differs: a secret, a file, or what it uses or feeds does",
    ]


def test_what_a_running_service_could_not_take_over_is_refused(both: tuple[Path, Path]) -> None:
    _old, new = both
    new.write_text(SERVICE.replace('"shop"', '"other"'))
    told = kernel("plan", "--diff", "old.toml", "new.toml")

    assert told.returncode == 2
    assert told.stderr.startswith("new.toml:3: [kernel].name: cannot change while the service runs")


@pytest.mark.parametrize(
    "words", [("old.toml",), ("old.toml", "new.toml", "old.toml"), ("--set", "kernel.control=false")]
)
def test_another_number_of_manifests_is_refused_with_what_there_may_be(
    words: tuple[str, ...], both: tuple[Path, Path]
) -> None:
    told = kernel("plan", "--diff", *words)

    assert told.returncode == 2
    assert "two manifests, OLD and NEW; or none" in told.stderr


OVER_A_FILE = """
[kernel]
name = "shop"
[drivers.file]
plugin = "sqlite"
path = "q.db"
[dispatchers.work]
plugin = "consumer"
driver = "file"
protocol = "json"
queue = "work"
bindings = ["a.*"]
[workers.packer]
use = "tea:run"
[workers.hand]
use = "pack:pack"
dispatcher = "work"
"""


def test_that_a_queue_stays_that_nobody_asks_for_any_more_is_told_with_what_ends_it(both: tuple[Path, Path]) -> None:
    old, new = both
    (old.parent / "pack.py").write_text("async def pack(payload: str) -> None: ...\n")
    old.write_text(OVER_A_FILE)
    new.write_text(OVER_A_FILE.replace('queue = "work"', 'queue = "other"'))
    told = kernel("plan", "--diff", "old.toml", "new.toml")

    assert told.stdout.splitlines()[-1].startswith('leaves at driver/file: queue "work" stays, bound as it was')
    assert told.stdout.splitlines()[-1].endswith("`kernel queue delete work --file q.db` ends it")
