"""The commands that look into a service, as an operator types them: what they print, and their exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kernel._cli import operate, status
from kernel._cli.cli import execute
from kernel._control.places import Place

PATIENCE = 30
MANIFEST = """
[kernel]
name = "shop"
[drivers.queue]
plugin = "memory"
[drivers.orders]
plugin = "publisher"
driver = "queue"
protocol = "json"
[dispatchers.incoming]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "orders"
bindings = ["order.*"]
[workers.customer]
use = "shop:Customer"
[workers.packer]
use = "shop:pack"
dispatcher = "incoming"
"""
CODE = """
import trio
class Customer:
    def __init__(self, orders):
        self.orders = orders
    async def run(self):
        while True:
            await self.orders.publish("order.created", {"sku": "tea", "password": "yellow-feathers"})
            await trio.sleep(0.05)
async def pack(order: dict):
    await trio.lowlevel.checkpoint()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shop")


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A service that runs, as a process of its own."""
    (folder / "kernel.toml").write_text(MANIFEST)
    (folder / "shop.py").write_text(CODE)
    process = subprocess.Popen(
        [sys.executable, "-m", "kernel", "run", str(folder / "kernel.toml")],
        env={**os.environ, "KERNEL_CONTROL_DIR": str(folder / "run")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "shop is ready" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


@pytest.fixture
def place(service: subprocess.Popen[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_CONTROL_DIR", str(folder / "run"))
    monkeypatch.delenv("KERNEL_SERVICE", raising=False)


@pytest.fixture
def run(place: None, capfd: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = execute(arguments)
        out, err = capfd.readouterr()
        return code, out, err

    return run


pytestmark = pytest.mark.slow


def test_ps_lists_what_runs(run: Any, service: Any) -> None:
    code, out, _ = run("ps")
    [one] = json.loads(run("ps", "--json")[1])

    assert code == 0
    assert out.splitlines()[0].split() == ["service", "pid", "state", "for", "manifest"]
    assert out.splitlines()[1].split()[:3] == ["shop", str(service.pid), "ready"]
    assert (one["service"], one["pid"], one["state"]) == ("shop", service.pid, "ready")


def test_a_service_that_is_halted_is_listed_and_told_how_to_go_on(run: Any, service: Any) -> None:
    os.kill(service.pid, signal.SIGSTOP)
    try:
        code, out, err = run("ps")
        [one] = json.loads(run("ps", "--json")[1])
        why = run("why")
    finally:
        os.kill(service.pid, signal.SIGCONT)

    told = f"does not answer: a signal has halted it, and `kill -CONT {service.pid}` has it go on"
    assert code == 0
    assert out.splitlines()[1].split() == ["shop", str(service.pid), "no", "answer", "-", "-"]
    assert told in err
    assert (one["state"], one["seconds"]) == ("no answer", None)
    assert why[0] == 1
    assert told in why[2]


def test_a_service_that_ends_while_it_is_asked_is_not_listed(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its socket is gone when it is connected to; that of another one which nobody listens to is told of."""
    ended = Place("ended", os.getpid(), tmp_path / f"ended-{os.getpid()}.sock")
    deaf = Place("deaf", os.getpid(), tmp_path / f"deaf-{os.getpid()}.sock")
    deaf.path.touch()
    monkeypatch.setattr("kernel._control.places.listed", lambda _environ: [ended, deaf])
    try:
        code, out, err = run("ps")
    finally:
        deaf.path.unlink()

    assert code == 0
    assert "ended" not in out + err
    assert "deaf" in out
    assert "deaf" in err


def test_a_reason_makes_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    operate._show({"text": "gone\nworker/forged ready\x1b[2J"}, lambda answer: answer["text"], as_json=False)

    assert capsys.readouterr().out == "gone\\nworker/forged ready\\x1b[2J\n"


def test_tap_of_a_service_that_ends_says_so(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operate, "_follow", lambda *_args, **_more: iter([{"tapped": "dispatcher/incoming"}]))

    code, _, err = run("tap", "incoming")

    assert code == 1
    assert "has ended" in err


def test_tree_shows_every_component(run: Any) -> None:
    code, out, _ = run("tree")
    tree = json.loads(run("tree", "--json")[1])

    ids = ["driver/queue", "driver/orders", "worker/customer", "worker/packer", "dispatcher/incoming"]
    assert code == 0
    assert [line.split()[1:4] for line in out.splitlines()[1:]] == [[id_, "+", "ready"] for id_ in ids]
    assert "0/10 in flight, " in out
    assert [one["id"] for one in tree["components"]] == ids
    assert set(tree["components"][0]) == {
        "id", "state", "reason", "seconds", "essential", "restarts", "error", "waits_for", "in_flight", "slots",
        "usage", "backlog", "per_second", "paused", "deadline",
    }  # fmt: skip


