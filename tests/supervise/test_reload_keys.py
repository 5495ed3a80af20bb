"""What a reload does with each key of the manifest that is the kernel's; a key that has no row here is a failure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, final

import attrs
import pytest
import trio

from kernel import Incoming, KernelReady, Message, Outgoing, at, handles
from kernel._core.policies import LogPolicy
from kernel._core.spec import Plan
from kernel._manifest import tables as of_kernel
from kernel._manifest.manifest import from_mapping, load
from kernel._manifest.registry import Registry
from kernel._plan.plan import resolve
from kernel.abc import Context, Dispatcher, Intake
from kernel.errors import PlanError
from kernel.testing import open_kernel

from ._reloaded import BROKER, REGISTRY, SHOP, Shelf, changed

HERE: Final = __name__
REFUSED: Final = frozenset({"refused"})
"""Nothing changes, and it is said what to do."""
TAKEN: Final = frozenset[str]()
"""It holds from now on, and nothing restarts."""


@attrs.frozen
class Volume:
    loud: bool = False


@attrs.frozen
class Bell(Dispatcher):
    """Rings for nobody."""

    Config: ClassVar[type[object]] = Volume
    WorkerOptions: ClassVar[type[object]] = Volume
    config: object
    context: Context

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        yield

    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()


@attrs.frozen
class Gong(Bell):
    """Another one."""


class Chest(Shelf):
    """A shelf with a lid."""


async def bury(payload: Any) -> None:
    await trio.lowlevel.checkpoint()


class Ringer:
    @handles("ring")
    async def ring(self, payload: Any) -> None:
        await trio.lowlevel.checkpoint()


class Found:
    """Found by its own word, where it is looked for."""

    dispatcher = "bell"

    @handles("found")
    async def ring(self, payload: Any) -> None:
        await trio.lowlevel.checkpoint()


class Sorter:
    @handles("letter")
    async def sort(self, letters: list[Any]) -> None:
        await trio.lowlevel.checkpoint()


class Plain:
    @handles("plain.*")
    def pack(self, payload: Any) -> None:
        """In a thread."""


class Around:
    """Stands around whatever it is named for."""

    def handling(self, incoming: Incoming) -> Iterator[None]:
        yield

    def sending(self, outgoing: Outgoing) -> Iterator[None]:
        yield


class Parcels:
    """A contract."""

    @handles("parcel.new")
    async def new(self, payload: str) -> None: ...


class Staged:
    @at("early")
    async def begin(self) -> None:
        await trio.lowlevel.checkpoint()

    @at("late")
    async def go_on(self) -> None:
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        await trio.sleep_forever()


def hear(event: KernelReady) -> None:
    """A hook."""


def translate(message: Message) -> Message:
    return message


def lets_through(_payload: object) -> bool:
    return True


def set_up(_tables: Mapping[str, object]) -> Mapping[str, object]:
    return {"workers": {"packer": {"timeout": 4.0}}}


ALL: Final = Registry((*REGISTRY.plugins, *Registry.of({"dispatchers": {"bell": Bell, "gong": Gong}}).plugins))


def consumer(**more: object) -> dict[str, object]:
    return {"plugin": "consumer", "bindings": ["#"], **BROKER, **more}


BASE: Final = changed(
    SHOP,
    drivers__spare={"plugin": "shelf"},
    drivers__other_queue={"plugin": "memory"},
    drivers__threads={"plugin": "thread_pool"},
    drivers__more_threads={"plugin": "thread_pool"},
    protocols__json={"plugin": "json"},
    protocols__other={"plugin": "json", "max_depth": 9},
    dispatchers__bell={"plugin": "bell"},
    dispatchers__letters=consumer(queue="letters", batch={"size": 5}),
    dispatchers__more=consumer(queue="more"),
    workers__ringer={"use": f"{HERE}:Ringer", "dispatcher": "bell"},
    workers__sorter={"use": f"{HERE}:Sorter", "dispatcher": "letters"},
    workers__plain={"use": f"{HERE}:Plain", "dispatcher": "more", "runs_in": "threads"},
    workers__once={"use": "once", "oneshot": True},
    workers__staged={"use": f"{HERE}:Staged"},
    workers__second={"use": "watchman"},
    workers__grave={"use": f"{HERE}:bury"},
    workers__other__failure_worker="grave",
    groups__pair={"strategy": "one_for_one", "members": ["watchman", "second"]},
    stages__early={"after": "after_start"},
    stages__late={"after": "early"},
)


@final
@attrs.frozen
class Row:
    """A key with another value, and who restarts for it; what comes is `+ id`, what goes `- id`."""

    key: str
    value: object
    expected: frozenset[str]
    also: Mapping[str, object] = attrs.field(factory=dict[str, object])
    """What has to change with it."""


def row(key: str, value: object, *expected: str, **also: object) -> Row:
    return Row(key, value, frozenset(expected), also)


def refused(key: str, value: object) -> Row:
    return Row(key, value, REFUSED)


def life(name: str, *restarts: str) -> list[Row]:
    """Rows of what everything has that lives."""
    values: Mapping[str, object] = {
        "essential": False,
        "restart": {"max_restarts": 3},
        "start_timeout": 9.0,
        "stop_timeout": 1.5,
        "on_reload": "restart",
        "depends": ["driver/other_queue"],
    }
    return [row(f"{name}__{key}", value, *restarts) for key, value in values.items()]


SPOKEN: Final = ("driver/orders", "dispatcher/work", "dispatcher/letters", "dispatcher/more")
"""Who speaks `json`."""
ROWS: Final = [
    refused("kernel__name", "other"),
    refused("kernel__control", False),
    row("kernel__grace_period", 60.0),
    row("kernel__drain_timeout", 5.0),
    row("kernel__hooks", [f"{HERE}:hear"]),
    row("kernel__process_restart", {"max_restarts": 3}),
    row("kernel__plugins", [one.name for one in ALL.plugins]),
    row("kernel__setup", f"{HERE}:set_up", "worker/packer"),
    row("kernel__arguments", {"dry": False}),
    row("logging__level", "debug"),
    row("logging__levels", {"httpx": "info"}),
    refused("logging__format", "json"),
    refused("logging__file", {"path": "shop.log"}),
    *life("drivers__spare", "driver/spare"),
    row("drivers__spare__enabled", False, "- driver/spare"),
    row("drivers__spare__plugin", "memory", "driver/spare"),
    row("drivers__spare__use", f"{HERE}:Chest", "driver/spare", drivers__spare__plugin=None),
    row("drivers__orders__driver", "other_queue", "driver/orders"),
    row("drivers__orders__protocol", "other", "driver/orders"),
    row("drivers__orders__interceptors", [f"{HERE}:Around"], "driver/orders"),
    row("drivers__orders__contract", f"{HERE}:Parcels", "driver/orders"),
    row("protocols__other__enabled", False),
    row("protocols__json__plugin", "msgpack", *SPOKEN),
    row("protocols__json__use", "kernel_msgpack:MsgpackProtocol", *SPOKEN, protocols__json__plugin=None),
    row("protocols__json__inbound", [f"{HERE}:translate"], *SPOKEN),
    row("protocols__json__outbound", [f"{HERE}:translate"], *SPOKEN),
    *life("dispatchers__work", "dispatcher/work"),
    row(
        "dispatchers__bell__enabled",
        False,
        "- dispatcher/bell",
        "- worker/ringer",
        workers__ringer__enabled=False,
    ),
    row("dispatchers__bell__plugin", "gong", "dispatcher/bell", "worker/ringer"),
    row("dispatchers__bell__use", f"{HERE}:Gong", "dispatcher/bell", "worker/ringer", dispatchers__bell__plugin=None),
    row("dispatchers__bell__workers", HERE, "dispatcher/bell", "+ worker/found"),
    row("dispatchers__work__driver", "other_queue", "dispatcher/work"),
    row("dispatchers__work__protocol", "other", "dispatcher/work"),
    row("dispatchers__work__interceptors", [f"{HERE}:Around"], "dispatcher/work"),
    row("dispatchers__work__concurrency", 9, "dispatcher/work"),
    row("dispatchers__work__rate", {"messages": 5}, "dispatcher/work"),
    row("dispatchers__work__fan_out", True, "dispatcher/work"),
    row("dispatchers__letters__batch", {"size": 6}, "dispatcher/letters"),
    *life("workers__packer", "worker/packer"),
    row("workers__packer__enabled", False, "- worker/packer", "dispatcher/work"),
    row("workers__packer__use", "hasty", "worker/packer"),
    row("workers__packer__dispatcher", "more", "worker/packer", "dispatcher/work", "dispatcher/more"),
    row("workers__packer__config", {"label": "b"}, "worker/packer"),
    row("workers__packer__timeout", 3.0, "worker/packer"),
    row("workers__packer__retry", {"attempts": 7}, "worker/packer"),
    row("workers__packer__kill_switch", {"minimum": 5}, "worker/packer"),
    row("workers__packer__concurrency", 2, "worker/packer"),
    row("workers__packer__instances", 2, "worker/packer"),
    row("workers__packer__failure_worker", "grave", "worker/packer"),
    row("workers__packer__filter", f"{HERE}:lets_through", "worker/packer"),
    row("workers__plain__runs_in", "more_threads", "worker/plain"),
    row("workers__clerk__drivers", {"shelf": "spare"}, "worker/clerk"),
    row("workers__ringer__options", {"loud": True}, "worker/ringer", "dispatcher/bell"),
    row("workers__once__oneshot", False, "worker/once"),
    row("workers__watchman__main", True, "worker/watchman"),
    row("groups__pair__strategy", "one_for_all"),
    row("groups__pair__members", ["watchman", "second", "clerk"]),
    row("groups__pair__restart", {"max_restarts": 3}),
    row("stages__late__after", "after_start"),
    row("stages__late__before", "before_stop", stages__late__after=None),
    row("stages__late__direction", "gather"),
    row("stages__late__timeout", 9.0),
]


def planned(**changes: Any) -> Plan:
    return resolve(from_mapping(changed(BASE, **changes)), ALL)


@pytest.mark.parametrize("case", ROWS, ids=[one.key for one in ROWS])
async def test_what_a_reload_does_with_a_key(case: Row, autojump_clock: Any) -> None:
    plan = planned(**{case.key: case.value, **case.also})
    async with open_kernel(BASE, registry=ALL) as service:
        if case.expected == REFUSED:
            with pytest.raises(PlanError, match=f"{case.key.partition('__')[2]}.*the service"):
                await service.kernel.reload(plan)
            assert service.kernel.plan is not plan
            return
        told = await service.kernel.reload(plan)

        came, went = (f"+ {id_}" for id_ in told.added), (f"- {id_}" for id_ in told.removed)
        assert {*told.restarted, *came, *went} == case.expected
        assert not told.failed
        assert service.kernel.plan is plan


async def test_how_many_processes_there_are_cannot_change(autojump_clock: Any) -> None:
    async with open_kernel(BASE, registry=ALL) as service:
        with pytest.raises(PlanError, match=r"\[kernel\]\.processes: .* stop it and start it"):
            await service.kernel.reload(attrs.evolve(planned(), processes=2))  # memory would be refused before


# --- of services inside, and of files ---------------------------------------------------------------------------------

INNER: Final = """
[drivers.box]
plugin = "shelf"
[workers.watchman]
use = "watchman"
"""
OUTER: Final = """
[kernel]
name = "shop"
[drivers.shelf]
plugin = "shelf"
[workers.watchman]
use = "watchman"
"""
INSIDE: Final = ("driver/inside/box", "worker/inside/watchman")
BOX, WATCHMAN = INSIDE
OF_SERVICES: Final = [
    row("manifest", '"other.toml"', BOX),
    row("enabled", "false", f"- {BOX}", f"- {WATCHMAN}"),
    row("drivers", '{ box = "shelf" }', f"- {BOX}"),
    row("set", "{ drivers = { box = { size = 2 } } }", BOX),
    row("depends", '["driver/shelf"]', BOX, WATCHMAN),
    row("essential", "false", BOX, WATCHMAN),
    row("main", "true"),
    row("restart", "{ max_restarts = 3 }"),
]


def read(directory: Path, **keys: object) -> Plan:
    (directory / "other.toml").write_text(INNER.replace('"shelf"', '"shelf"\nsize = 3'))
    (directory / "inner.toml").write_text(INNER)
    (directory / "below.toml").write_text("[drivers.shelf]\nsize = 4\n")
    extends = f'"shop"\nextends = {keys.pop("extends")}' if "extends" in keys else '"shop"'
    inside = "".join(f"{key} = {value}\n" for key, value in {"manifest": '"inner.toml"', **keys}.items())
    path = directory / "kernel.toml"
    path.write_text(OUTER.replace('"shop"', extends) + f"[services.inside]\n{inside}")
    return resolve(load(path, environ={}), ALL)


@pytest.mark.parametrize("case", OF_SERVICES, ids=[one.key for one in OF_SERVICES])
async def test_what_a_reload_does_with_a_key_of_a_service_inside(
    case: Row, tmp_path: Path, autojump_clock: Any
) -> None:
    assert await _reloaded(tmp_path, **{case.key: case.value}) == case.expected


async def test_what_a_manifest_extends_is_part_of_it(tmp_path: Path, autojump_clock: Any) -> None:
    assert await _reloaded(tmp_path, extends='"below.toml"') == {"driver/shelf"}


async def _reloaded(directory: Path, **keys: object) -> set[str]:
    read(directory)
    async with open_kernel(directory / "kernel.toml", registry=ALL) as service:
        new = read(directory, **keys)
        told = await service.kernel.reload(new)
        assert not told.failed
        assert service.kernel.plan is new
    return {*told.restarted, *(f"+ {id_}" for id_ in told.added), *(f"- {id_}" for id_ in told.removed)}


# --- all keys -----------------------------------------------------------------------------------------------------------


TABLES: Final[Mapping[str, type[Any]]] = {
    "kernel": of_kernel.KernelTable,
    "logging": LogPolicy,
    "drivers": of_kernel.SenderTable,
    "protocols": of_kernel.ProtocolTable,
    "dispatchers": of_kernel.DispatcherTable,
    "workers": of_kernel.WorkerTable,
    "groups": of_kernel.GroupTable,
    "stages": of_kernel.StageTable,
    "services": of_kernel.ServiceTable,
}


def test_each_key_of_the_kernel_has_a_row() -> None:
    shown = {(case.key.partition("__")[0], case.key.rpartition("__")[2]) for case in ROWS}
    shown |= {("services", case.key) for case in OF_SERVICES} | {("kernel", "extends"), ("kernel", "processes")}
    keys = {(section, field.name) for section, cls in TABLES.items() for field in attrs.fields(cls)}

    assert keys - shown == set()
