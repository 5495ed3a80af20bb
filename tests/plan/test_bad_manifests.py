"""What a user is told: each bad manifest has the exact text beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel._convert.imports import import_object
from kernel._manifest.manifest import load
from kernel._manifest.registry import Registry
from kernel._plan.plan import resolve
from kernel.errors import InvalidError

MANIFESTS = Path(__file__).parent / "manifests"
ENVIRON = {"PASSWORD": "correct horse", "EMPTY": ""}
BAD = sorted((MANIFESTS / "bad").glob("*.toml"))
GOOD = sorted((MANIFESTS / "good").glob("*.toml"))


def registry() -> Registry:
    found = import_object("fake_plugins:REGISTRY", directory=MANIFESTS)
    assert isinstance(found, Registry)
    return found


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_manifest_is_explained(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)

    with pytest.raises(InvalidError) as caught:
        resolve(load(path.name, environ=ENVIRON), registry())

    assert f"{caught.value}\n" == path.with_suffix(".txt").read_text()


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_manifest_becomes_a_plan(path: Path) -> None:
    plan = resolve(load(path, environ=ENVIRON), registry())

    assert plan.components
    assert plan.budget.seconds <= plan.grace_period


def test_every_explanation_has_a_manifest() -> None:
    texts = {path.stem for path in (MANIFESTS / "bad").glob("*.txt")}

    assert texts == {path.stem for path in BAD}
    assert len(texts) >= 100


def test_no_explanation_holds_a_secret() -> None:
    texts = [path.read_text() for path in (MANIFESTS / "bad").glob("*.txt")]

    assert not [text for text in texts if "correct horse" in text or "hunter2" in text]