def test_top_shows_it_again_and_again(run: Any) -> None:
    code, out, _ = run("top", "-n", "2", "--every", "0.5")
    lines = run("top", "-n", "2", "--every", "0.5", "--json")[1].splitlines()

    assert code == 0
    assert out.count("dispatcher/incoming") == 2
    assert "\x1b" not in out
    assert [json.loads(line)["service"] for line in lines] == ["shop", "shop"]


def test_why_says_that_it_waits_for_nothing(run: Any) -> None:
    code, out, _ = run("why")

    assert (code, out.splitlines()[1]) == (0, "It waits for nothing.")
    assert json.loads(run("why", "--json")[1])["causes"] == []


def test_tap_shows_messages(run: Any) -> None:
    code, out, _ = run("tap", "incoming", "-n", "2")
    [message] = map(json.loads, run("tap", "incoming", "-n", "1", "--json")[1].splitlines())

    assert code == 0
    assert out.count("order.created  ack in ") == 2
    assert message["subject"] == "order.created"
    assert json.loads(message["body"]) == {"sku": "tea", "password": "***"}
    assert "yellow-feathers" not in out


def test_pause_and_resume(run: Any) -> None:
    assert run("pause", "incoming")[:2] == (0, "paused: dispatcher/incoming\n")
    assert "! degraded" in run("tree")[1]
    assert "dispatcher/incoming is degraded: paused: it takes nothing new" in run("why")[1]
    assert run("resume", "incoming", "--json")[:2] == (0, '{"resumed": "dispatcher/incoming"}\n')
    assert "! degraded" not in run("tree")[1]


def test_restart(run: Any) -> None:
    assert run("restart", "worker/packer")[:2] == (0, "restarting: worker/packer\n")


def test_log_level(run: Any) -> None:
    assert run("log-level", "driver/queue=debug")[:2] == (0, "info\ndriver/queue=debug\n")
    assert json.loads(run("log-level", "--json")[1]) == {"level": "info", "levels": {"driver/queue": "debug"}}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["tree", "-s", "other"], 2, "no service other runs here that listens; there are: shop (pid "),
        (["tree", "-s", "/nowhere/else"], 2, "not called like a control socket"),
        (["tree", "-s", "/nowhere/shop-1.sock"], 1, "does not answer"),
        (["restart", "packr"], 1, "there is no component 'packr'; did you mean"),
        (["pause", "queue"], 1, "there is no dispatcher 'queue'"),
        (["log-level", "loud"], 2, "'loud' is not one of debug, info, warning, error"),
        (["pause"], 2, "Missing argument"),
        (["restart"], 1, "name a component"),
    ],
)
def test_what_cannot_be_done_is_said_and_has_its_status(run: Any, arguments: list[str], code: int, said: str) -> None:
    found, out, err = run(*arguments)

    assert found == code
    assert said in err
    assert not out
    assert "Traceback" not in err


def test_several_services_have_to_be_told_apart(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"shop-{os.getpid()}.sock").touch()
    (tmp_path / f"bar-{os.getppid()}.sock").touch()
    monkeypatch.setenv("KERNEL_CONTROL_DIR", str(tmp_path))
    code, _, err = run("tree")

    assert code == 2
    assert "several services run here: bar (pid " in err


def test_every_command_has_a_help_and_json(run: Any) -> None:
    for name in ("ps", "tree", "top", "why", "tap", "restart", "pause", "resume", "log-level", "stop"):
        code, out, _ = run(name, "--help")
        assert code == 0
        assert "--json" in out


