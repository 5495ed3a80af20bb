"""Facts about finding and importing plugins."""

from __future__ import annotations

import importlib
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PathDistribution
from pathlib import Path

import attrs
import pytest

from kernel._manifest import installed
from kernel._manifest.registry import _SHIPPED, GROUPS, Plugin, Registry, discover
from kernel.abc import Driver
from kernel.errors import PluginDuplicateError, PluginError, PluginLoadError, PluginNotFoundError

GOOD = """
from contextlib import asynccontextmanager
from kernel.abc import Driver

class Good(Driver):
    @asynccontextmanager
    async def open(self):
        yield None
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put distributions on the path: metadata, and one module each."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def install(name: str, entry_points: str, source: str = GOOD, *, version: str = "1.0") -> None:
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entry_points)
        (tmp_path / f"{name.replace('-', '_')}.py").write_text(source)
        importlib.invalidate_caches()

    yield install

    for module in set(sys.modules) - before:
        del sys.modules[module]


def of_tests(registry: Registry) -> list[tuple[str, str, str, str]]:
    return [
        (plugin.kind, plugin.name, str(plugin), plugin.value)
        for plugin in registry.plugins
        if plugin.distribution.startswith("x-")
    ]


def load_error(install: Install, source: str, value: str = "x_bad:Bad", kind: str = "driver") -> PluginLoadError:
    install("x-bad", f"[kernel.{kind}s]\nbad = {value}\n", source)
    with pytest.raises(PluginLoadError) as caught:
        discover().load(kind, "bad")
    return caught.value


# --- discovery --------------------------------------------------------------------------------------------------


def test_every_kind_is_found_and_nothing_is_imported(install: Install) -> None:
    entry_points = """\
