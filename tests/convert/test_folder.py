"""The modules beside a manifest: where they are found, and for whom they must not be taken."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel._cli.cli import execute
from kernel._convert.folder import NEEDED, on_path
from kernel._convert.imports import NotImportableError, import_object
from kernel.errors import ManifestError
from kernel.testing import open_kernel

RUN = "async def run():\n    from pricing_beside import PRICE\n    print('price', PRICE, flush=True)\n"
MANIFEST = '[workers.w]\nuse = "shop_beside:run"\nrestart = { policy = "never" }\n'
MODULES = ("shop_beside", "pricing_beside")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Python forgets what a test has imported."""
    before = dict(sys.modules)
    yield
    for name in sys.modules.keys() - before.keys():
        if name.startswith(MODULES):
            del sys.modules[name]


def service(folder: Path, *, price: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "shop_beside.py").write_text(RUN)
    (folder / "pricing_beside.py").write_text(f"PRICE = {price}\n")
    path = folder / "kernel.toml"
    path.write_text(MANIFEST)
    return path


# --- at run time ------------------------------------------------------------------------------------------------------


def test_a_worker_imports_what_stands_beside_the_manifest_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from kernel._supervise.process import run  # noqa: PLC0415  what `kernel run` calls, less what ends this process

    monkeypatch.setattr("kernel._cli.service.run", lambda plan, *, log, hub, **_more: run(plan, log=log, hub=hub))
    before = list(sys.path)

    status = execute(["run", str(service(tmp_path))])

    assert (status, "price 1" in capfd.readouterr().out) == (0, True)
    assert sys.path == before


async def test_the_testing_kit_leaves_the_path_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = list(sys.path)
    async with open_kernel(service(tmp_path), ready=False) as kernel:
        assert sys.path[0] == str(tmp_path)
        await kernel.kernel.wait_stop_requested()

    assert "price 1" in capsys.readouterr().out
    assert sys.path == before


# --- two manifests in one process -------------------------------------------------------------------------------------


async def test_services_that_run_one_after_the_other_have_modules_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for price in (1, 2, 3):
        async with open_kernel(service(tmp_path / str(price), price=price), ready=False) as kernel:
            await kernel.kernel.wait_stop_requested()

    assert capsys.readouterr().out == "price 1\nprice 2\nprice 3\n"


async def test_a_service_that_runs_twice_keeps_its_modules(tmp_path: Path) -> None:
    path = service(tmp_path)
    found: list[object] = []
    for _ in range(2):
        async with open_kernel(path, ready=False) as kernel:
            await kernel.kernel.wait_stop_requested()
            found.append(sys.modules["pricing_beside"])

    assert found[0] is found[1]


def test_modules_of_two_services_at_a_time_are_not_mixed(tmp_path: Path) -> None:
    one, two = (service(tmp_path / name).parent for name in ("one", "two"))
    with on_path(one):
        import_object("shop_beside:run", directory=one)

        with pytest.raises(ManifestError, match="shop_beside") as caught, on_path(two):
            pass
        with pytest.raises(NotImportableError, match="is in use"):
            import_object("shop_beside:run", directory=two)

    assert str(one / "shop_beside.py") in str(caught.value)


# --- names that are taken ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["queue", "signal", "logging", "calendar", "trio", "structlog", "attrs", "kernel"])
def test_a_module_called_like_one_that_is_needed_is_refused_by_check(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"{name}.py").write_text("async def run(): ...\n")
    path = tmp_path / "kernel.toml"
    path.write_text(f'[workers.w]\nuse = "{name}:run"\n')

    status = execute(["check", str(path)])

    assert status == 2
    assert f'[workers.w].use: "{name}" is the name of a module' in capsys.readouterr().err


def test_a_name_that_python_has_is_no_fault_where_nothing_stands_beside_the_manifest(tmp_path: Path) -> None:
    assert import_object("queue:Queue", directory=tmp_path)


def test_the_modules_that_the_kernel_needs_are_all_known() -> None:
    code = "import kernel, kernel._cli.service, kernel._cli.live, kernel._plan.plan, kernel._manifest.registry"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}, sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split() if "__" not in name}  # compiled parts
    loaded -= {"coverage", "$coverage"}  # where child processes are measured, too

    assert {name for name in loaded - sys.stdlib_module_names if not name.startswith("_")} <= NEEDED


def test_a_module_of_python_is_loaded_before_one_beside_the_manifest_can_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('the wrong one')\n")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m kernel` has it

    with on_path(tmp_path):
        found = importlib.import_module("colorsys")

    assert hasattr(found, "rgb_to_hls")


def test_a_module_that_is_a_link_is_imported_once(tmp_path: Path) -> None:
    """As Kubernetes mounts what is configured; imported anew for each worker, they would share nothing."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "shop_beside_linked.py").write_text("class One: ...\nclass Two: ...\n")
    (tmp_path / "shop_beside_linked.py").symlink_to("..data/shop_beside_linked.py")

    one = import_object("shop_beside_linked:One", directory=tmp_path)
    import_object("shop_beside_linked:Two", directory=tmp_path)

    assert import_object("shop_beside_linked:One", directory=tmp_path) is one
