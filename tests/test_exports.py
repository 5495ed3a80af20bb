"""Facts about the repository as a whole: what it exports, how it is packaged, what it must not contain."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import kernel.abc
import kernel.errors
import kernel.testing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import ModuleType

ROOT = Path(__file__).parent.parent
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
PYPROJECTS = [ROOT / "pyproject.toml", *(plugin / "pyproject.toml" for plugin in PLUGINS)]
PACKAGES = [ROOT / "kernel", *(plugin / f"kernel_{plugin.name}" for plugin in PLUGINS)]
PUBLIC = [kernel, kernel.abc, kernel.errors, kernel.testing]
KINDS = {
    "kernel.drivers": kernel.abc.Driver,
    "kernel.dispatchers": kernel.abc.Dispatcher,
    "kernel.protocols": kernel.abc.Protocol,
}

# Put together here, so that this file does not contain what it looks for.
MACHINE = re.compile(
    "|".join(["/" + "work/", "/" + "root/", "python" + "hosted", "npm" + "js", r"https?://\S+/" + "simple"])
)

every_plugin = pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
every_pyproject = pytest.mark.parametrize("pyproject", PYPROJECTS, ids=lambda path: path.parent.name)
every_public_module = pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)


def read_toml(path: Path) -> dict[str, object]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def public_objects(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Classes and functions of the module's public names, and the public methods of the classes."""
    for name in dir(module):
        value = getattr(module, name)
        if name.startswith("_") or not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        if not value.__module__.startswith("kernel"):
            continue
        yield f"{module.__name__}.{name}", value
        if inspect.isclass(value):
            yield from public_methods(f"{module.__name__}.{name}", value)


def public_methods(path: str, cls: type) -> Iterator[tuple[str, object]]:
    for name, value in vars(cls).items():
        if not name.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
            yield f"{path}.{name}", getattr(cls, name)


def reexports(module: ModuleType) -> Iterator[ast.alias]:
    tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
    for statement in ast.walk(tree):
        if isinstance(statement, ast.ImportFrom) and statement.level:
            yield from statement.names


def requirements(pyproject: Path) -> Iterator[str]:
    """Everything that a pyproject depends on, in any way; in groups, those of the workspace have no version."""
    content = read_toml(pyproject)
    project = content["project"]
    assert isinstance(project, dict)
    yield from project["dependencies"]
    for extra in project.get("optional-dependencies", {}).values():
        yield from extra
    groups = content.get("dependency-groups", {})
    assert isinstance(groups, dict)
    for group in groups.values():
        yield from group


def third_party_imports(package: Path) -> set[str]:
    """Names of the packages that a package imports absolutely, those of the standard library left out."""
    names: set[str] = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import():
                    names |= {alias.name for alias in node.names}
                case ast.ImportFrom(level=0, module=str(module)):
                    names.add(module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


@every_public_module
def test_public_names_have_docstrings(module: ModuleType) -> None:
    silent = [path for path, value in public_objects(module) if not inspect.getdoc(value)]

    assert silent == []


@every_public_module
def test_reexports_say_the_name_twice(module: ModuleType) -> None:
    halfway = [alias.name for alias in reexports(module) if alias.asname and alias.asname != alias.name]

    assert halfway == []


def test_the_package_exports_what_it_lists() -> None:
    listed = getattr(kernel, "__all__", None)
    exported = {alias.asname for alias in reexports(kernel) if alias.asname}
    public = {
        name for name in dir(kernel) if not name.startswith("_") and not inspect.ismodule(getattr(kernel, name))
    } - {"annotations"}

    assert public >= exported
    assert listed is None or sorted(listed) == sorted(exported)


def test_imports_keep_to_the_layers() -> None:
    linter = Path(sys.executable).with_name("lint-imports")

    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["trio_asyncio", "h2", "httpx", "rich", "kernel_json", "kernel_web"])
def test_importing_the_kernel_does_not_import(name: str) -> None:
    code = f"import kernel, kernel.abc, kernel.errors, sys; sys.exit({name!r} in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@every_pyproject
def test_nothing_depends_on_the_distribution_named_kernel(pyproject: Path) -> None:
    """That name belongs to somebody else."""
    names = {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() for requirement in requirements(pyproject)}

    assert "kernel" not in names


@every_pyproject
def test_every_requirement_has_an_upper_bound(pyproject: Path) -> None:
    unbounded = [
        requirement
        for requirement in requirements(pyproject)
        if "<" not in requirement and "==" not in requirement and not requirement.startswith("trio-kernel-")
    ]

    assert unbounded == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_what_a_package_imports_is_declared(package: Path) -> None:
    declared = {re.split(r"[^A-Za-z0-9._-]", one)[0].lower() for one in requirements(package.parent / "pyproject.toml")}
    providers = packages_distributions()
    undeclared = {
        name
        for name in third_party_imports(package) - {"kernel", package.name}
        if not {provider.lower().replace("_", "-") for provider in providers.get(name, ["nobody"])} & declared
    }

    assert undeclared == set()


