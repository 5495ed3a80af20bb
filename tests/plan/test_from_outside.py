"""What a manifest takes from its surroundings: numbers and booleans in variables, and files beside it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
import trio

from kernel._core.spec import Plan, WorkerSpec
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry, discover
from kernel._plan.plan import resolve
from kernel.abc import Context, Driver
from kernel.errors import PlanError
from kernel.testing import open_kernel


class Mode(enum.Enum):
    FAST = "fast"


@attrs.frozen(kw_only=True)
class Everything:
    text: str = ""
    number: int = 0
    share: float = 0.0
    flag: bool = False
    maybe: int | None = None
    either: int | str = 0
    mode: Mode | None = None
    word: Literal["info", "debug"] = "info"
    many: tuple[int, ...] = ()
    other: object = None
    file: Path | None = None
    files: dict[str, Path] = attrs.field(factory=dict)


class Worker:
    def __init__(self, config: Everything) -> None:
        self.config = config

    async def run(self) -> None: ...


class Raw(Worker):
    def __init__(self, config: dict) -> None:  # type: ignore[type-arg]
        super().__init__(config)  # type: ignore[arg-type]


def plan_of(config: Mapping[str, object], environ: Mapping[str, str], use: type[Worker] = Worker, **table: Any) -> Plan:
    tables = {"workers": {"w": {"use": "w", "config": config, **table}}}
    registry = Registry.of({"workers": {"w": use}})
    return resolve(from_mapping(tables, environ=environ, directory=Path("/srv/shop")), registry)


def worker(*args: Any, **kwargs: Any) -> WorkerSpec:
    spec = plan_of(*args, **kwargs).components["worker/w"]
    assert isinstance(spec, WorkerSpec)
    return spec


@pytest.mark.parametrize(
    ("key", "given", "meant"),
    [
        ("number", "10", 10),
        ("number", "-3", -3),
        ("share", "0.5", 0.5),
        ("share", "1e3", 1000.0),
        ("share", "2", 2.0),
        ("flag", "true", True),
        ("flag", "false", False),
        ("maybe", "7", 7),
        ("text", "10", "10"),
        ("text", "true", "true"),
        ("either", "10", "10"),
        ("mode", "fast", Mode.FAST),
        ("word", "debug", "debug"),
        ("other", "10", "10"),
    ],
)
def test_a_variable_is_what_its_key_takes(key: str, given: str, meant: object) -> None:
    config = worker({key: "${X}"}, {"X": given}).config
    default = worker({key: f"${{X:-{given}}}"}, {}).config

    assert getattr(config, key) == meant == getattr(default, key)
    assert type(getattr(config, key)) is type(meant)


def test_an_array_takes_variables_too() -> None:
    assert worker({"many": ["${A}", 2, "${B:-3}"]}, {"A": "1"}).config == Everything(many=(1, 2, 3))


@pytest.mark.parametrize(
    ("key", "text", "given", "problem"),
    [
        ("number", "${X}", "ten", 'must be an integer, got "ten"'),
        ("number", "${X}", "1.5", 'must be an integer, got "1.5"'),
        ("number", "${X}", "010", 'must be an integer, got "010"'),
        ("number", "${X}", "99999999999999999999", 'must be an integer, got "99999999999999999999"'),
        ("number", "1${X}", "0", 'must be an integer, got "10"; write 10, without quotes'),
        ("number", "10", "", 'must be an integer, got "10"; write 10, without quotes'),
        ("flag", "${X}", "yes", 'must be true or false, got "yes"'),
        ("flag", "${X}", "1", 'must be true or false, got "1"'),
    ],
)
def test_what_does_not_fit_is_refused_as_it_was_given(key: str, text: str, given: str, problem: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan_of({key: text}, {"X": given})

    assert str(caught.value) == f"<mapping>: [workers.w.config].{key}: {problem}"


def test_the_kernels_own_keys_take_variables() -> None:
    spec = worker({}, {"N": "3", "S": "1.5"}, instances="${N}", stop_timeout="${S}", essential="${E:-false}")

    assert (spec.instances, spec.stop_timeout, spec.essential) == (3, 1.5, False)


def test_a_limit_holds_for_a_variable() -> None:
    with pytest.raises(PlanError, match="instances"):
        plan_of({}, {"N": "0"}, instances="${N}")


@pytest.mark.parametrize(("given", "is_there"), [("false", False), ("true", True)])
def test_a_component_is_left_out_by_a_variable(given: str, is_there: bool) -> None:
    assert ("worker/w" in plan_of({}, {"X": given}, enabled="${X}").components) is is_there


def test_a_config_that_is_taken_as_it_is_holds_plain_strings() -> None:
    config: Any = worker({"a": {"b": ["${X}"]}}, {"X": "10"}, use=Raw).config

    assert config == {"a": {"b": ["10"]}}
    assert type(config["a"]["b"][0]) is str


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("a.db", "/srv/shop/a.db"),
        ("x/../a.db", "/srv/shop/x/../a.db"),
        ("/var/a.db", "/var/a.db"),
        ("${X}", "/srv/shop/7"),
    ],
)
def test_a_path_begins_at_the_folder_of_the_manifest(given: str, meant: str) -> None:
    config = worker({"file": given, "files": {"k": given}}, {"X": "7"}).config

    assert config == Everything(file=Path(meant), files={"k": Path(meant)})


@attrs.frozen
class FileConfig:
    path: str
    also: Path


@attrs.frozen
class File(Driver[Path]):
    Config = FileConfig
    config: FileConfig
    context: Context

    @asynccontextmanager
    async def open(self) -> Any:
        await trio.lowlevel.checkpoint()
        yield self.context.path(self.config.path), self.config.also


async def test_a_plugin_finds_files_beside_the_manifest_wherever_the_process_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "kernel.toml").write_text(
        '[drivers.file]\npath = "a.db"\nalso = "b.db"\n[drivers.queue]\nplugin = "sqlite"\npath = "queues.db"\n'
    )
    registry = Registry((*discover().plugins, *Registry.of({"drivers": {"file": File}}).plugins))
    monkeypatch.chdir(tmp_path)
    async with open_kernel("shop/kernel.toml", registry=registry) as kernel:
        found = kernel.resource("driver/file")

    assert found == (tmp_path / "shop" / "a.db", tmp_path / "shop" / "b.db")
    assert (tmp_path / "shop" / "queues.db").is_file()
