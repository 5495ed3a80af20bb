"""Facts about the command line: what it prints where, and how it ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from kernel._cli import cli as _cli
from kernel._cli import source as _source
from kernel._cli.cli import execute
from kernel._cli.show import plugins_as_json, plugins_as_text
from kernel._manifest.registry import Plugin, Registry

from ._service import SERVICE

ROOT = Path(__file__).parent.parent.parent


def test_what_hangs_while_a_manifest_is_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is over here while a module is being imported, which waits for what is said then."""
    said: list[str] = []
    held: list[Callable[[], object]] = []

    class Timer:
        def __init__(self, _seconds: float, call: Callable[[], object]) -> None:
            held.append(call)

        def start(self) -> None: ...

        def cancel(self) -> None: ...

    def time_is_over() -> None:
        held[0]()

    monkeypatch.setattr(_source.threading, "Timer", Timer)
    monkeypatch.setattr(_source, "complain", said.append)
    monkeypatch.setattr(_source.threading, "time_is_over", time_is_over, raising=False)
    code = "import threading\nthread = threading.Thread(target=threading.time_is_over)\nthread.start(); thread.join()\n"
    (folder / "hanging.py").write_text(f"{code}async def run(): ...\n")
    (folder / "kernel.toml").write_text('[workers.w]\nuse = "hanging:run"\n')

    assert execute(["check"]) == 0
    assert said == [f"kernel: still reading kernel.toml, at {folder / 'hanging.py'}:3"]


