"""Facts about manifests inside of manifests: what becomes of their plans, and that each problem has its file and line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import kernel
from kernel import Plan, resolve
from kernel._manifest.manifest import load
from kernel.errors import InvalidError

CODE = """
import attrs, trio
from kernel import answers, at, handles
@attrs.frozen
class Config:
    boxes: int = 1
    folder: str = "."
class Shop:
    def __init__(self, queue, config: Config = Config()): ...
    @at("before_stop")
    def leave(self): ...
    async def run(self):
        await trio.sleep_forever()
@handles("order.*")
async def pack(order: dict): ...
@answers("price")
async def price(sku: str): ...
async def loop(): ...
def shut(tables):
    return {"workers": {"shop": {"config": {"boxes": 99}}}}
"""
SHOP = """\
[kernel]
name = "shop"
[drivers.queue]
plugin = "sqlite"
path = "orders.db"
[dispatchers.incoming]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "orders"
[workers.shop]
use = "shop:Shop"
config = { boxes = 2, folder = "here" }
[workers.packer]
use = "shop:pack"
dispatcher = "incoming"
"""
OUTER = """\
[kernel]
name = "mall"
[drivers.bus]
plugin = "memory"
[services.tea]
manifest = "tea/shop.toml"
drivers = { queue = "bus" }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path, {"tea/shop.toml": SHOP, "tea/shop.py": CODE, "kernel.toml": OUTER})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)


def planned(
    file: str = "kernel.toml", environ: Mapping[str, str] | None = None, overrides: list[str] | None = None
) -> Plan:
    from kernel._convert.folder import on_path  # noqa: PLC0415

    with on_path(Path(file).parent):
        return resolve(load(file, environ=environ or {}, overrides=overrides or []), kernel.discover())


def values(plan: Plan) -> dict[str, tuple[str, str]]:
    return {value.path: (value.shown, value.origin) for value in plan.values()}


# --- what it becomes ----------------------------------------------------------------------------------------------


def test_what_is_inside_has_a_name_space_of_its_own_and_the_lent_driver(folder: Path) -> None:
    plan = planned()

    assert list(plan.components) == ["driver/bus", "worker/tea/shop", "worker/tea/packer", "dispatcher/tea/incoming"]
    assert plan.components["worker/tea/shop"].uses == ("driver/bus",)
    assert plan.components["dispatcher/tea/incoming"].uses == ("driver/bus",)
    assert plan.components["dispatcher/tea/incoming"].after == ("worker/tea/packer",)
    assert plan.components["worker/tea/shop"].where == "tea/shop.toml:11"
    assert [(one.name, one.service, one.directory) for one in plan.services.values()] == [
        ("tea", "shop", (folder / "tea").absolute())
    ]


def test_it_is_part_of_the_outer_proof_and_its_own_grace_period_of_none(folder: Path) -> None:
    (folder / "tea/shop.toml").write_text(SHOP.replace('name = "shop"', "grace_period = 1.0\ndrain_timeout = 0.5"))
    plan = planned()

    waits = [wait.what for wait in plan.budget.waits]
    assert waits == ["stage tea/before_stop", "drain", "dispatcher/tea/incoming", "worker/tea/packer", "flush"]

    with pytest.raises(InvalidError, match=r"worker/tea/packer 20\.0 .* more than grace_period = 25\.0") as error:
        planned(overrides=["services.tea.set.workers.packer.stop_timeout=20"])
    assert error.value.problems[0].path == "[kernel].grace_period"


def test_without_lent_drivers_it_opens_its_own(folder: Path) -> None:
    (folder / "kernel.toml").write_text('[services.tea]\nmanifest = "tea/shop.toml"\n')
    plan = planned()

    assert "driver/tea/queue" in plan.components
    assert plan.components["worker/tea/shop"].uses == ("driver/tea/queue",)


