"""Facts about `module:Name`: the module is the one of the manifest's folder, and what is missing says where."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from kernel._convert.imports import NotImportableError, import_object
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry, discover
from kernel._plan.plan import resolve


@pytest.fixture(autouse=True)
def modules_are_forgotten() -> Iterator[None]:
    before = dict(sys.modules)
    yield
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]


def bare(name: str, folder: Path) -> ModuleType:
    """What pytest makes of a folder above a test file."""
    del folder
    return ModuleType(name)


def namespace(name: str, folder: Path) -> ModuleType:
    """What Python makes of a folder without `__init__.py`."""
    made = ModuleType(name)
    made.__path__ = [str(folder)]
    return made


@pytest.mark.parametrize("stand_in", [bare, namespace])
@pytest.mark.parametrize("file", ["greens.py", "greens/__init__.py"])
def test_the_module_of_the_folder_is_found_behind_a_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: object, file: str
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("class Leek: pass\n")
    assert callable(stand_in)
    monkeypatch.setitem(sys.modules, "greens", stand_in("greens", tmp_path))

    assert import_object("greens:Leek", directory=tmp_path) is sys.modules["greens"].Leek


def test_a_module_that_has_a_file_stays_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "roots.py").write_text("class Beet: pass\n")
    first = import_object("roots:Beet", directory=tmp_path)

    assert import_object("roots:Beet", directory=tmp_path) is first


def test_a_namespace_package_that_lacks_a_name_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "herbs").mkdir()

    with pytest.raises(NotImportableError) as caught:
        import_object("herbs:Mint", directory=tmp_path)

    assert str(caught.value) == f'"herbs" (from {tmp_path / "herbs"}, a namespace package) has no "Mint"'


def test_a_module_from_elsewhere_that_lacks_a_name_is_told_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(NotImportableError, match=r'"json" \(from /.*json/__init__.py\) has no "Mint"'):
        import_object("json:Mint", directory=tmp_path)


def test_a_module_without_a_file_is_told_without_one_if_it_is_built_in(tmp_path: Path) -> None:

    with pytest.raises(NotImportableError, match='"time" has no "Noon"'):
        import_object("time:Noon", directory=tmp_path)


@pytest.mark.parametrize(
    ("line", "told"),
    [("import asyncio", True), ("asyncio = None", False), ("from asyncio import sleep", False), ("", False)],
)
def test_a_worker_whose_module_imports_asyncio_is_warned_of(tmp_path: Path, line: str, told: bool) -> None:
    (tmp_path / "waiting.py").write_text(f"{line}\nasync def work() -> None: ...\n")
    tables = {"kernel": {"name": "w"}, "workers": {"w": {"use": "waiting:work"}}}

    plan = resolve(from_mapping(tables, directory=tmp_path), Registry(()))

    assert [str(warning).partition(": ")[2] for warning in plan.warnings] == told * [
        "[workers.w].use: its module imports asyncio, and services run on trio: what waits by asyncio fails"
    ]


@pytest.mark.parametrize(
    ("dispatcher", "table"),
    [
        ({"plugin": "web", "bind": "127.0.0.1:0"}, {"use": "waiting:app", "options": {"asyncio": True}}),
        (
            {"plugin": "consumer", "driver": "queue", "protocol": "json", "queue": "q"},
            {"use": "waiting:Work", "runs_in": "pool"},
        ),
    ],
)
def test_one_that_is_called_in_asyncio_or_a_thread_is_not(
    tmp_path: Path, dispatcher: dict[str, object], table: dict[str, object]
) -> None:
    code = "async def app(scope, receive, send): ...\nclass Work:\n    @handles('*')\n    def work(self, payload): asyncio.run(app())\n"
    (tmp_path / "waiting.py").write_text(f"import asyncio\nfrom kernel import handles\n{code}")
    tables = {
        "kernel": {"name": "w"},
        "drivers": {"queue": {"plugin": "memory"}, "pool": {"plugin": "thread_pool"}},
        "dispatchers": {"d": dispatcher},
        "workers": {"w": {"dispatcher": "d", **table}},
    }

    plan = resolve(from_mapping(tables, directory=tmp_path), discover())

    assert not [warning for warning in plan.warnings if "asyncio" in str(warning)]
