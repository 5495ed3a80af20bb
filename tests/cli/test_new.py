"""Facts about the skeletons: what is written works at once, and nothing is overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from kernel._cli.cli import execute

ROOT = Path(__file__).parents[2]
KINDS = ["driver", "protocol", "dispatcher"]

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1"}
    environ.pop("PYTEST_ADDOPTS", None)
    environ.pop("COVERAGE_PROCESS_START", None)
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=environ, check=False, capture_output=True, text=True
    )


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


NEXT = {
    "new": ["kernel check", "pytest", "kernel run"],
    "new-plugin": ["pip install -e .", "pytest", "kernel plugins"],
}


@pytest.mark.parametrize("by_uv", [False, True])
@pytest.mark.parametrize("command", NEXT)
def test_what_to_type_next_works_where_the_command_was_typed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, by_uv: bool
) -> None:
    """`tests/docs/test_reader.py` types it, in a clone and outside of one."""
    monkeypatch.delenv("UV", raising=False)
    if by_uv:
        monkeypatch.setenv("UV", "/somewhere/uv")
    execute([command, "tea_shop", *(["--kind", "driver"] if command == "new-plugin" else [])])

    said = [line.strip() for line in capsys.readouterr().out.split("Next:")[1].splitlines() if line.strip()]
    of_uv = [f"uv {line}" if line.startswith("pip") else f"uv run --no-project {line}" for line in NEXT[command]]
    assert said == ["cd tea_shop", *(of_uv if by_uv else NEXT[command])]


def test_a_new_service_has_its_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = execute(["new", "tea-shop"])

    said = capsys.readouterr().out
    assert status == 0
    assert files(folder / "tea-shop") == [
        "README.md",
        "kernel.toml",
        "pyproject.toml",
        "tea_shop/__init__.py",
        "tea_shop/workers.py",
        "tests/test_service.py",
    ]
    assert "wrote tea-shop/kernel.toml" in said


@pytest.mark.slow
def test_a_new_service_is_clean_and_its_test_passes(folder: Path) -> None:
    execute(["new", "tea-shop"])

    checked = run(folder / "tea-shop", "kernel", "check")
    tested = run(folder / "tea-shop", "pytest", "-q", "-p", "no:cacheprovider")

    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.startswith("kernel.toml: ok: 5 components")
    assert (tested.returncode, "2 passed" in tested.stdout) == (0, True), tested.stdout


@pytest.mark.slow
@every_kind
def test_a_new_plugin_passes_its_tests(folder: Path, kind: str) -> None:
    execute(["new-plugin", "tea_pot", "--kind", kind])

    tested = run(folder / "tea_pot", "pytest", "-q", "-p", "no:cacheprovider")

    assert (tested.returncode, "passed" in tested.stdout) == (0, True), tested.stdout
    assert "test_conformance.py" in " ".join(files(folder / "tea_pot" / "tests"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["new", "tea-shop"], *(["new-plugin", "tea_pot", "--kind", kind] for kind in KINDS)]
)
def test_what_is_written_is_formatted_and_typed(
    folder: Path, arguments: Sequence[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.getbasetemp() / "mypy"
    execute(arguments)

    formatted = run(folder, "ruff", "format", "--check", "--config", str(ROOT / "pyproject.toml"), ".")
    typed = run(folder / arguments[1], "mypy", "--strict", "--cache-dir", str(cache), ".")

    assert formatted.returncode == 0, formatted.stdout
    assert typed.returncode == 0, typed.stdout


@every_kind
@pytest.mark.parametrize(
    ("options", "package", "distribution"),
    [
        ([], "tea_pot", "tea-pot"),
        (
            ["--package", "kernel_tea_pot", "--distribution", "trio-kernel-tea_pot"],
            "kernel_tea_pot",
            "trio-kernel-tea_pot",
        ),
    ],
    ids=["of-its-own-name", "of-another"],
)
def test_a_new_plugin_is_a_distribution_with_an_entry_point(
    folder: Path, kind: str, options: Sequence[str], package: str, distribution: str
) -> None:
    execute(["new-plugin", "tea_pot", "--kind", kind, *options])

    project = (folder / "tea_pot" / "pyproject.toml").read_text(encoding="utf-8")
    assert f'name = "{distribution}"' in project
    assert f'[project.entry-points."kernel.{kind}s"]\ntea_pot = "{package}:TeaPot{kind.capitalize()}"' in project
    assert f"{package}/py.typed" in files(folder / "tea_pot")


@pytest.mark.parametrize(
    "arguments",
    [["json"], ["trio"], ["attrs"], ["kernel"], ["tea", "--package", "json"], ["tea", "--distribution", "a b"]],
)
def test_a_plugin_that_would_hide_a_module_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: Sequence[str]
) -> None:
    assert execute(["new-plugin", "--kind", "driver", *arguments]) == 2
    assert "Error: " in capsys.readouterr().err
    assert files(folder) == []


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", "A", "1a", "a b", "-a", "a-", "class", "json", "kernel", "a" * 65]
)
def test_a_name_that_will_not_do_is_refused(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = execute(["new", "--", name])

    assert status == 2
    assert "Error: " in capsys.readouterr().err
    assert files(folder) == []


@pytest.mark.parametrize("name", ["a-b", "A", "a/b", "_a", "a__b"])
def test_a_name_of_a_plugin_that_will_not_do_is_refused(folder: Path, name: str) -> None:
    assert execute(["new-plugin", name, "--kind", "driver"]) == 2
    assert files(folder) == []


@pytest.mark.parametrize("arguments", [["new", "taken"], ["new-plugin", "taken", "--kind", "driver"]], ids=str)
def test_nothing_that_exists_is_touched(
    folder: Path, arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "taken").mkdir()

    assert execute(arguments) == 2
    assert "taken exists already" in capsys.readouterr().err
    assert files(folder) == []


def test_a_folder_that_cannot_be_written_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").write_text("")
    monkeypatch.setattr(Path, "cwd", lambda: folder / "file")

    assert execute(["new", "shop"]) == 1
    assert "cannot be written: Not a directory" in capsys.readouterr().err
