"""Facts about manifests that are wrong in one place: the place is named, by `kernel check`, with exit status 2.

Every key of every manifest of the repository is misspelt, given another type, taken away, and set out of range.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel._cli import commands as _commands
from kernel._cli.cli import execute
from kernel._convert.imports import import_object
from kernel._manifest.manifest import load
from kernel._manifest.registry import Registry, discover

ROOT = Path(__file__).parents[2]
OWN = ROOT / "tests" / "plan" / "manifests"
ENVIRON = {"PASSWORD": "correct horse"}
MANIFESTS = [
    *sorted(ROOT.glob("kernel.toml")),
    *sorted(ROOT.glob("examples/**/*.toml")),
    *sorted((OWN / "good").glob("*.toml")),
]
MANIFESTS = [path for path in MANIFESTS if path.name not in {"pyproject.toml", "ruff.toml"}]
# What is wrong in a table of a service inside may show in the manifest of that: `test_services.py` has such mistakes.
MANIFESTS = [path for path in MANIFESTS if "[services." not in path.read_text(encoding="utf-8")]
FREE = {
    *((section,) for section in ("drivers", "protocols", "dispatchers", "workers", "groups", "stages")),
    ("kernel", "arguments"),
    ("workers", "pricing", "config"),
}
"""Tables whose keys are the user's own names."""

KeyPath: TypeAlias = tuple[str, ...]
Said: TypeAlias = tuple[int, str]

every_manifest = pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(ROOT)))