[kernel.drivers]
d = x_all:D
[kernel.protocols]
p = x_all:P
[kernel.dispatchers]
i = x_all:I
[kernel.workers]
w = x_all:W
[kernel.commands]
c = x_all:C
[console_scripts]
other = x_all:main
"""
    install("x-all", entry_points, "raise SystemExit", version="2.5")

    assert of_tests(discover()) == [
        ("command", "c", "x-all==2.5", "x_all:C"),
        ("dispatcher", "i", "x-all==2.5", "x_all:I"),
        ("driver", "d", "x-all==2.5", "x_all:D"),
        ("protocol", "p", "x-all==2.5", "x_all:P"),
        ("worker", "w", "x-all==2.5", "x_all:W"),
    ]
    assert "x_all" not in sys.modules


def test_a_distribution_without_metadata_is_still_found(install: Install, tmp_path: Path) -> None:
    install("x-bare", "[kernel.drivers]\nbare = x_bare:Good\n")
    (tmp_path / "x_bare-1.0.dist-info" / "METADATA").unlink()

    assert str(discover().find("driver", "bare")) == "unknown==unknown"


def test_a_distribution_with_damaged_metadata_harms_nobody_else(install: Install, tmp_path: Path) -> None:
    install("x-damaged", "[kernel.drivers]\ndamaged = x_damaged:Good\n")
    (tmp_path / "x_damaged-1.0.dist-info" / "METADATA").write_bytes(b"Name: \xff")

    assert str(discover().find("driver", "damaged")) == "unknown==unknown"
    assert str(discover().find("driver", "memory")).startswith("trio-kernel-memory==")


@pytest.mark.parametrize(
    "metadata",
    [
        "Metadata-Version: 2.4\nName: x-said\nVersion: 3\n\nName: x-another\n",
        "Version: 3\nname:x-said\nSummary: Name: x-another\n Version: 4\n",
        "Name: x-said\r\nVersion: 3\r\n\r\nVersion: 4\r\n",
        "Name: x-said\nVersion: 3\nName: x-another",
    ],
)
def test_a_distribution_is_called_as_its_metadata_begin(install: Install, tmp_path: Path, metadata: str) -> None:
    install("x-said", "[kernel.drivers]\nsaid = x_said:Good\n")
    (tmp_path / "x_said-1.0.dist-info" / "METADATA").write_bytes(metadata.encode())

    assert str(discover().find("driver", "said")) == "x-said==3"


GROUP = "kernel.drivers"
WAYS = {
    "plain": "[kernel.drivers]\nmine = x_way:Good\n",
    "spaces": "\n [kernel.drivers] \n  mine   =   x_way:Good  \n\n",
    "comment": "# [kernel.workers]\n[kernel.drivers]\n# no = x_way:Bad\nmine = x_way:Good\n",
    "others": "[console_scripts]\nmine = x_way:main\n[kernel.drivers]\nmine = x_way:Good\n[kernel.driver]\nno = x:No\n",
    "extras": "[kernel.drivers]\nmine = x_way:Good [more, yet]\n",
    "nested": "[kernel.drivers]\nmine = x_way:Good.Config\n",
    "carriage returns": "[kernel.drivers]\r\nmine = x_way:Good\r\n",
    "no groups": "mine = x_way:Good\n",
    "empty": "",
}


@pytest.mark.parametrize("text", WAYS.values(), ids=WAYS)
def test_entry_points_are_read_as_python_reads_them(install: Install, tmp_path: Path, text: str) -> None:
    install("x-way", "")
    (tmp_path / "x_way-1.0.dist-info" / "entry_points.txt").write_bytes(text.encode())

    assert sorted(_told(installed.entry_points([GROUP]))) == sorted(_told(installed._by_importlib(frozenset({GROUP}))))


def test_all_that_is_installed_is_found_as_python_finds_it() -> None:
    found, others = installed.entry_points(GROUPS.values()), installed._by_importlib(frozenset(GROUPS.values()))

    assert found
    assert sorted(_told(found)) == sorted(_told(others))


def test_of_two_distributions_of_a_name_the_first_on_the_path_counts(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("x-twice", "[kernel.drivers]\nolder = x_twice:Good\n")
    other = tmp_path / "other"
    info = other / "X.twice-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: X.twice\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[kernel.drivers]\nnewer = x_twice:Good\n")
    monkeypatch.syspath_prepend(other)

    found, others = installed.entry_points([GROUP]), installed._by_importlib(frozenset({GROUP}))
    assert sorted(_told(found)) == sorted(_told(others))
    assert [one.name for one in found if one.value == "x_twice:Good"] == ["newer"]


def test_what_is_in_an_archive_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x_packed-1.0.dist-info/METADATA", "Name: x-packed\nVersion: 1.0\n")
        file.writestr("x_packed-1.0.dist-info/entry_points.txt", "[kernel.drivers]\npacked = x_packed:Good\n")
    monkeypatch.syspath_prepend(archive)

    assert str(discover().find("driver", "packed")) == "x-packed==1.0"


def test_what_is_found_by_somebody_else_is_found(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("x-hidden", "[kernel.drivers]\nhidden = x_hidden:Good\n")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])

    class Finder:
        @staticmethod
        def find_spec(*_: object) -> None: ...
        @staticmethod
        def find_distributions(context: object) -> Iterator[PathDistribution]:
            return (PathDistribution(info) for info in tmp_path.glob("*.dist-info"))

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])

    assert str(discover().find("driver", "hidden")) == "x-hidden==1.0"


def _told(found: Iterable[installed.EntryPoint]) -> list[tuple[str, ...]]:
    return [(one.group, one.name, one.value, one.distribution, one.version) for one in found]


def test_no_allow_list_allows_everything() -> None:
    registry = discover()

    assert registry.allowing(None) is registry


# --- finding ----------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_an_error_with_suggestion_list_and_hint() -> None:
    registry = Registry.of({"drivers": {"sqlite": Driver, "redis": Driver}, "dispatchers": {"consumer": Driver}})

    with pytest.raises(PluginNotFoundError) as caught:
        registry.find("driver", "sqlit")

    assert (caught.value.kind, caught.value.name) == ("driver", "sqlit")
    assert str(caught.value) == (
        'no installed distribution provides the driver sqlit; did you mean "sqlite"? installed: redis, sqlite; '
        "the kernel's own plugins are installed with: pip install trio-kernel-NAME"
    )


@pytest.mark.parametrize(
    ("kind", "name", "distribution"),
    [("driver", "sqlite", "sqlite"), ("dispatcher", "consumer", "messaging"), ("protocol", "ufw_rpc", "ufw")],
)
def test_a_plugin_of_the_kernels_own_is_told_with_the_distribution_to_install(
    kind: str, name: str, distribution: str
) -> None:
    with pytest.raises(PluginNotFoundError) as caught:
        Registry().find(kind, name)

    assert str(caught.value).endswith(f"to install it: pip install trio-kernel-{distribution}")


def test_the_advice_knows_every_plugin_of_the_kernels_own_distributions() -> None:
    shipped = {
        plugin.name: plugin.distribution.removeprefix("trio-kernel-")
        for plugin in discover().plugins
        if plugin.distribution.startswith("trio-kernel-") and plugin.kind != "command"
    }

    assert shipped == _SHIPPED


def test_a_name_of_another_kind_is_said_to_be_one() -> None:
    registry = Registry.of({"dispatchers": {"consumer": Driver}})

    with pytest.raises(
        PluginNotFoundError, match="provides the driver consumer; consumer is a dispatcher; installed: nothing;"
    ):
        registry.find("driver", "consumer")


def test_a_name_that_two_distributions_provide_is_ambiguous_until_qualified(install: Install) -> None:
    install("x-one", "[kernel.drivers]\nsame = x_one:Good\n")
    install("x-two", "[kernel.drivers]\nsame = x_two:Good\n", version="2.0")
    registry = discover()

    with pytest.raises(PluginDuplicateError) as caught:
        registry.find("driver", "same")

    assert str(caught.value) == (
        "driver same is provided by x-one==1.0 (x_one:Good) and x-two==2.0 (x_two:Good); "
        'uninstall one, or write "x-one:same" to choose'
    )
    assert str(registry.find("driver", "x-two:same")) == "x-two==2.0"
    assert str(registry.find("driver", "X_Two:same")) == "x-two==2.0"


def test_the_prefix_of_first_party_distributions_may_be_left_out() -> None:
    registry = discover()

    assert registry.find("driver", "memory:memory") == registry.find("driver", "trio-kernel-memory:memory")


# --- the allow-list ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["memory", "trio-kernel-memory", "Trio_Kernel.Memory", "memory:memory", "trio-kernel-memory:memory"]
)
def test_an_allowed_plugin_is_found_by_its_name_or_its_distribution(name: str) -> None:
    assert discover().allowing([name]).find("driver", "memory").name == "memory"


def test_a_distribution_allows_all_its_plugins() -> None:
    registry = discover().allowing(["messaging"])

    assert {plugin.name for plugin in registry.plugins} >= {"consumer", "publisher", "rpc_client"}


@pytest.mark.parametrize("names", [[], ["json"], ["json:memory"], ["memory:json"]])
def test_a_plugin_outside_of_the_allow_list_is_not_imported(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Plugin) -> object:
        raise AssertionError(self)

    monkeypatch.setattr(Plugin, "load", load)

    with pytest.raises(PluginNotFoundError, match=r"driver memory of trio-kernel-memory==.* is not in the allow-list"):
        discover().allowing(names).load("driver", "memory")


def test_an_allow_list_decides_between_distributions(install: Install) -> None:
    install("x-one", "[kernel.drivers]\nsame = x_one:Good\n")
    install("x-two", "[kernel.drivers]\nsame = x_two:Good\n")

    assert str(discover().allowing(["x-two"]).find("driver", "same")) == "x-two==1.0"


def test_allow_lists_add_up() -> None:
    registry = discover().allowing(["json", "memory"]).allowing(["json"])

    with pytest.raises(PluginNotFoundError, match="allow-list"):
        registry.find("driver", "memory")


# --- loading ----------------------------------------------------------------------------------------------------


def test_a_plugin_is_imported_when_it_is_loaded(install: Install) -> None:
    install("x-good", "[kernel.drivers]\ngood = x_good:Good\n")

    loaded = discover().load("driver", "good")

    assert issubclass(loaded, Driver)
    assert loaded.__module__ == "x_good"


def test_objects_at_hand_are_loaded_as_they_are() -> None:
    def work() -> None: ...

    registry = Registry.of({"workers": {"work": work}, "commands": {"do": work}})

    assert registry.load("worker", "work") is work
    assert registry.load("command", "do") is work
    assert registry.plugins[0].value == f"{__name__}:{work.__qualname__}"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("def", "SyntaxError: invalid syntax (x_bad.py, line 1)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("", "AttributeError: module 'x_bad' has no attribute 'Bad'"),
        ("Bad = 1", "it must be a class, not int"),
        ("class Bad: ...", "it must be a subclass of kernel.abc.Driver"),
        ("from kernel.abc import Dispatcher as Bad", "it must be a subclass of kernel.abc.Driver"),
        ("from kernel.abc import Driver\nclass Bad(Driver): ...", "it does not define open"),
        (f"{GOOD}\nclass Bad(Good):\n    class Config: ...", "its Config must be an attrs class"),
        (f"{GOOD}\nclass Bad(Good):\n    Config = None", "its Config must be an attrs class"),
        (f"{GOOD}\nclass Bad(Good):\n    BrokerOptions = 1", "its BrokerOptions must be an attrs class"),
    ],
)
def test_a_broken_plugin_is_an_error_that_names_its_owner(install: Install, source: str, reason: str) -> None:
    error = load_error(install, source)

    assert str(error) == f"driver bad of x-bad==1.0 (entry point x_bad:Bad) cannot be loaded: {reason}"
    assert (error.kind, error.name) == ("driver", "bad")


def test_every_abstract_method_left_is_named(install: Install) -> None:
    source = "from kernel.abc import Dispatcher\nclass Bad(Dispatcher): ..."

    assert str(load_error(install, source, kind="dispatcher")).endswith("it does not define accept and open")


def test_worker_options_must_be_an_attrs_class(install: Install) -> None:
    source = """