def test_tables_are_laid_over_it_and_know_their_place(folder: Path) -> None:
    text = '[services.tea.set.workers.shop]\nconfig = { boxes = "${BOXES}" }\nstop_timeout = 1.0\n'
    (folder / "kernel.toml").write_text(OUTER + text)
    found = values(planned(environ={"BOXES": "3"}))

    assert found["[workers.tea/shop.config].boxes"] == ("3", "kernel.toml:9")
    assert found["[workers.tea/shop.config].folder"] == ('"here"', "tea/shop.toml:13")
    assert found["[workers.tea/shop].stop_timeout"] == ("1.0", "kernel.toml:10")
    assert values(planned(overrides=["services.tea.set.workers.shop.config.boxes=4"]))[
        "[workers.tea/shop.config].boxes"
    ] == ("4", "--set")


def test_what_is_laid_over_it_is_above_its_setup_and_not_replaced_twice(folder: Path) -> None:
    (folder / "tea/shop.toml").write_text(SHOP.replace('name = "shop"', 'name = "shop"\nsetup = "shop:shut"'))
    assert values(planned())["[workers.tea/shop.config].boxes"] == ("99", "setup shop:shut")

    (folder / "kernel.toml").write_text(
        OUTER + '[services.tea.set.workers.shop.config]\nboxes = 5\nfolder = "$${x}${HOME}"\n'
    )
    found = values(planned(environ={"HOME": "${y}"}))
    assert found["[workers.tea/shop.config].boxes"] == ("5", "kernel.toml:9")
    assert found["[workers.tea/shop.config].folder"] == ('"${x}${y}"', "kernel.toml:10")


def test_of_a_driver_that_is_lent_nothing_is_read(folder: Path) -> None:
    text = SHOP.replace('path = "orders.db"', 'path = "${NOT_THERE}"')
    (folder / "tea/shop.toml").write_text(text)

    assert "driver/bus" in planned().components
    (folder / "kernel.toml").write_text('[services.tea]\nmanifest = "tea/shop.toml"\n')
    with pytest.raises(InvalidError, match=r"tea/shop.toml:5: .*NOT_THERE"):
        planned()


def test_secrets_begin_at_its_folder_and_are_masked(folder: Path) -> None:
    text = SHOP.replace('boxes = 2, folder = "here"', 'folder = { file = "key" }').replace("folder: str", "folder: str")
    (folder / "tea/shop.toml").write_text(text)
    (folder / "tea/shop.py").write_text(
        CODE.replace('folder: str = "."', "folder: kernel.Secret = None").replace(
            "import attrs", "import kernel, attrs"
        )
    )
    write(folder, {"tea/key": "hidden in tea\n"})
    (folder / "tea/key").chmod(0o600)

    assert [secret.reveal() for secret in planned().secrets] == ["hidden in tea"]


def test_one_manifest_may_be_inside_twice_and_inside_what_is_inside(folder: Path) -> None:
    street = '[kernel]\nname = "street"\n[drivers.bus]\nplugin = "memory"\n'
    street += (
        '[services.a]\nmanifest = "kernel.toml"\n[services.b]\nmanifest = "kernel.toml"\ndrivers = { bus = "bus" }\n'
    )
    write(folder, {"street.toml": street})
    plan = planned("street.toml")

    assert plan.components["worker/a/tea/shop"].uses == ("driver/a/bus",)
    assert plan.components["worker/b/tea/shop"].uses == ("driver/bus",)
    assert {one.name: one.service for one in plan.services.values()} == {
        "a": "mall", "a/tea": "shop", "b": "mall", "b/tea": "shop",
    }  # fmt: skip


def test_what_depends_on_a_service_comes_after_all_of_it(folder: Path) -> None:
    more = '[workers.last]\nuse = "tail:loop"\ndepends = ["service/tea"]\n[services.next]\nmanifest = "tea/shop.toml"\n'
    more += 'drivers = { queue = "bus" }\ndepends = ["service/tea"]\nset.dispatchers.incoming.queue = "others"\n'
    write(folder, {"kernel.toml": OUTER + more, "tail.py": "async def loop(): ..."})
    plan = planned(overrides=["kernel.drain_timeout=5"])

    inside = ("worker/tea/shop", "worker/tea/packer", "dispatcher/tea/incoming")
    assert set(inside) <= set(plan.components["worker/last"].uses)
    assert set(inside) <= set(plan.components["worker/next/packer"].uses)


