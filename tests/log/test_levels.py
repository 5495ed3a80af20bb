"""Who is heard at which level: the service, the kernel, libraries, and whoever is asked for by name."""

from __future__ import annotations

import logging
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from kernel._log.levels import Levels, own_packages
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import discover
from kernel._plan.plan import resolve

from ._logs import captured, written

INSTALLED = Path(sysconfig.get_path("purelib"))
LIBRARY = compile("logger.log(number, 'said')", str(INSTALLED / "hpack" / "hpack.py"), "exec")
OWN = compile("logger.log(number, 'said')", "/srv/shop/workers.py", "exec")


def said(code: Any, name: str, number: int, **settings: Any) -> bool:
    """Whether a record of a logger is written that was made by code of some file."""
    return "said" in captured(
        lambda: exec(code, {"logger": logging.getLogger(name), "number": number}),  # noqa: S102, RUF100
        **settings,
    )


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_libraries_are_heard_from_warning_on(level: str) -> None:
    heard = [said(LIBRARY, "hpack.hpack", number, level=level) for number in (10, 20, 30, 40)]

    assert heard == [False, False, True, True]


def test_libraries_are_not_heard_below_the_level_of_the_service() -> None:
    assert not said(LIBRARY, "hpack.hpack", logging.WARNING, level="error")


@pytest.mark.parametrize("name", ["shop", "orders", "root", "x.y"])
def test_the_service_is_heard_whatever_its_loggers_are_called(name: str) -> None:
    assert said(OWN, name, logging.DEBUG, level="debug")
    assert not said(OWN, name, logging.DEBUG, level="info")


@pytest.mark.parametrize(
    ("levels", "name", "heard"),
    [
        ({"hpack": "debug"}, "hpack.hpack", True),
        ({"hpack.hpack": "debug"}, "hpack.hpack", True),
        ({"hpack": "debug", "hpack.hpack": "error"}, "hpack.hpack", False),
        ({"hpack": "debug"}, "hpackage", False),
        ({"h2": "debug"}, "hpack.hpack", False),
        ({"hpack": "info"}, "hpack.hpack", False),
    ],
)
def test_who_is_asked_for_by_name_is_heard(levels: dict[str, str], name: str, heard: bool) -> None:
    assert said(LIBRARY, name, logging.DEBUG, levels=levels) is heard


def test_who_is_asked_for_is_heard_even_if_it_has_made_itself_quiet() -> None:
    logger = logging.getLogger("quiet.library")
    logger.setLevel(logging.ERROR)
    try:
        assert said(LIBRARY, "quiet.library", logging.DEBUG, levels={"quiet.library": "debug"})
        assert logger.level == logging.ERROR
    finally:
        logger.setLevel(logging.NOTSET)


def test_a_part_of_the_service_can_be_made_quiet() -> None:
    assert not said(OWN, "shop.noise", logging.INFO, levels={"shop.noise": "warning"})
    assert said(OWN, "shop", logging.INFO, levels={"shop.noise": "warning"})


@pytest.mark.parametrize(("component", "lines"), [("driver/queue", 2), ("driver/other", 1)])
def test_a_component_has_a_level_of_its_own(component: str, lines: int) -> None:
    def write(log: Any) -> None:
        log.bind(component=component).debug("detail")
        log.bind(component=component).info("told")

    assert written(write, levels={"driver/queue": "debug"}).count("\n") == lines


@pytest.fixture
def structlog_as_imported() -> Iterator[None]:
    """What a service finds that configures nothing; other tests may have."""
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    if before is not None:
        structlog.configure(**before)


@pytest.mark.usefixtures("structlog_as_imported")
def test_structlog_obeys_the_levels_too() -> None:
    def say() -> None:
        structlog.get_logger("shop.noise").info("x")
        structlog.get_logger().debug("x")
        structlog.get_logger().info("heard")

    assert captured(say, levels={__name__: "info", "shop.noise": "error"}).count("\n") == 1


def test_a_service_that_is_installed_is_the_service() -> None:
    file = str(INSTALLED / "shop" / "workers.py")

    assert Levels(own=frozenset({"shop"}), level="debug").of_logger("orders", file) == logging.DEBUG
    assert Levels(level="debug").of_logger("orders", file) == logging.WARNING


def test_the_packages_of_a_service_are_those_of_its_workers_and_plugins() -> None:
    plan = resolve(
        from_mapping({"drivers": {"queue": {"plugin": "memory"}}, "workers": {"w": {"use": f"{__name__}:run"}}}),
        discover(),
    )

    assert {"kernel", "kernel_memory", __name__.partition(".")[0]} <= own_packages(plan)


async def run() -> None: ...