from kernel.abc import Dispatcher
class Bad(Dispatcher):
    class WorkerOptions: ...
    def open(self): ...
    async def accept(self, intake, *, task_status): ...
"""
    assert str(load_error(install, source, kind="dispatcher")).endswith("its WorkerOptions must be an attrs class")


@pytest.mark.parametrize("value", ["x_bad", "x_bad:", "not a value", "x_bad:Bad.deeper"])
def test_an_entry_point_that_makes_no_sense_is_an_error(install: Install, value: str) -> None:
    error = load_error(install, "class Bad: ...", value)

    assert str(error).startswith(f"driver bad of x-bad==1.0 (entry point {value}) cannot be loaded: ")


def test_the_cause_is_kept(install: Install) -> None:
    assert isinstance(load_error(install, "1 / 0").__cause__, ZeroDivisionError)


def test_an_interrupt_while_importing_is_not_swallowed(install: Install) -> None:
    install("x-slow", "[kernel.drivers]\nslow = x_slow:Slow\n", "raise KeyboardInterrupt")

    with pytest.raises(KeyboardInterrupt):
        discover().load("driver", "slow")


def test_plugin_errors_have_one_base() -> None:
    with pytest.raises(PluginError):
        Registry().find("driver", "x")


def test_a_plugin_is_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        discover().plugins[0].name = "x"  # type: ignore[misc]
