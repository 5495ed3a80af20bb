"""Facts about manifests: substitution, secrets, overrides, shape, origins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import Secret
from kernel._manifest.manifest import Manifest, from_mapping, load
from kernel.errors import ManifestError

ALLOWED = "allowed: kernel, logging, drivers, protocols, dispatchers, workers, groups, stages, services"


def written(folder: Path, text: str) -> Path:
    path = folder / "kernel.toml"
    path.write_text(text)
    return path


def loaded(folder: Path, text: str, *overrides: str, environ: Mapping[str, str] | None = None) -> Manifest:
    return load(written(folder, text), environ=environ or {}, overrides=overrides)


def option(value: object, environ: Mapping[str, str] | None = None, directory: Path | None = None) -> object:
    """Return what becomes of an option of a driver."""
    tables = from_mapping({"drivers": {"db": {"option": value}}}, environ=environ, directory=directory).tables
    return tables["drivers"]["db"]["option"]  # type: ignore[index]


def problems_of(folder: Path, text: str, *overrides: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        loaded(folder, text, *overrides, environ=environ)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def refusal(value: object, environ: Mapping[str, str] | None = None, directory: Path | None = None) -> str:
    with pytest.raises(ManifestError) as caught:
        option(value, environ, directory)
    [problem] = caught.value.problems
    assert problem.path in {"[drivers.db].option", "[drivers.db.option].env", "[drivers.db.option].file"}
    return problem.text


def secret_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


# --- substitution -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "one"),
        ("x${A}y${A}", "xoneyone"),
        ("${MISSING:-two}", "two"),
        ("${EMPTY:-two}", "two"),
        ("${EMPTY:-}", ""),
        ("${A:-two}", "one"),
        ("${MISSING:-a:-b $c {d}", "a:-b $c {d"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A {A} $", "$A {A} $"),
        ("${NESTED}", "${A}"),
    ],
)
def test_variables_are_replaced_in_strings(text: str, expected: str) -> None:
    assert option(text, {"A": "one", "EMPTY": "", "NESTED": "${A}"}) == expected


def test_variables_are_replaced_at_every_depth_but_not_in_keys() -> None:
    assert option([{"${A}": ["${A}", 1, True]}], {"A": "x"}) == [{"${A}": ["x", 1, True]}]


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${A", "${A-b}", "${A:-${B}}", "a ${ A }"])
def test_a_broken_substitution_is_a_problem_that_shows_how_to_write_it(text: str) -> None:
    assert refusal(text, {"A": "canary", "B": "canary"}) == (
        'has a broken substitution: write "${NAME}" or "${NAME:-default}", and "$${" for "${" itself'
    )


def test_missing_and_empty_variables_are_problems_that_name_them() -> None:
    assert refusal("${A}") == "needs the environment variable A, which is not set"
    assert refusal("${A}", {"A": ""}) == "needs the environment variable A, which is empty; write ${A:-} if it may be"


# --- secrets ----------------------------------------------------------------------------------------------------


def test_tables_with_only_env_or_file_become_secrets(tmp_path: Path) -> None:
    path = secret_file(tmp_path, b"from file\n")

    assert option({"env": "A"}, {"A": "from env"}) == Secret("from env")
    assert option({"file": str(path)}) == Secret("from file")
    assert option([{"deep": {"env": "A"}}], {"A": "x"}) == [{"deep": Secret("x")}]


def test_a_table_with_more_keys_is_no_secret() -> None:
    assert option({"env": "A", "x": 1}) == {"env": "A", "x": 1}


def test_only_tables_below_a_component_stand_for_secrets() -> None:
    tables = from_mapping({"kernel": {"a": {"b": {"env": "A"}}}, "drivers": {"env": {"env": "A"}}}).tables

    assert tables == {"kernel": {"a": {"b": {"env": "A"}}}, "drivers": {"env": {"env": "A"}}}


def test_one_trailing_newline_of_a_secret_file_is_stripped(tmp_path: Path) -> None:
    assert option({"file": str(secret_file(tmp_path, b" a \n\n"))}) == Secret(" a \n")
    assert option({"file": str(secret_file(tmp_path, b"a\r\n"))}) == Secret("a")


def test_a_relative_secret_file_is_in_the_credentials_directory_or_beside_the_manifest(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    secret_file(credentials, b"credential")
    secret_file(tmp_path, b"beside")

    assert option({"file": "secret"}, directory=tmp_path) == Secret("beside")
    assert option({"file": "secret"}, {"CREDENTIALS_DIRECTORY": str(credentials)}, tmp_path) == Secret("credential")
    assert option({"file": "${D}/secret"}, {"D": str(credentials)}) == Secret("credential")


@pytest.mark.parametrize("content", [b"", b"\xff"])
def test_a_secret_file_is_read_again_for_whoever_asks_and_stays_where_it_cannot_be(
    tmp_path: Path, content: bytes
) -> None:
    secret = option({"file": str(secret_file(tmp_path, b"one\n"))})
    assert isinstance(secret, Secret)
    secret_file(tmp_path, b"two\n")

    assert (secret.fresh(), secret.reveal()) == ("two", "one")
    secret_file(tmp_path, content)
    assert secret.fresh() == "one"
    (tmp_path / "secret").chmod(0o666)
    assert secret.fresh() == "one"
    (tmp_path / "secret").unlink()
    assert secret.fresh() == "one"


def secret_warnings(path: Path) -> list[str]:
    manifest = from_mapping({"drivers": {"db": {"option": {"file": str(path)}}}})
    assert manifest.tables["drivers"] == {"db": {"option": Secret("canary")}}
    return [str(warning) for warning in manifest.warnings]


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640, 0o550])
def test_a_secret_file_that_not_everybody_may_read_is_taken_without_a_word(tmp_path: Path, mode: int) -> None:
    assert not secret_warnings(secret_file(tmp_path, b"canary", mode))


@pytest.mark.parametrize("mode", [0o444, 0o644, 0o604, 0o755])
def test_a_secret_file_as_containers_have_them_is_taken_with_a_warning(tmp_path: Path, mode: int) -> None:
    path = secret_file(tmp_path, b"canary", mode)

    [warning] = secret_warnings(path)

    assert warning == (
        f'<mapping>: [drivers.db.option].file: the secret file "{path}" may be read by everybody on this machine; '
        "chmod o-r would change that"
    )


def test_nobody_is_warned_of_what_cannot_be_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume with secrets is mounted for reading only."""
    mounted = os.statvfs(tmp_path)
    flags = list(mounted)
    flags[8] |= os.ST_RDONLY
    monkeypatch.setattr("os.fstatvfs", lambda _: os.statvfs_result(flags))

    assert not secret_warnings(secret_file(tmp_path, b"canary", 0o444))


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o622, 0o664, 0o666, 0o777])
def test_a_secret_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = secret_file(tmp_path, b"canary", mode)

    text = "may be written by others than its owner; run: chmod go-w on it"
    assert refusal({"file": str(path)}) == f'the secret file "{path}" {text}'


