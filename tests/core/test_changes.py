"""What differs between two plans, and what is only made anew."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from kernel import Secret
from kernel._cli.source import Source
from kernel._convert.folder import on_path
from kernel._core.changes import changes, same
from kernel._manifest.registry import discover

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted([ROOT / "kernel.toml", *ROOT.glob("examples/**/kernel.toml")])


@pytest.mark.parametrize("path", MANIFESTS, ids=[str(path.relative_to(ROOT).parent) for path in MANIFESTS])
def test_a_manifest_that_is_read_again_restarts_nothing_but_what_asks_for_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ORDERS_DB", "AMQP_URL"):
        monkeypatch.setenv(name, os.environ.get(name, "amqp://127.0.0.1"))
    source, registry = Source(path=str(path)), discover()
    with on_path(path.parent):
        old, new = source.resolve(registry), source.resolve(registry)
    found = changes(old, new)

    assert found.changed == tuple(id_ for id_, spec in new.components.items() if spec.on_reload)
    assert not (found.added)
    assert not (found.removed)
    assert not (found.protocols)


@attrs.frozen(eq=False)
class Config:
    value: Any = None


class Opaque:
    pass


class Broken:
    def __eq__(self, other: object) -> bool:
        raise ValueError("no")

    __hash__ = None  # type: ignore[assignment]


VALUES = [
    (1, 1, True),
    (1, True, False),
    ("a", "b", False),
    ([1, {"a": (2,)}], [1, {"a": (2,)}], True),
    ([1], (1,), False),
    ([1, 2], [1], False),
    ({"a": 1}, {"a": 2}, False),
    ({"a": 1}, {"b": 1}, False),
    ({1, 2}, {2, 1}, True),
    (Config([Secret("a")]), Config([Secret("a")]), True),
    (Config(Secret("a")), Config(Secret("b")), False),
    (Config(), None, False),
    (partial(print, 1), partial(print, 1), True),
    (partial(print, 1), partial(print, 2), False),
    (Opaque(), Opaque(), False),
    (Broken(), Broken(), False),
]


@pytest.mark.parametrize(("one", "other", "expected"), VALUES)
def test_what_is_the_same(one: object, other: object, expected: bool) -> None:
    assert same(one, other) is expected
    assert same(one, one)