def test_a_service_that_is_not_enabled_is_not_looked_at(folder: Path) -> None:
    (folder / "kernel.toml").write_text(OUTER + "enabled = false\n[services.gone]\nenabled = false\n")
    assert list(planned().components) == ["driver/bus"]


# --- what is wrong ------------------------------------------------------------------------------------------------

PRICE = '[workers.price]\nuse = "shop:price"\ndispatcher = "incoming"\n'
WRONG: Mapping[str, tuple[Mapping[str, str], str]] = {
    "no file": (
        {"kernel.toml": OUTER.replace("tea/shop", "tee/shop")},
        r"kernel.toml:6: \[services.tea\].manifest: tee/shop.toml: no such file",
    ),
    "empty": ({"tea/shop.toml": ""}, r"kernel.toml:6: \[services.tea\].manifest: tea/shop.toml: is empty"),
    "no TOML": ({"tea/shop.toml": "[kernel\n"}, r"tea/shop.toml:1: "),
    "itself": (
        {"kernel.toml": OUTER.replace("tea/shop.toml", "kernel.toml")},
        r"kernel.toml:6: .* kernel.toml would be inside itself for ever: kernel.toml, kernel.toml",
    ),
    "itself, by way of another": (
        {"tea/shop.toml": '[services.back]\nmanifest = "../kernel.toml"\n'},
        r"tea/shop.toml:2: \[services.back\].manifest: tea/../kernel.toml would be inside itself",
    ),
    "outside": (
        {"kernel.toml": OUTER.replace("tea/shop.toml", "../shop.toml")},
        r"kernel.toml:6: .* ../shop.toml is outside of the folder of kernel.toml",
    ),
    "no manifest": ({"kernel.toml": "[services.tea]\n"}, r"kernel.toml:1: \[services.tea\].manifest: is missing"),
    "manifest is no path": ({"kernel.toml": "[services.tea]\nmanifest = 3\n"}, r"kernel.toml:2: .*must be a string"),
    "unknown key": ({"kernel.toml": OUTER + "driver = 3\n"}, r'kernel.toml:8: .*unknown key; did you mean "drivers"'),
    "no such driver here": (
        {"kernel.toml": OUTER.replace('queue = "bus"', 'queue = "buss"')},
        r'kernel.toml:7: \[services.tea.drivers\].queue: there is no driver "buss"; did you mean "bus"',
    ),
    "no such driver there": (
        {"kernel.toml": OUTER.replace('queue = "bus"', 'queue = "bus", cue = "bus"')},
        r'kernel.toml:7: \[services.tea.drivers\].cue: tea/shop.toml has no driver "cue", and uses none of that name',
    ),
    "a driver that does not fit": (
        {"kernel.toml": OUTER.replace('plugin = "memory"', 'plugin = "http"\nbase_url = "http://127.0.0.1:1"')},
        r'tea/shop.toml:8: \[dispatchers.incoming\].driver: plugin "consumer" needs a driver that provides Broker',
    ),
    "a capability that it has not": (
        {"tea/shop.toml": SHOP.replace('queue = "orders"', 'queue = "orders"\ndurable = true')},
        r'tea/shop.toml:8: .*needs "durable", which driver/queue \(plugin "memory"\) cannot do',
    ),
    "a problem inside": (
        {"tea/shop.toml": SHOP.replace("boxes = 2", "boxes = true")},
        r"tea/shop.toml:13: \[workers.shop.config\].boxes: must be an integer",
    ),
    "a problem that was laid over it": (
        {"kernel.toml": OUTER + "set.workers.shop.config.boxes = true\n"},
        r"kernel.toml:8: \[workers.shop.config\].boxes: must be an integer",
    ),
    "extends from outside": (
        {"kernel.toml": OUTER + 'set.kernel.extends = "x.toml"\n'},
        r"kernel.toml:8: \[services.tea.set.kernel\].extends: stands in a file, and cannot be set",
    ),
    "a time of the process": (
        {"kernel.toml": OUTER + "set.kernel.grace_period = 9.0\n"},
        r"kernel.toml:8: \[services.tea.set.kernel\].grace_period: has no effect: there is one process",
    ),
    "a log of its own": (
        {"kernel.toml": OUTER + 'set.logging.level = "debug"\n'},
        r"kernel.toml:8: \[services.tea.set.logging\].level: has no effect: there is one process",
    ),
    "no such service": (
        {"kernel.toml": OUTER + 'depends = ["service/tee"]\n'},
        r'kernel.toml:8: .*there is no service "tee" inside; did you mean "tea"',
    ),
    "waits for itself": (
        {"kernel.toml": OUTER.replace('"memory"', '"memory"\ndepends = ["service/tea"]')},
        r"kernel.toml:3: .*can never start.*driver/bus \(line 3\) -> .*\(tea/shop.toml:\d+\)",
    ),
    "a module of the same name": (
        {"kernel.toml": OUTER + '[workers.here]\nuse = "shop:loop"\n', "shop.py": "async def loop(): ..."},
        r'the module "shop" beside it is not .*, which is in use',
    ),
    "two answers": (
        {
            "tea/shop.toml": SHOP + PRICE,
            "kernel.toml": OUTER
            + 'set.dispatchers.incoming.bindings = ["price"]\n[services.other]\nmanifest = "tea/shop.toml"\n'
            + 'drivers = { queue = "bus" }\nset.dispatchers.incoming = { queue = "others", bindings = ["#"] }\n',
        },
        r'kernel.toml:9: \[services.other\]: "price" is answered by worker/tea/price .* and worker/other/price gets it too',
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_with_its_file_and_line(folder: Path, name: str) -> None:
    files, told = WRONG[name]
    write(folder, files)

    with pytest.raises(InvalidError, match=told) as error:
        planned()
    assert len(error.value.problems) == 1, [str(problem) for problem in error.value.problems]


def test_services_inside_each_other_have_a_bound(folder: Path) -> None:
    files = {f"s{number}.toml": f'[services.x]\nmanifest = "s{number + 1}.toml"\n' for number in range(12)}
    write(folder, {**files, "s12.toml": '[drivers.queue]\nplugin = "memory"\n'})

    with pytest.raises(InvalidError, match=r"s8.toml:2: .*more than 8 services inside each other"):
        planned("s0.toml")


def test_services_inside_one_have_a_bound(folder: Path) -> None:
    text = "".join(f'[services.{name}]\nmanifest = "s{{}}.toml"\n' for name in "abcde")
    files = {f"s{number}.toml": text.replace("{}", str(number + 1)) for number in range(7)}
    write(folder, {**files, "s7.toml": '[drivers.queue]\nplugin = "memory"\n'})

    with pytest.raises(InvalidError, match="more than 64 services inside one"):
        planned("s0.toml")


def test_every_problem_is_told_at_once(folder: Path) -> None:
    broken = SHOP.replace("boxes = 2", "boxes = true")
    write(folder, {"tea/shop.toml": broken, "cake/shop.toml": broken.replace("shop:", "cake:"), "cake/cake.py": CODE})
    more = '[services.cake]\nmanifest = "cake/shop.toml"\ndrivers = { queue = "bus" }\n[drivers.other]\nplugin = "nothing"\n'
    (folder / "kernel.toml").write_text(OUTER + more)

    with pytest.raises(InvalidError) as error:
        planned()
    assert [problem.file for problem in error.value.problems] == ["cake/shop.toml", "kernel.toml", "tea/shop.toml"]