def test_stop_waits_for_the_end_of_the_process(place: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kernel.toml").write_text(MANIFEST.replace('name = "shop"', 'name = "brief"'))
    (tmp_path / "shop.py").write_text(CODE)
    command = [sys.executable, "-m", "kernel", "run", str(tmp_path / "kernel.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        code = execute(["stop", "-s", "brief"])
        status_ = process.poll()
        process.kill()

    assert (code, status_) == (0, 0)
    assert capfd.readouterr().out == f"stopped: process {process.pid}\n"


def test_no_control_socket_is_there_if_the_manifest_says_so(place: None, tmp_path: Path) -> None:
    (tmp_path / "kernel.toml").write_text(MANIFEST.replace('name = "shop"', 'name = "quiet"\ncontrol = false'))
    (tmp_path / "shop.py").write_text(CODE)
    command = [sys.executable, "-m", "kernel", "run", str(tmp_path / "kernel.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        code = execute(["tree", "-s", "quiet"])
        process.kill()

    assert code == 2


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1 min"), (3599, "59 min"), (7500, "2 h 5 min"), (277_200, "3 d 5 h")],
)
def test_times_are_as_people_say_them(seconds: float, text: str) -> None:
    assert status.lasting(seconds) == text


SERVICE = {
    "service": "shop", "pid": 7, "state": "ready", "reason": "", "seconds": 90.0, "stopping_for": 0.0,
    "blocked_for": 0.0, "blocked_at": "", "stop_budget": 22.0, "grace_period": 25.0,
}  # fmt: skip
COMPONENT = {
    "id": "worker/packer", "state": "ready", "reason": "", "seconds": 1.0, "essential": True, "restarts": 0,
    "error": "", "waits_for": [], "in_flight": None, "slots": None, "usage": None, "backlog": None, "per_second": None,
    "paused": False, "deadline": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("service", "text"),
    [
        ({}, "shop (pid 7) is ready, 1 min old; a stop takes at most 22 s of 25 s"),
        (
            {"state": "stopping", "reason": "SIGTERM", "stopping_for": 2.0},
            "shop (pid 7) is stopping, 1 min old; SIGTERM, 2.0 s ago; it ends within 23.0 s",
        ),
        (
            {"state": "blocked", "blocked_for": 3.0, "blocked_at": "shop.py:7"},
            "shop (pid 7) is blocked, 1 min old; its event loop is blocked for 3.0 s at shop.py:7; a stop takes at most 22 s of 25 s",
        ),
    ],
)
def test_a_service_is_one_line(service: dict[str, Any], text: str) -> None:
    assert status.title({**SERVICE, **service}) == text


@pytest.mark.parametrize(
    ("component", "line"),
    [
        ({}, "└─ worker/packer  + ready  1.0 s"),
        ({"state": "created", "waits_for": ["driver/a", "driver/b"]},
         "└─ worker/packer  - created  1.0 s    waits for driver/a, driver/b"),
        ({"state": "backoff", "restarts": 3, "error": "ValueError: x", "reason": "restart in 0.80 s",
          "deadline": {"what": "restart", "in": 0.4}},
         "└─ worker/packer  ! backoff  1.0 s    3 restarts; restart in 0.4 s; ValueError: x"),
        ({"state": "failed", "reason": "ValueError: x", "error": "ValueError: x"},
         "└─ worker/packer  x failed  1.0 s    ValueError: x"),
        ({"state": "draining", "in_flight": 1, "slots": 4, "deadline": {"what": "drain_timeout", "in": 12.0}},
         "└─ worker/packer  - draining  1.0 s  1/4 in flight  drain_timeout in 12.0 s"),
        ({"usage": {"used": 2, "idle": 1, "waiting": 0, "limit": None}}, "└─ worker/packer  + ready  1.0 s  2 used"),
        ({"usage": {"used": 4, "idle": 0, "waiting": 3, "limit": 4}},
         "└─ worker/packer  + ready  1.0 s  4/4 used, 3 waiting"),
        ({"backlog": {"waiting": 0, "failed": 0, "oldest": 0.0}}, "└─ worker/packer  + ready  1.0 s  0 waiting"),
        ({"backlog": {"waiting": 7, "failed": 2, "oldest": 90.0}},
         "└─ worker/packer  + ready  1.0 s  7 waiting, the oldest for 1 min"),
    ],
)  # fmt: skip
def test_a_component_is_one_line(component: dict[str, Any], line: str) -> None:
    tree = {**SERVICE, "log_records_lost": 2, "components": [{**COMPONENT, **component}]}

    assert status.tree_text(tree).splitlines()[1:] == [line, "2 records of the log were lost"]


def test_a_cause_says_until_when_and_what_then() -> None:
    cause = {"component": "driver/db", "what": "starts", "seconds": 3.0, "in": 27.0, "then": "it is cancelled",
             "where": "db.py:7"}  # fmt: skip
    without = {**cause, "in": None, "where": ""}

    assert status.causes_text({**SERVICE, "causes": [cause, without]}).splitlines()[1:] == [
        "driver/db starts, for 3.0 s",
        "    at most 27.0 s more; then it is cancelled",
        "    at db.py:7",
        "driver/db starts, for 3.0 s",
    ]


def test_messages_that_were_not_shown_are_counted() -> None:
    assert status.message_text({"missed": 7}) == "... 7 more"


@pytest.mark.parametrize("evil", ["\x1b]0;x\x07", "\n", "\r", "\x9b31m", "\x00", "\u2028", "\x85"])
def test_a_terminal_obeys_no_message_and_a_message_writes_no_lines_of_its_own(evil: str) -> None:
    message = {
        "subject": f"a{evil}", "id": f"1{evil}", "attempt": 1, "worker": "", "outcome": "ack", "seconds": 0.1,
        "headers": {f"a{evil}": f"b{evil}"}, "bytes": 1, "body": f"c{evil}",
    }  # fmt: skip

    lines = status.message_text(message).split("\n")
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 3
