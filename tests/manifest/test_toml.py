"""Facts about reading TOML with lines."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import example, given
from hypothesis import strategies as st

from kernel._manifest.toml import MAX_BYTES, MAX_DEPTH, Lines, parse_key, parse_text, parse_toml, read_toml
from kernel.errors import ManifestError, Problem

# --- documents whose numbers are the lines that they stand on ----------------------------------------------------

CONFUSING = [
    '"a # b = [c"',
    "'[x]'",
    '"\\"[y]"',
    '""',
    "''",
    '"""\n[x]\ny = 1\n"""',
    '"""""two quotes inside "" \\""" """""',
    "'''\n[[x]] # ''\n'''",
    "''''quoted''''",
    "1979-05-27 07:32:00Z",
    "-inf",
    "true",
]


class Writer:
    """Writes a document; integers in it are line numbers."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.names = 0

    def line(self) -> int:
        return self.text.count("\n") + 1

    def name(self) -> str:
        self.names += 1
        form = self.draw(st.sampled_from(["k{}", '"k {}"', "'k.{}'", '"\\u00e9\\t{}"', '"] = {}"', "{}"]))
        return str(form.format(self.names))

    def gap(self) -> None:
        self.text += self.draw(st.sampled_from(["", " ", "\n", " # ], } [x]\n", "\n\n\t"]))

    def value(self, depth: int) -> None:
        match self.draw(st.sampled_from(["line", "text", "array", "table"] if depth else ["line", "text"])):
            case "line":
                self.text += str(self.line())
            case "text":
                self.text += self.draw(st.sampled_from(CONFUSING))
            case "array":
                self.sequence("[", "]", depth, keys=False)
            case _:
                self.sequence("{", "}", depth, keys=True)

    def sequence(self, start: str, end: str, depth: int, *, keys: bool) -> None:
        self.text += start
        for _ in range(self.draw(st.integers(0, 3))):
            self.gap()
            if keys:
                self.pair(depth - 1)
            else:
                self.value(depth - 1)
            self.gap()
            self.text += ","
        self.gap()
        self.text += end

    def pair(self, depth: int) -> None:
        dots = self.draw(st.sampled_from([".", " . "]))
        self.text += dots.join(self.name() for _ in range(self.draw(st.integers(1, 3))))
        self.text += self.draw(st.sampled_from(["=", " = "]))
        self.value(depth)

    def section(self, number: int) -> None:
        header = self.draw(st.sampled_from(["[t{}]", "[ t{} . s ]", "[[a]]", "[[ a ]]\n[a.'b']", "[[a]]\n[[a.c]]"]))
        self.text += header.format(number) + self.draw(st.sampled_from(["\n", " # [x]\n", "\r\n"]))
        for _ in range(self.draw(st.integers(0, 4))):
            self.pair(3)
            self.text += self.draw(st.sampled_from(["\n", " # k = 1\n", "\n\n"]))


@st.composite
def documents(draw: st.DrawFn) -> str:
    writer = Writer(draw)
    for number in range(draw(st.integers(1, 4))):
        writer.section(number)
    return writer.text


def problems_of(data: bytes) -> tuple[Problem, ...]:
    """Return what is wrong with a file; whatever else is raised passes."""
    try:
        parse_toml(data, file="x.toml")
    except ManifestError as exc:
        return exc.problems
    return ()


def leaves(value: Any, at: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return [(at, value)]
    return [leaf for key, item in items for leaf in leaves(item, (*at, str(key)))]


def key_paths(value: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(value, list):
        return [path for index, item in enumerate(value) for path in key_paths(item, (*at, str(index)))]
    if not isinstance(value, dict):
        return []
    return [path for key, item in value.items() for path in [(*at, key), *key_paths(item, (*at, key))]]


@pytest.mark.slow
@given(documents())
def test_every_key_of_a_valid_document_has_its_line(text: str) -> None:
    expected = tomli.loads(text)

    tables, lines = parse_text(text, file="x.toml")

    numbers = [(at, value) for at, value in leaves(tables) if type(value) is int]
    assert tables == expected
    assert [at for at in key_paths(tables) if at not in lines.known] == []
    assert {at: lines.line(at) for at, _ in numbers} == dict(numbers)


@pytest.mark.slow
@given(documents(), st.data())
def test_a_damaged_document_raises_nothing_but_manifest_error(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 5)))
    damaged = text[:start] + data.draw(st.text(max_size=3) | st.sampled_from(['"', "[", "{", "'''", "."])) + text[end:]

    assert len(problems_of(damaged.encode())) <= 1


@given(st.binary(max_size=200))
@example(b"\xff\xfea\0")
@example(b"a = 2021-02-30")
@example(b"a = 24:61:00")
@example(b"a = " + b"9" * 5000)
@example(b"a = 0x" + b"f" * 5000)
@example(b"a = 1e999999")
@example(b'a = "\\ud800"')
@example(b'"\\ud800" = 1')
@example(b"[a]\n[[a]]")
@example(b"a = [1, 2")
def test_any_bytes_raise_nothing_but_manifest_error(data: bytes) -> None:
    assert len(problems_of(data)) <= 1


# --- lines ------------------------------------------------------------------------------------------------------


def test_a_table_has_the_line_of_its_own_header_not_of_one_that_implies_it() -> None:
    _, lines = parse_text("[a.b]\nx = 1\n[a]\ny = 2\n", file="x.toml")

    assert (lines.line(("a",)), lines.line(("a", "b"))) == (3, 1)


def test_elements_of_an_array_of_tables_have_the_lines_of_their_headers() -> None:
    _, lines = parse_text("[[a]]\nx = 1\n[[a]]\n[a.b]\n[[a.c]]\n", file="x.toml")

    assert [lines.line(("a", index)) for index in "01"] == [1, 3]
    assert lines.line(("a", "1", "b")) == 4
    assert lines.line(("a", "1", "c", "0")) == 5


def test_what_is_not_written_has_the_line_of_the_nearest_table_around_it() -> None:
    _, lines = parse_text("\n[a]\nb = 1\n", file="x.toml")

    assert lines.line(("a", "missing", "deeper")) == 2
    assert lines.line(("missing",)) == 0
    assert Lines().line(()) == 0


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "line", "text"),
    [
        (b"a = 1\nb = \xff\n", 2, "must be UTF-8, but byte 0xff is not"),
        (b"a = 1\nb = '\0'\n", 2, "holds a NUL character: this is no text file"),
        (b"a = 1\nb = \n", 2, "Invalid value (column 5)"),
        (b"a = 1\na = 2\n", 2, "Cannot overwrite a value (column 6)"),
        (b"a = 1\nb = 9223372036854775808", 2, "an integer must fit into 64 bits"),
        (b"a = [\n1,\n-9223372036854775809]", 3, "an integer must fit into 64 bits"),
        (b"a = 1\nb = " + b"9" * 5000, 2, "a number is too long"),
        (b"\na = " + b"[" * 1000, 2, "is nested more than 32 deep"),
        (b"\na = " + b"{a=" * 1000, 2, "is nested more than 32 deep"),
        (b"\n" + b".".join([b"a"] * 50_000) + b" = 1", 2, "is nested more than 32 deep"),
        (b"\n[" + b".".join([b"a"] * 50_000) + b"]", 2, "is nested more than 32 deep"),
        (b"[" + b".".join([b"a"] * 30) + b"]\nb.c.d = 1", 2, "is nested more than 32 deep"),
        (b"#" * (MAX_BYTES + 1), 0, "is larger than 1048576 bytes"),
        ("a = 1".encode("utf-16"), 1, "must be UTF-8, but byte 0xff is not"),
    ],
)
def test_a_bad_file_is_one_problem_with_its_line(data: bytes, line: int, text: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_toml(data, file="x.toml")

    assert caught.value.problems == (Problem("x.toml", line, "", text),)


def test_the_deepest_nesting_allowed_is_read() -> None:
    key = ".".join(["a"] * MAX_DEPTH)

    tables, lines = parse_text(f"{key} = 1", file="x.toml")

    assert tables
    assert lines.line(("a",) * MAX_DEPTH) == 1


def test_a_byte_order_mark_is_skipped() -> None:
    tables, lines = parse_toml(b"\xef\xbb\xbfa = 1", file="x.toml")

    assert tables == {"a": 1}
    assert lines.line(("a",)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit", [b"[", b"{a=", b"a.", b'"', b"'''", b'"""\\', b"[[a]]\n", b"a=[\n", b"#\n", b"[a]\n", b'"\\u', b"=", b"\\"]
)
def test_time_grows_no_faster_than_a_hostile_file(unit: bytes) -> None:
    def seconds(size: int) -> float:
        data = (unit * size)[:size]
        began = time.process_time()
        problems_of(data)
        return time.process_time() - began

    # Four times the size would cost sixteen times the time, if time were quadratic.
    assert seconds(MAX_BYTES // 4) < 8 * seconds(MAX_BYTES // 16) + 0.05


def test_a_missing_file_and_a_directory_are_problems_of_the_whole_file(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"^gone\.toml: no such file$"):
        read_toml(tmp_path / "gone.toml", file="gone.toml")
    with pytest.raises(ManifestError, match=r"^here: is a directory; name the manifest in it$"):
        read_toml(tmp_path, file="here")


def test_what_is_written_into_a_pipe_is_read(tmp_path: Path) -> None:
    def write(into: int) -> None:
        for part in (b"[kernel]\n", b"name = ", b'"a"\n' + b"# more than the pipe holds\n" * 5_000):
            os.write(into, part)
        os.close(into)

    out, into = os.pipe()
    writer = threading.Thread(target=write, args=[into])
    writer.start()
    try:
        assert read_toml(Path(f"/dev/fd/{out}"), file="x")[0] == {"kernel": {"name": "a"}}
    finally:
        writer.join()
        os.close(out)


def test_a_pipe_that_nobody_writes_into_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "kernel.toml")
    out, into = os.pipe()
    os.write(into, b"[kernel]")
    monkeypatch.setattr("kernel._manifest.toml.PATIENCE", 0.1)

    assert read_toml(tmp_path / "kernel.toml", file="x")[0] == {}
    with pytest.raises(ManifestError, match=r"^x: has not come to its end within 0\.1 s: name a file$"):
        read_toml(Path(f"/dev/fd/{out}"), file="x")
    os.close(into)
    os.close(out)


def test_an_unreadable_file_is_a_problem(tmp_path: Path) -> None:
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)

    with pytest.raises(ManifestError, match=r"^x: cannot be read: Too many levels of symbolic links"):
        read_toml(loop, file="x")
    with pytest.raises(ManifestError, match=r"^x: cannot be read: embedded null byte"):
        read_toml(Path("a\0b"), file="x")


# --- keys -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ("a",)),
        ("a.b-c . d", ("a", "b-c", "d")),
        ("a.'b.c'.\"d\\te\"", ("a", "b.c", "d\te")),
        ("", None),
        ("a.", None),
        ("a b", None),
        ("a=1", None),
        ('"\\ud800"', None),
        (".".join(["a"] * (MAX_DEPTH + 1)), None),
    ],
)
def test_a_dotted_key_is_read_as_toml_reads_it(text: str, parts: tuple[str, ...] | None) -> None:
    assert parse_key(text) == parts


def test_a_module_in_place_of_the_manifest_is_told_as_that() -> None:
    with pytest.raises(ManifestError, match="this is a module: name the manifest"):
        parse_text("import attrs\n", file="shop.py")
