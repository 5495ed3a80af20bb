"""Facts about the documents: links lead somewhere, and the reference says what the code does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import attrs
import pytest

from kernel._core import events as _events
from kernel._core import spans as _spans
from kernel._core.lifecycle import TRANSITIONS
from kernel._core.policies import LogFilePolicy, LogPolicy, RestartPolicy
from kernel._manifest.tables import (
    DispatcherTable,
    GroupTable,
    KernelTable,
    ProtocolTable,
    RetryTable,
    SenderTable,
    StageTable,
    WorkerTable,
)
from kernel.testing import _LATER

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "plugins/*/README.md", "examples/*/README.md")
    for path in ROOT.glob(pattern)
)
MANIFEST = (ROOT / "docs/reference/manifest.md").read_text(encoding="utf-8")
EVENTS = (ROOT / "docs/reference/events.md").read_text(encoding="utf-8")
TABLES = [
    ("## `[kernel]`", KernelTable),
    ("## `[logging]`", LogPolicy),
    ("### `[logging.file]`", LogFilePolicy),
    ("## `[drivers.NAME]`", SenderTable),
    ("## `[protocols.NAME]`", ProtocolTable),
    ("## `[dispatchers.NAME]`", DispatcherTable),
    ("## `[workers.NAME]`", WorkerTable),
    ("### `[workers.NAME.retry]`", RetryTable),
    ("## `restart`", RestartPolicy),
    ("## `[groups.NAME]`", GroupTable),
    ("## `[stages.NAME]`", StageTable),
]
EVERY_EVENT = [
    value
    for value in (*vars(_events).values(), *vars(_spans).values())
    if isinstance(value, type) and issubclass(value, _events.Event) and value not in {_events.Event, _events.Passage}
]
SHARED = {"## `[drivers.NAME]`", "## `[dispatchers.NAME]`", "## `[workers.NAME]`"}

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
every_table = pytest.mark.parametrize(("heading", "table"), TABLES, ids=[heading for heading, _ in TABLES])


def section(text: str, heading: str) -> str:
    """The part of a document from a heading to the next one of any level."""
    after = text.split(f"\n{heading}\n", 1)[1]
    return re.split(r"\n#+ ", after)[0]


def rows(text: str) -> dict[str, str]:
    """The rows of the tables in a text by what stands in backquotes in their first column."""
    return dict(re.findall(r"^\| `(\w+)`[^|]*\|(.*)$", text, flags=re.MULTILINE))


def documented(heading: str) -> dict[str, str]:
    found = rows(section(MANIFEST, heading))
    if heading in SHARED:
        found |= rows(section(MANIFEST, "## Keys of drivers, dispatchers and workers"))
    if heading == "## `[dispatchers.NAME]`":
        found |= rows(section(MANIFEST, "## `[drivers.NAME]`"))
        del found["contract"]
    return found


def default_as_toml(field: attrs.Attribute[object]) -> str:
    match field.default:
        case bool():
            return f"`{str(field.default).lower()}`"
        case int() | float():
            return f"`{field.default}`"
        case _:
            return ""


@every_document
def test_links_lead_to_files(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8"))

    assert [target for target in targets if not (document.parent / target).exists()] == []


@every_document
def test_toml_in_documents_is_toml(document: Path) -> None:
    for block in re.findall(r"^```toml\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        tomllib.loads(block)


@every_document
def test_documents_have_one_title_first(document: Path) -> None:
    assert document.read_text(encoding="utf-8").startswith("# ")


@every_table
def test_the_manifest_reference_has_exactly_the_keys_of_the_code(heading: str, table: type) -> None:
    assert sorted(documented(heading)) == sorted(field.name for field in attrs.fields(table))


@every_table
def test_the_manifest_reference_has_the_defaults_of_the_code(heading: str, table: type) -> None:
    found = documented(heading)
    wrong = [
        field.name
        for field in attrs.fields(table)
        if f"| {default_as_toml(field)}".strip() not in f"|{found[field.name]}"
    ]

    assert wrong == []


@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: event.__name__)
def test_the_event_reference_has_every_event_with_its_fields(event: type[_events.Event]) -> None:
    row = rows(EVENTS)[event.__name__]
    own = [field.name for field in attrs.fields(event) if field.name != "component"]

    assert [name for name in own if f"`{name}`" not in row] == []


def test_the_event_reference_has_the_allowed_moves() -> None:
    moves = rows(section(EVENTS, "## States"))
    of_code = {old.value: sorted(new.value for new in allowed) for old, allowed in TRANSITIONS.items() if allowed}

    assert {old: sorted(re.findall(r"`(\w+)`", row)) for old, row in moves.items() if old in of_code} == of_code


def test_the_unit_gives_the_service_its_grace_period() -> None:
    unit = (ROOT / "docs/howto/kernel.service").read_text(encoding="utf-8")
    found = re.search(r"^TimeoutStopSec=(\d+)$", unit, flags=re.MULTILINE)

    assert found
    assert float(found[1]) > KernelTable().grace_period


def write_files_of(document: str, folder: Path) -> None:
    """Write the files that a document shows: each block of code after a line that ends in "`name`:"; the last wins."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks
    for name, content in blocks:
        (folder / name).write_text(content, encoding="utf-8")