def test_a_secret_file_of_64_kib_is_read_and_a_larger_one_refused(tmp_path: Path) -> None:
    assert option({"file": str(secret_file(tmp_path, b"x" * 65536))}) == Secret("x" * 65536)
    assert refusal({"file": str(secret_file(tmp_path, b"x" * 65537))}).endswith("is larger than 65536 bytes")


@pytest.mark.parametrize(
    ("content", "text"), [(b"", "is empty"), (b"\n", "is empty"), (b"canary \xff", "must be UTF-8")]
)
def test_a_secret_file_without_text_is_refused(tmp_path: Path, content: bytes, text: str) -> None:
    found = refusal({"file": str(secret_file(tmp_path, content))})

    assert found.endswith(text)
    assert "canary" not in found


def test_a_secret_file_that_is_none_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    assert refusal({"file": "gone"}, directory=tmp_path).endswith('gone" cannot be read: No such file or directory')
    assert refusal({"file": "a\0b"}).endswith("cannot be read: its name is invalid")
    assert refusal({"file": str(fifo)}).endswith("must be a regular file")
    assert refusal({"file": "."}, directory=tmp_path).endswith("cannot be read: Is a directory")


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"env": "A"}, "needs the environment variable A, which is not set"),
        ({"env": "EMPTY"}, "needs the environment variable EMPTY, which is empty; a secret may not be"),
        ({"env": 1}, "must be the name of the secret in a string, got 1"),
        ({"file": ""}, 'must be the name of the secret in a string, got ""'),
        ({"file": ["canary"]}, "must be the name of the secret in a string, got an array"),
    ],
)
def test_a_secret_that_cannot_be_had_is_a_problem(table: dict[str, object], text: str) -> None:
    assert refusal(table, {"EMPTY": ""}) == text


def test_no_value_from_outside_is_ever_shown(tmp_path: Path) -> None:
    text = '[drivers.db]\na = "${A} ${B}"\nb = { env = "A" }\nc = { env = "C" }\n[driver]\n'

    found = problems_of(tmp_path, text, environ={"A": "canary"})

    assert len(found) == 3
    assert found[1] == ("kernel.toml:4: [drivers.db.c].env: needs the environment variable C, which is not set")
    assert "canary" not in str(found)


