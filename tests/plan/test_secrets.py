"""No problem of a manifest, no warning and no line of a plan tells a secret that stands where something else should."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import discover
from kernel._plan.plan import resolve
from kernel.errors import InvalidError

CANARY = "S3CRET-canary-in-a-haystack"
ENVIRON = {"TOKEN": CANARY, "ADDRESS": f"postgresql://postgres:{CANARY}@127.0.0.1/t"}
PLACES = [
    ("kernel", "name"),
    ("kernel", "grace_period"),
    ("logging", "level"),
    ("drivers", "queue", "plugin"),
    ("drivers", "queue", "stop_timeout"),
    ("drivers", "db", "sslmode"),
    ("drivers", "db", "pool_min"),
    ("dispatchers", "q", "driver"),
    ("dispatchers", "q", "protocol"),
    ("workers", "w", "use"),
    ("workers", "w", "timeout"),
    ("workers", "w", "dispatcher"),
    ("workers", "w", "failure_worker"),
    ("workers", "w", "config"),
    ("groups", "g", "strategy"),
]


class Holder:
    """Takes anything."""

    def __init__(self, config: dict) -> None:  # type: ignore[type-arg]
        self.config = config

    async def run(self) -> None: ...


def tables() -> dict[str, Any]:
    return {
        "kernel": {},
        "logging": {},
        "drivers": {
            "queue": {"plugin": "memory"},
            "db": {"plugin": "postgres", "dsn": {"env": "ADDRESS"}},
        },
        "dispatchers": {"q": {"plugin": "consumer", "driver": "queue", "queue": "q", "protocol": "json"}},
        "workers": {"w": {"use": f"{__name__}:Holder", "config": {"token": {"env": "TOKEN"}}}},
        "groups": {"g": {"members": ["w"]}},
    }


def told(given: Mapping[str, object]) -> str:
    with pytest.raises(InvalidError) as caught:
        resolve(from_mapping(given, environ=ENVIRON, directory=Path(__file__).parents[2]), discover())
    return str(caught.value)


@pytest.mark.parametrize("variable", ENVIRON)
@pytest.mark.parametrize("at", PLACES, ids=".".join)
@pytest.mark.parametrize("is_in_list", [False, True], ids=["plain", "in-a-list"])
def test_a_secret_in_the_wrong_place_is_not_told(at: tuple[str, ...], variable: str, *, is_in_list: bool) -> None:
    given = tables()
    table = given
    for key in at[:-1]:
        table = table[key]
    table[at[-1]] = [f"${{{variable}}}"] if is_in_list else f"${{{variable}}}"
    text = told(given)

    assert text
    assert CANARY not in text


def test_what_the_file_itself_says_is_told_though_a_secret_is_the_same() -> None:
    given = tables()
    given["drivers"]["queue"]["plugin"] = "canary"

    with pytest.raises(InvalidError, match="the driver canary"):
        resolve(from_mapping(given, environ={"TOKEN": "canary", "ADDRESS": "x"}), discover())


def test_a_plan_shows_no_secret_that_comes_in_by_another_way(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(CANARY)
    given = {
        "workers": {
            "w": {
                "use": f"{__name__}:Holder",
                "config": {"token": {"file": "token"}, "plain": "${TOKEN}", "in": ["x ${TOKEN}"], "at": "${ADDRESS}"},
            }
        }
    }
    plan = resolve(from_mapping(given, environ=ENVIRON, directory=tmp_path), discover())
    values = {value.path: value.shown for value in plan.values()}

    assert CANARY not in str(values)
    assert values["[workers.w.config].plain"] == '"***"'