def test_requirements_txt_lists_every_plugin() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]

    assert listed == ["-e .", *(f"-e plugins/{plugin.name}" for plugin in PLUGINS), "starlette>=0.45,<2"]


def test_every_plugin_is_an_extra_of_the_kernel() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    wanted = [f"trio-kernel-{plugin.name}>=0.1,<0.2" for plugin in PLUGINS]

    assert [extras[plugin.name] for plugin in PLUGINS] == [[one] for one in wanted]
    assert extras["all"] == wanted


@every_pyproject
def test_a_distribution_says_what_it_is(pyproject: Path) -> None:
    project = read_toml(pyproject)["project"]

    assert isinstance(project, dict)
    assert {"description", "readme", "license", "license-files", "authors", "classifiers"} <= project.keys()
    assert (pyproject.parent / "LICENSE").read_text(encoding="utf-8") == (ROOT / "LICENSE").read_text(encoding="utf-8")


@every_plugin
def test_the_readme_of_a_plugin_reads_well_alone(plugin: Path) -> None:
    text = (plugin / "README.md").read_text(encoding="utf-8")

    assert re.findall(r"\]\((?!https?:|#)[^)]*\)", text) == []


@every_plugin
def test_the_root_project_knows_the_plugin(plugin: Path) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    tool = content["tool"]

    assert f"trio-kernel-{plugin.name}" in content["dependency-groups"]["plugins"]
    assert tool["uv"]["sources"][f"trio-kernel-{plugin.name}"] == {"workspace": True}
    assert f"kernel_{plugin.name}" in tool["importlinter"]["root_packages"]


@every_plugin
def test_a_plugin_is_a_complete_template(plugin: Path) -> None:
    package = plugin / f"kernel_{plugin.name}"
    content = read_toml(plugin / "pyproject.toml")
    project = content["project"]

    assert isinstance(project, dict)
    assert project["name"] == f"trio-kernel-{plugin.name}"
    assert "uv" not in content.get("tool", {}), "a plugin's pyproject says nothing about the workspace"
    assert (package / "py.typed").is_file()
    assert len((plugin / "README.md").read_text(encoding="utf-8").splitlines()) > 5
    assert list((plugin / "tests").glob("test_*.py"))


@every_plugin
def test_a_plugins_entry_points_are_of_their_kind(plugin: Path) -> None:
    distribution = f"trio-kernel-{plugin.name}"
    found = [
        (point, kind)
        for group, kind in KINDS.items()
        for point in entry_points(group=group)
        if point.dist is not None and point.dist.name == distribution
    ]

    assert found
    assert [point.value for point, kind in found if not issubclass(point.load(), kind)] == []


@every_plugin
def test_a_plugins_public_classes_have_docstrings(plugin: Path) -> None:
    package = importlib.import_module(f"kernel_{plugin.name}")
    public = [value for name, value in vars(package).items() if inspect.isclass(value) and not name.startswith("_")]

    assert public
    assert [cls.__name__ for cls in public if not inspect.getdoc(cls)] == []


def test_no_file_names_this_machine_or_a_registry() -> None:
    guilty = [
        f"{path.relative_to(ROOT)}: {found.group()}"
        for path in tracked_files()
        if (found := MACHINE.search(path.read_text(encoding="utf-8", errors="replace")))
    ]

    assert guilty == []


def test_the_lock_file_is_not_part_of_the_repository() -> None:
    assert ROOT / "uv.lock" not in tracked_files()


def test_the_version_is_that_of_the_distribution() -> None:
    assert kernel.__version__ == version("trio-kernel")


def modules_of(package: Path) -> dict[str, Path]:
    found = (path for path in package.rglob("*.py") if "_templates" not in path.parts)
    names = {path: path.relative_to(package.parent).with_suffix("").parts for path in found}
    return {".".join(name[:-1] if name[-1] == "__init__" else name): path for path, name in names.items()}


def imported_by(name: str, path: Path, modules: Collection[str]) -> set[str]:
    """The modules of its own package that a module imports, those for annotations alone among them."""
    parent = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join([*parent[: len(parent) + 1 - node.level], *filter(None, [node.module])])
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base for alias in node.names}
    return found & {*modules} - {name}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_no_modules_need_each_other(package: Path) -> None:
    """Layers hold the order that somebody wrote down; this holds that there is one, in every package."""
    modules = modules_of(package)
    needs = {name: imported_by(name, path, modules) for name, path in modules.items()}
    left = set(needs)
    while free := {name for name in left if not needs[name] & left}:
        left -= free

    assert left == set()


def test_the_floor_of_the_kernel_has_few_rooms() -> None:
    rooms = {
        path.stem for path in (ROOT / "kernel").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }

    assert len(rooms) <= 16
