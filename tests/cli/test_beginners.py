"""`kernel check` finds what beginners do wrong, and says where it is and what to write instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernel._cli.cli import execute

from . import _mistakes_in_code, _mistakes_in_manifests
from ._beginners import RIGHT, Mistake

MISTAKES = [*_mistakes_in_manifests.MISTAKES, *_mistakes_in_code.MISTAKES]


def write(mistake: Mistake, folder: Path) -> None:
    files = dict(RIGHT)
    for name, old, new in mistake.changes:
        if new is None:
            del files[name]
        elif old is None:
            files[name] = new
        else:
            assert old in files[name], (mistake.name, old)
            files[name] = files[name].replace(old, new, 1)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def check(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("QUEUE", raising=False)
    status = execute(["check"])
    captured = capsys.readouterr()
    return status, [*captured.out.splitlines(), *captured.err.splitlines()]


def is_as_said(line: str, printed: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, printed.split("..."))), line) is not None


def test_nothing_is_wrong_with_what_they_begin_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(Mistake("none", [], []), tmp_path)

    status, said = check(tmp_path, monkeypatch, capsys)

    assert (status, len(said)) == (0, 1)
    assert said[0].startswith("kernel.toml: ok: 11 components;")


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_beginners_mistake_is_found_with_its_place_and_what_to_write_instead(
    mistake: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(mistake, tmp_path)

    _, said = check(tmp_path, monkeypatch, capsys)

    assert len(said) == len(mistake.printed), said
    assert [line for line, printed in zip(said, mistake.printed, strict=True) if not is_as_said(line, printed)] == []


def test_there_are_more_than_forty_and_no_two_alike() -> None:
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) > 40
    assert len({tuple(mistake.printed) for mistake in MISTAKES}) == len(MISTAKES)