def run_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "S3_SECRET_KEY": "yellow-feathers"}  # what the README of s3 asks the environment for
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environ,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def run_tests_in(folder: Path) -> subprocess.CompletedProcess[str]:
    config = ("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "-p", "no:randomly")
    return run_in(folder, "pytest", *config, str(folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    "document",
    ["README.md", "docs/tutorial.md", "docs/howto/calls.md", "docs/howto/contracts.md", "plugins/http/README.md"],
)
def test_the_manifest_of_a_document_is_clean_and_its_tests_pass(document: str, tmp_path: Path) -> None:
    write_files_of(document, tmp_path)

    checked = run_in(tmp_path, "kernel", "check")
    tested = run_tests_in(tmp_path)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "document",
    [
        *(
            f"plugins/{name}/README.md"
            for name in [
                "asyncio",
                "bpm",
                "external",
                "mongo",
                "nameko",
                "pools",
                "postgres",
                "raw",
                "redis",
                "s3",
                "ufw",
                "websocket",
                "zmq",
            ]
        ),
        "docs/howto/migrate.md",
    ],
)
def test_the_manifest_of_a_foreign_format_is_clean(document: str, tmp_path: Path) -> None:
    write_files_of(document, tmp_path)

    checked = run_in(tmp_path, "kernel", "check")

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_a_manifest_for_rabbitmq_4_leaves_nothing_to_advise(tmp_path: Path) -> None:
    write_files_of("docs/howto/rabbitmq-4.md", tmp_path)

    checked = run_in(tmp_path, "kernel", "check")

    assert (checked.returncode, "warning" in checked.stderr) == (0, False), checked.stdout + checked.stderr


def test_the_how_to_names_every_command_for_rabbitmq() -> None:
    from kernel_amqp.tools.commands import rabbitmq  # noqa: PLC0415  start-up of the other tests does not need it

    text = (ROOT / "docs/howto/rabbitmq-4.md").read_text(encoding="utf-8")

    assert [name for name in rabbitmq.commands if f"| `kernel rabbitmq {name}" not in text] == []


def test_the_cli_reference_has_every_command_and_option() -> None:
    from kernel._cli.commands import BUILT_IN  # noqa: PLC0415  start-up of the other tests does not need it

    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    wanted = {f"`kernel {command.name}" for command in BUILT_IN.values()} | {
        f"`{option}"
        for command in BUILT_IN.values()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--") and option != "--kind"
    }

    assert sorted(one for one in wanted if one not in text) == []


def test_the_reference_of_the_testing_kit_names_all_of_it_and_no_more() -> None:
    text = (ROOT / "docs/reference/testing.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(\w+)", text, re.MULTILINE))

    assert named == {*_LATER, "faults"}