@pytest.mark.parametrize(
    ("context", "status", "told"),
    [
        (KeyboardInterrupt(), 130, ""),
        (EOFError(), 1, "\nkernel: not done: nobody answers; --yes does not ask\n"),
        (None, 1, "\nkernel: not done: it was not confirmed\n"),
    ],
    ids=["Ctrl-C", "no input", "no"],
)
def test_what_was_not_confirmed_is_not_done_and_said(
    context: BaseException | None, status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    abort = click.Abort()
    abort.__context__ = context

    assert _cli._not_done(abort) == status
    assert capsys.readouterr().err == told


# --- check --------------------------------------------------------------------------------------------------------


def test_a_good_manifest_is_one_line_with_the_proof_of_the_stop(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = execute(["check"])

    assert status == 0
    proof = "2.5 s of grace_period = 5.0 s (drain_timeout 1.0 + worker/loop 0.5 + flush 1.0)"
    assert capsys.readouterr() == (f"kernel.toml: ok: 2 components; a stop takes at most {proof}\n", "")


def test_every_problem_is_a_line_on_standard_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SERVICE.replace("stop_timeout = 0.5", "stop_timeot = 0.5").replace('"tea:run"', '"tea:rum"')
    (folder / "kernel.toml").write_text(text)

    status = execute(["check"])

    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        ["kernel.toml:8", "[drivers.queue].stop_timeot"],
        ["kernel.toml:10", "[workers.loop].use"],
        ["kernel.toml:11", "[workers.loop].stop_timeot"],
    ]


def test_every_manifest_is_checked_even_after_a_bad_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.toml").write_text("[kernel")

    status = execute(["check", "bad.toml", "kernel.toml"])

    out, err = capsys.readouterr()
    assert status == 2
    assert out.startswith("kernel.toml: ok")
    assert err.startswith("bad.toml:1: ")


def test_manifests_may_have_modules_of_the_same_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "kernel.toml").write_text('[workers.loop]\nuse = "tea:another"')
    (other / "tea.py").write_text("async def another(): ...")

    status = execute(["check", "kernel.toml", "other/kernel.toml", "kernel.toml"])

    assert (status, capsys.readouterr().err) == (0, "")
    assert "tea" not in sys.modules


@pytest.mark.parametrize("given", [[], ["kernel.toml"]], ids=["none", "argument"])
def test_an_argument_comes_before_the_environment(
    folder: Path, given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KERNEL_MANIFEST", "elsewhere.toml")

    status = execute(["check", *given])

    assert status == (0 if given else 2)
    assert capsys.readouterr().err == ("" if given else "elsewhere.toml: no such file\n")


def test_values_can_be_set_with_their_types(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = execute(["check", "--set", "kernel.drain_timeout=2", "--set", "kernel.name=tea"])
    bad = execute(["check", "--set", "kernel.drain_timeout=two"])

    out, err = capsys.readouterr()
    assert (good, bad) == (0, 2)
    assert "drain_timeout 2.0" in out
    assert err == '--set: [kernel].drain_timeout: must be a number, got "two"\n'


@pytest.mark.parametrize("command", ["check", "plan"])
def test_a_warning_is_a_line_on_standard_error_and_changes_no_exit_status(
    folder: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "tea.py").write_text("async def run(queue): ...")
    (folder / "kernel.toml").write_text(SERVICE.replace("[drivers.queue]", "[drivers.queue]\nessential = false"))

    status = execute([command])

    out, err = capsys.readouterr()
    assert status == 0
    assert out.startswith(("kernel.toml: ok", "shop"))
    assert err == (
        "warning: kernel.toml:7: [drivers.queue].essential: does not keep the service going: worker/loop uses it, "
        "and is essential; set essential = false there too, or leave it out here\n"
    )


def test_a_check_imports_nothing_that_only_a_run_needs(folder: Path) -> None:
    code = """
import sys
from kernel._cli.cli import execute
status = execute(["check", "--set", "drivers.queue.enabled=false"])
print(status, sorted({"structlog", "rich", "asyncio", "kernel._cli.schema", "kernel._cli.new", "kernel._supervise.run"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "0 []"


# --- plan ---------------------------------------------------------------------------------------------------------

SECRET = """
from contextlib import nullcontext
import attrs
from kernel import Secret
from kernel.abc import Driver
@attrs.frozen
class Config:
    password: Secret
class Safe(Driver[None]):
    Config = Config
    def __init__(self, *, config, context): ...
    def open(self): return nullcontext()
"""


@pytest.fixture
def secretive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "safe.py").write_text(SECRET)
    table = '[drivers.safe]\nuse = "safe:Safe"\npassword = { env = "TEA_PASSWORD" }\n'
    (folder / "kernel.toml").write_text(SERVICE + table)
    monkeypatch.setenv("TEA_PASSWORD", "correct horse")
    return folder


def test_a_plan_lists_components_and_where_values_are_from(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = execute(["plan", "--set", "drivers.queue.max_length=7"])

    out = capsys.readouterr().out
    assert status == 0
    assert "\x1b" not in out
    assert re.search(r"^  driver/queue +memory \(trio-kernel-memory [0-9.]+\)$", out, re.MULTILINE)
    assert re.search(r"^  worker/loop +tea:run$", out, re.MULTILINE)
    assert re.search(r"^  \[kernel\]\.name = \"shop\" +kernel\.toml:3$", out, re.MULTILINE)
    assert re.search(r"^  \[drivers\.queue\]\.max_length = 7 +--set$", out, re.MULTILINE)
    assert re.search(r"^  \[workers\.loop\]\.timeout = 600\.0 +default$", out, re.MULTILINE)
    assert "a stop takes at most 2.5 s" in out


def test_a_plan_as_json_has_the_documented_keys(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    execute(["plan", "--json"])

    plan = json.loads(capsys.readouterr().out)
    driver, worker = plan["components"]
    keys = ["format", "manifest", "name", "components", "protocols", "groups", "stages", "stop", "values"]
    assert list(plan) == keys
    assert (plan["format"], plan["name"], plan["stop"]["seconds"]) == (1, "shop", 2.5)
    assert (driver["id"], driver["plugin"], driver["distribution"]) == ("driver/queue", "memory", "trio-kernel-memory")
    assert (worker["id"], worker["use"], worker["runs"], worker["where"]) == (
        "worker/loop",
        "tea:run",
        True,
        "kernel.toml:9",
    )
    assert {"path": "[kernel].name", "value": '"shop"', "origin": "kernel.toml:3"} in plan["values"]


def test_the_json_of_the_root_manifest_has_its_wiring(capsys: pytest.CaptureFixture[str]) -> None:
    execute(["plan", "--json", str(ROOT / "kernel.toml")])

    plan = json.loads(capsys.readouterr().out)
    components = {component["id"]: component for component in plan["components"]}
    assert components["dispatcher/orders"]["uses"] == ["driver/queue"]
    assert components["dispatcher/orders"]["workers"] == ["worker/fulfil"]
    assert components["worker/fulfil"]["dispatcher"] == "dispatcher/orders"
    assert [protocol["distribution"] for protocol in plan["protocols"]] == ["trio-kernel-json"]


def test_a_graph_has_every_component_and_arrow(capsys: pytest.CaptureFixture[str]) -> None:
    execute(["plan", "--mermaid", str(ROOT / "kernel.toml")])

    graph = capsys.readouterr().out.splitlines()
    names = {found[2]: found[1] for line in graph if (found := re.search(r'(n\d+)\W+"(.+)"', line))}
    assert graph[0] == "flowchart LR"
    assert f"    {names['dispatcher/orders']} --> {names['driver/queue']}" in graph
    assert f"    {names['dispatcher/orders']} -.-> {names['worker/fulfil']}" in graph


@pytest.mark.parametrize("form", [[], ["--json"], ["--mermaid"]], ids=["text", "json", "mermaid"])
def test_no_form_of_a_plan_shows_a_secret(secretive: Path, form: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status = execute(["plan", *form])

    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    assert "correct horse" not in out
    assert ("***" in out) == (form != ["--mermaid"])


# --- plugins ------------------------------------------------------------------------------------------------------


def plugin(distribution: str, name: str = "tea", kind: str = "driver", value: str = "no_such:Thing") -> Plugin:
    return Plugin(kind=kind, name=name, distribution=distribution, version="1.2", value=value)


def test_plugins_are_listed_with_their_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    execute(["plugins"])
    text = capsys.readouterr().out
    execute(["plugins", "--json"])
    listed = json.loads(capsys.readouterr().out)

    assert re.search(r"^memory +driver +trio-kernel-memory +[0-9.]+$", text, re.MULTILINE)
    assert {"json", "memory", "consumer", "web", "timer"} <= {row["name"] for row in listed}
    assert not any(row["conflict"] for row in listed)


def test_listing_plugins_imports_none() -> None:
    code = """
import sys
from kernel._cli.cli import execute
execute(["plugins"])
print([name for name in sys.modules if name.startswith("kernel_")])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_a_name_of_two_distributions_is_marked() -> None:
    plugins = [plugin("one"), plugin("two"), plugin("three", kind="protocol")]

    assert [row["conflict"] for row in plugins_as_json(plugins)] == [True, True, False]
    assert plugins_as_text(plugins).count("conflict") == 2


# --- commands of plugins ------------------------------------------------------------------------------------------


@click.command()
@click.option("--fail", is_flag=True)
def brew(*, fail: bool) -> int:
    """Brew tea."""
    if fail:
        raise RuntimeError("no\nwater")
    click.echo("tea is ready")
    return 5


@click.command()
@click.pass_context
def leave(ctx: click.Context) -> None:
    ctx.exit(7)


@click.command()
def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Registry.of({"commands": {"brew": brew, "leave": leave, "interrupt": interrupt, "odd": "no command"}})
    others = [plugin("lost", "broken", "command"), plugin("one", "twice", "command"), plugin("two", "twice", "command")]
    monkeypatch.setattr(_cli, "_installed", lambda: Registry((*own.plugins, *others, plugin("x", "run", "command"))))
    monkeypatch.delenv("KERNEL_DEBUG", raising=False)


def test_a_command_of_a_plugin_runs(commands: None, capsys: pytest.CaptureFixture[str]) -> None:
    """What it returns is no exit status: click's commands return whatever they like."""
    assert execute(["brew"]) == 0
    assert capsys.readouterr().out == "tea is ready\n"


def test_a_command_of_a_plugin_decides_its_exit_status(commands: None) -> None:
    assert execute(["leave"]) == 7


def test_help_lists_commands_of_plugins_without_importing_them(
    commands: None, capsys: pytest.CaptureFixture[str]
) -> None:
    status = execute(["--help"])

    out = capsys.readouterr().out
    assert status == 0
    assert re.search(r"^  broken +of lost==1\.2$", out, re.MULTILINE)
    assert re.search(r"^  twice +of one==1\.2 and two==1\.2, which is a conflict$", out, re.MULTILINE)
    assert len(re.findall(r"^  run ", out, re.MULTILINE)) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "command broken of lost==1.2 (entry point no_such:Thing) cannot be loaded: ModuleNotFoundError"),
        ("twice", "is provided by one==1.2"),
        ("odd", "must be a click.Command, not str"),
        ("nothing", "No such command 'nothing'"),
    ],
)
def test_a_broken_command_is_named(commands: None, name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute([name]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_an_unexpected_error_is_one_line(commands: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["brew", "--fail"]) == 70
    assert capsys.readouterr().err == (
        "kernel: internal error: RuntimeError: no\\nwater (set KERNEL_DEBUG=1 for the traceback)\n"
    )


def test_an_unexpected_error_has_a_traceback_on_request(
    commands: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KERNEL_DEBUG", "1")

    assert execute(["brew", "--fail"]) == 70
    assert capsys.readouterr().err.startswith("Traceback (most recent call last):\n")


def test_an_interrupt_is_quiet(commands: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["interrupt"]) == 130
    assert capsys.readouterr().err.strip() == ""


@pytest.mark.parametrize("arguments", [["--nonsense"], ["chek"], ["run", "a", "b"], ["run", "--log-level", "loud"]])
def test_a_wrong_command_line_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(arguments) == 2
    assert "Error: " in capsys.readouterr().err


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--version"]) == 0
    assert re.fullmatch(r"kernel \d+\.\d+\.\d+\n", capsys.readouterr().out)