class Mutant:
    """Writes a manifest with one change, and has it checked."""

    def __init__(self, path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.text = path.read_text(encoding="utf-8")
        self.tables = tomllib.loads(self.text)
        self.lines = load(path, environ=ENVIRON).lines
        self._file = folder / path.name
        self._capsys = capsys

    def written(self) -> list[KeyPath]:
        """All keys that are written down and not in a table that is switched off, outermost first."""
        return [at for at in _keys(self.tables, ()) if at in self.lines.known and not self._is_off(at)]

    def leaves(self) -> list[KeyPath]:
        return [at for at in self.written() if not isinstance(self.value(at), Mapping)]

    def value(self, at: KeyPath) -> object:
        value: object = self.tables
        for key in at:
            assert isinstance(value, Mapping)
            value = value[key]
        return value

    def line(self, at: KeyPath) -> int:
        return self.lines.known[at]

    def _is_off(self, at: KeyPath) -> bool:
        table = self.value(at[:2]) if len(at) > 2 else {}
        return isinstance(table, Mapping) and table.get("enabled") is False

    def span(self, at: KeyPath) -> tuple[int, int]:
        """Where the last part of a key stands in the text."""
        start = sum(map(len, self.text.splitlines(keepends=True)[: self.line(at) - 1]))
        found = re.compile(rf"(?<![\w\"]){re.escape(at[-1])}(?=\s*[=\].])").search(self.text, start)
        assert found, at
        return found.span()

    def value_span(self, at: KeyPath) -> tuple[int, int]:
        equals = re.compile(r"\s*=\s*").match(self.text, self.span(at)[1])
        assert equals, at
        for end in range(equals.end() + 1, len(self.text) + 1):
            if self._is_value(self.text[equals.end() : end], at) and self.text[end : end + 1] in {
                "",
                "\n",
                " ",
                ",",
                "}",
            }:
                return equals.end(), end
        raise AssertionError(f"no value of {at}")

    def _is_value(self, text: str, at: KeyPath) -> bool:
        try:
            return tomllib.loads(f"v = {text}")["v"] == self.value(at)
        except tomllib.TOMLDecodeError:
            return False

    def with_value(self, at: KeyPath, text: str) -> tuple[int, list[Said]]:
        start, end = self.value_span(at)
        return self.check(self.text[:start] + text + self.text[end:])

    def without(self, at: KeyPath) -> tuple[int, list[Said]]:
        """Check it with a key taken away, by making it a comment of a line or a hole in an inline table."""
        start, end = self.span(at)[0], self.value_span(at)[1]
        after = re.compile(r"[ ]*,[ ]*").match(self.text, end)
        return self.check(self.text[:start] + self.text[after.end() if after else end :])

    def check(self, text: str) -> tuple[int, list[Said]]:
        """Return the exit status of `kernel check` and the line and text of each problem."""
        self._file.write_text(text, encoding="utf-8")
        status = execute(["check", str(self._file)])
        said = self._capsys.readouterr().err.splitlines()
        assert not [line for line in said if "Traceback" in line or "internal error" in line]
        return status, [self._read(line) for line in said]

    def _read(self, line: str) -> Said:
        found = re.fullmatch(rf"(?:warning: )?{re.escape(str(self._file))}(?::(\d+))?: (.*)", line)
        assert found, line
        return int(found[1] or 0), found[2]


def _keys(value: object, at: KeyPath) -> Iterator[KeyPath]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield (*at, key)
            yield from _keys(item, (*at, key))


@pytest.fixture
def mutant(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mutant:
    registry = discover()
    if path.is_relative_to(OWN):
        fake = import_object("fake_plugins:REGISTRY", directory=OWN)
        assert isinstance(fake, Registry)
        registry = fake
    monkeypatch.setattr(_commands, "installed", lambda: registry)
    monkeypatch.syspath_prepend(path.parent)
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    return Mutant(path, tmp_path, capsys)


def test_the_manifests_of_the_repository_are_found() -> None:
    assert ROOT / "kernel.toml" in MANIFESTS
    assert OWN / "good" / "everything.toml" in MANIFESTS


@pytest.mark.slow
@every_manifest
def test_a_manifest_is_right_as_it_stands(path: Path, mutant: Mutant) -> None:
    assert mutant.check(mutant.text) == (0, [])


@pytest.mark.slow
@every_manifest
def test_a_misspelt_key_is_named_with_its_line(path: Path, mutant: Mutant) -> None:
    unnoticed = [at for at in mutant.written() if at[:-1] not in FREE and not misspelling_is_named(mutant, at)]

    assert unnoticed == []


def misspelling_is_named(mutant: Mutant, at: KeyPath) -> bool:
    end = mutant.span(at)[1]
    status, said = mutant.check(f"{mutant.text[:end]}x{mutant.text[end:]}")
    # A table that would be a secret is named as a whole: what stands in it may be the secret.
    name = at[-2] if at[-1] in {"env", "file"} else f"{at[-1]}x"
    return status == 2 and any(line == mutant.line(at) and name in text for line, text in said)


@pytest.mark.slow
@every_manifest
def test_a_value_of_another_type_is_named_with_its_line(path: Path, mutant: Mutant) -> None:
    unnoticed = [at for at in mutant.leaves() if not other_type_is_named(mutant, at)]

    assert unnoticed == []


def other_type_is_named(mutant: Mutant, at: KeyPath) -> bool:
    value = mutant.value(at)
    status, said = mutant.with_value(at, "1979-05-27" if isinstance(value, str) else '"elephant"')
    return status == 2 and any(line == mutant.line(at) and at[-1] in text for line, text in said)


@pytest.mark.slow
@every_manifest
def test_what_is_missing_is_named_at_a_line_of_the_manifest(path: Path, mutant: Mutant) -> None:
    wrong = {at: result for at in mutant.leaves() if not is_good_or_explained(result := mutant.without(at))}

    assert wrong == {}


def is_good_or_explained(result: tuple[int, list[Said]]) -> bool:
    status, said = result
    return (status == 0 or (status == 2 and bool(said))) and all(line for line, _ in said)


@pytest.mark.slow
@every_manifest
def test_a_worker_without_its_code_is_named_at_its_table(path: Path, mutant: Mutant) -> None:
    workers = [at for at in mutant.leaves() if at[0] == "workers" and at[2:] == ("use",)]
    results = {at: mutant.without(at) for at in workers}

    assert workers
    assert {at: {line for line, text in said if "use: is missing" in text} for at, (_, said) in results.items()} == {
        at: {mutant.line(at[:2])} for at in workers
    }


@pytest.mark.slow
@every_manifest
def test_a_negative_number_is_named_with_its_line(path: Path, mutant: Mutant) -> None:
    numbers = [at for at in mutant.leaves() if isinstance(mutant.value(at), int | float)]
    numbers = [at for at in numbers if not isinstance(mutant.value(at), bool) and not is_free_number(at)]
    unnoticed = [at for at in numbers if not negative_is_named(mutant, at)]

    assert unnoticed == []


def is_free_number(at: KeyPath) -> bool:
    return at[:2] in {("protocols", "wire"), ("kernel", "arguments")} or (at[0] == "workers" and at[2] == "config")


def negative_is_named(mutant: Mutant, at: KeyPath) -> bool:
    status, said = mutant.with_value(at, "-1")
    return status == 2 and any(line == mutant.line(at) and "-1" in text for line, text in said)


# --- anything at all ----------------------------------------------------------------------------------------------

PIECES = st.sampled_from([
    b"[", b"]", b"{", b"}", b"=", b",", b".", b"\n", b'"', b"'", b'"""', b"#", b"\\", b"\0", b"\xff", b"\xef\xbb\xbf",
    b"kernel", b"drivers", b"workers", b"plugin", b"use", b"memory", b"1", b"-1e9", b"1979-05-27", b"${HOME", b"$${",
    b"true", b"nan", b"[kernel]\n", b"[drivers.a]\n", b"[workers.b]\nuse = ", b"env", b"file",
])  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=40).map(b"".join)))
def test_any_bytes_are_a_manifest_or_explained(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_commands, "installed", Registry)
        status = execute(["check", str(path)])

    said = capsys.readouterr().err
    assert status in {0, 2}
    wrong = [line for line in said.splitlines() if not line.startswith("warning: ")]  # which change no status
    assert (status == 0) == (wrong == [])
    assert all(line.startswith(str(path)) for line in wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe\x00", b"[" * 100_000, b"a." * 50_000 + b"a = 1", b"a = " + b"9" * 10_000, b"\xef\xbb\xbf[kernel"],
    ids=["empty", "no UTF-8", "deep", "long key", "long number", "mark and a broken table"],
)
def test_hostile_files_end_a_process_with_status_2(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "kernel.toml").write_bytes(data)

    done = subprocess.run(
        [sys.executable, "-m", "kernel", "check"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("kernel.toml")
    assert "Traceback" not in done.stderr