# --- overrides --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("true", True),
        (' "1"', "1"),
        ("[1, 2]", [1, 2]),
        ("{ x = 1 }", {"x": 1}),
        ("plain text", "plain text"),
        ("", ""),
        ("a=b", "a=b"),
        ("1\nother = 2", "1\nother = 2"),
        ("[" * 100, "[" * 100),
        ("${A}", "one"),
    ],
)
def test_an_override_is_a_toml_value_or_else_a_string(tmp_path: Path, text: str, value: object) -> None:
    manifest = loaded(tmp_path, "[drivers.db]\n", f"drivers.db.option={text}", environ={"A": "one"})

    assert manifest.tables == {"drivers": {"db": {"option": value}}}


def test_overrides_replace_values_and_create_tables(tmp_path: Path) -> None:
    manifest = loaded(tmp_path, "[drivers.db]\na = 1\nb = 2\n", "drivers.db.a=3", "workers . 'w' .x.y=4")

    assert manifest.tables == {"drivers": {"db": {"a": 3, "b": 2}}, "workers": {"w": {"x": {"y": 4}}}}


def test_a_manifest_may_come_from_overrides_alone(tmp_path: Path) -> None:
    assert loaded(tmp_path, "", "drivers.db.a=3").tables == {"drivers": {"db": {"a": 3}}}


def test_bad_overrides_are_problems_that_do_not_show_the_value(tmp_path: Path) -> None:
    overrides = ["x", "a b=canary", "drivers.db.a.x=canary", "drivers.new={}", "drivers.new.y.z=1", "driver.x.y=1"]

    assert problems_of(tmp_path, "[drivers.db]\na = 1", *overrides) == [
        '--set: "a b" must be written as table.key=value',
        '--set: "x" must be written as table.key=value',
        f'--set: [driver]: unknown table; did you mean "drivers"? {ALLOWED}',
        "--set: [drivers.db].a.x: cannot be set: [drivers.db.a] is not a table",
    ]


# --- shape ------------------------------------------------------------------------------------------------------


def test_every_problem_is_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
name = "orders"
groups = 3
[driver.db]
[drivers]
queue = "sqlite"
Bad = {}
[workers.w]
use = "${NOPE}"
[kernel]
"""
    assert problems_of(tmp_path, text) == [
        f"kernel.toml:1: name: unknown key; {ALLOWED}",
        "kernel.toml:2: groups: must be a table, got 3",
        f'kernel.toml:3: [driver]: unknown table; did you mean "drivers"? {ALLOWED}',
        'kernel.toml:5: [drivers].queue: must be a table, as in [drivers.queue], got "sqlite"',
        'kernel.toml:6: [drivers.Bad]: a name must be at most 64 of a-z, 0-9 and _, and start with a letter; write "bad"',
        "kernel.toml:8: [workers.w].use: needs the environment variable NOPE, which is not set",
    ]


def test_an_empty_manifest_is_a_problem(tmp_path: Path) -> None:
    assert problems_of(tmp_path, "# nothing\n") == [f"kernel.toml: is empty; {ALLOWED}"]


@pytest.mark.parametrize("name", ["a", "a1_b", "a" * 64])
def test_component_names_are_lower_snake_case(name: str) -> None:
    assert from_mapping({"drivers": {name: {}}}).tables == {"drivers": {name: {}}}


@pytest.mark.parametrize("name", ["", "A", "1a", "_a", "a-b", "a.b", "ä", "a\n", "a" * 65])
def test_other_component_names_are_problems(name: str) -> None:
    with pytest.raises(ManifestError, match="a name must be at most 64 of a-z, 0-9 and _, and start with a letter"):
        from_mapping({"drivers": {name: {}}})


def test_a_mapping_that_toml_could_not_say_is_refused() -> None:
    endless: dict[str, object] = {}
    endless["a"] = [endless]

    with pytest.raises(ManifestError, match=r"^<mapping>: \[drivers\]: is nested more than 32 deep$"):
        from_mapping({"drivers": endless})
    with pytest.raises(ManifestError, match=r"^x: \[drivers\.a\]: keys must be strings, got 1$"):
        from_mapping({"drivers": {"a": {1: 2}}}, name="x")


def test_a_mapping_is_copied_and_secrets_in_it_stay() -> None:
    source = {"drivers": {"db": {"a": ("x", Secret("s")), "b": {"c": 1}}}}

    manifest = from_mapping(source)

    assert manifest.tables == {"drivers": {"db": {"a": ["x", Secret("s")], "b": {"c": 1}}}}
    assert (manifest.path, manifest.directory, manifest.line(("drivers", "db"))) == ("<mapping>", Path(), 0)
    assert manifest.origin(("drivers", "db")) == "<mapping>"


# --- where ------------------------------------------------------------------------------------------------------

TEXT = """\
[kernel]
name = "x"
[drivers.queue]
path = "${DB:-a.db}"
url = "${HOST}:${PORT}:${HOST}"
password = { env = "PASSWORD" }
hosts = [
  "a",
  { name = "${HOST}" },
]
"quoted key" = 1
[workers.w]
config = { warehouse = "berlin" }
[workers.w.retry]
attempts = 5
"""
ENVIRON = {"HOST": "h", "PORT": "1", "PASSWORD": "canary"}


@pytest.mark.parametrize(
    ("at", "origin", "problem"),
    [
        (("kernel", "name"), "kernel.toml:2", "kernel.toml:2: [kernel].name: wrong"),
        (("drivers", "queue"), "kernel.toml:3", "kernel.toml:3: [drivers.queue]: wrong"),
        (("drivers", "queue", "path"), "kernel.toml:4 (default of $DB)", "kernel.toml:4: [drivers.queue].path: wrong"),
        (("drivers", "queue", "url"), "kernel.toml:5 ($HOST, $PORT)", "kernel.toml:5: [drivers.queue].url: wrong"),
        (
            ("drivers", "queue", "password"),
            "kernel.toml:6 ($PASSWORD)",
            "kernel.toml:6: [drivers.queue].password: wrong",
        ),
        (("drivers", "queue", "hosts", "0"), "kernel.toml:8", "kernel.toml:8: [drivers.queue].hosts[0]: wrong"),
        (
            ("drivers", "queue", "hosts", "1", "name"),
            "kernel.toml:9 ($HOST)",
            "kernel.toml:9: [drivers.queue].hosts[1].name: wrong",
        ),
        (("drivers", "queue", "hosts", "2"), "default", "kernel.toml:7: [drivers.queue].hosts[2]: wrong"),
        (
            ("drivers", "queue", "quoted key"),
            "kernel.toml:11",
            'kernel.toml:11: [drivers.queue]."quoted key": wrong',
        ),
        (("drivers", "queue", "missing"), "default", "kernel.toml:3: [drivers.queue].missing: wrong"),
        (("workers", "w", "config"), "kernel.toml:13", "kernel.toml:13: [workers.w.config]: wrong"),
        (("workers", "w", "retry", "attempts"), "kernel.toml:15", "kernel.toml:15: [workers.w.retry].attempts: wrong"),
        (("workers", "w", "restart", "window"), "default", "kernel.toml:12: [workers.w].restart.window: wrong"),
        (("workers", "w", "x"), "--set", "--set: [workers.w].x: wrong"),
        (("workers", "new", "y"), "--set ($HOST)", "--set: [workers.new].y: wrong"),
        (("workers", "new"), "--set", "--set: [workers.new]: wrong"),
        (("nope",), "default", "kernel.toml: nope: wrong"),
        ((), "kernel.toml", "kernel.toml: wrong"),
    ],
)
def test_a_path_knows_where_it_was_written(tmp_path: Path, at: tuple[str, ...], origin: str, problem: str) -> None:
    manifest = loaded(tmp_path, TEXT, "workers.w.x=1", "workers.new.y=${HOST}", environ=ENVIRON)

    assert manifest.origin(at).replace(f"{tmp_path}/", "") == origin
    assert str(manifest.problem(at, "wrong")).replace(f"{tmp_path}/", "") == problem


def test_the_origin_of_a_secret_file_is_its_name(tmp_path: Path) -> None:
    secret_file(tmp_path, b"canary")

    manifest = loaded(tmp_path, '[drivers.db]\npassword = { file = "secret" }')

    assert manifest.origin(("drivers", "db", "password")) == f"{tmp_path}/kernel.toml:2 (secret)"


def test_the_path_is_shown_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "[kernel]")
    monkeypatch.chdir(tmp_path)

    manifest = load("./kernel.toml", environ={})

    assert (manifest.path, manifest.directory) == ("./kernel.toml", Path())


@given(st.lists(st.text(max_size=20), min_size=1, max_size=3))
def test_any_overrides_raise_nothing_but_manifest_error(overrides: list[str]) -> None:
    # Nothing that hypothesis finds is a known table, so that there always is a problem.
    with pytest.raises(ManifestError):
        load(os.devnull, environ={}, overrides=overrides)
