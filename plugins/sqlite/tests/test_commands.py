from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result
from kernel_sqlite._commands import queue
from kernel_sqlite._file import create_or_open, open_existing
from kernel_sqlite._letter import Letter
from kernel_sqlite._store import Store

from kernel import DeadLetter
from kernel.abc import Binding, Exchange, Queue, Topology
from kernel.errors import ConflictError, QueueFullError


@pytest.fixture
def filled(path: Path) -> Path:
    """A file with three messages in `q`, and two that died there in `q.dead`."""
    connection = create_or_open(path, synchronous="normal").connection
    store = Store(connection)
    store.begin()
    store.declare(Topology(queues=[Queue(name="q.dead"), Queue(name="q", dead_letters="q.dead", max_length=4)]))
    for name in ("bad1", "bad2"):
        store.send(letter(name), exchange="", mandatory=True)
    for claim in store.claim("q", 2):
        store.settle(claim, DeadLetter("no use"))
    for name in "abc":
        store.send(letter(name), exchange="", mandatory=True)
    store.close()
    store.commit()
    connection.close()
    return path


def letter(name: str) -> Letter:
    return Letter(name, "q", b"\xff" + name.encode(), '{"key": 1}', "", "", "", 9, 0.0, None)


def run(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(queue, list(arguments), input=text)


def ids(path: Path, name: str) -> list[str]:
    done = run("peek", name, "--file", str(path), "--limit", "100", "--json")
    return [json.loads(line)["id"] for line in done.output.splitlines()]


def test_list_shows_every_queue(filled: Path) -> None:
    done = run("list", "--file", str(filled))

    assert done.output.splitlines() == [
        "queue   ready  delayed  behind  claimed  consumed  dead_letters",
        "q.dead      2        0       0        0         -",
        "q           3        0       0        0         -  q.dead",
    ]


def test_list_as_json_tells_how_they_were_declared(filled: Path) -> None:
    rows = {row["queue"]: row for row in json.loads(run("list", "--json", "--file", str(filled)).output)}

    assert (rows["q"]["ready"], rows["q"]["max_length"], rows["q"]["dead_letters"]) == (3, 4, "q.dead")


def test_peek_shows_why_a_message_died_and_takes_nothing(filled: Path) -> None:
    done = run("peek", "q.dead", "--limit", "1", "--file", str(filled))

    assert "kernel-death-reason: no use\n" in done.output
    assert "bad1" in done.output
    assert "bad2" not in done.output
    assert ids(filled, "q.dead") == ["bad1", "bad2"]


def test_retry_sends_dead_letters_back_to_where_they_died(filled: Path) -> None:
    done = run("retry", "q.dead", "--limit", "1", "--file", str(filled))

    assert (done.exit_code, done.output) == (0, "1 of 2 messages moved\n")
    assert (ids(filled, "q"), ids(filled, "q.dead")) == (["a", "b", "c", "bad1"], ["bad2"])


def test_retry_moves_nothing_if_there_is_no_room(filled: Path) -> None:
    done = run("retry", "q.dead", "--file", str(filled))

    assert done.exit_code == 1
    assert "is full" in done.output
    assert (ids(filled, "q"), ids(filled, "q.dead")) == (["a", "b", "c"], ["bad1", "bad2"])


def test_retry_asks_where_to_if_a_message_does_not_say(filled: Path) -> None:
    assert "say where it is to go" in run("retry", "q", "--file", str(filled)).output
    assert run("retry", "q", "--to", "q.dead", "--file", str(filled)).exit_code == 0
    assert ids(filled, "q.dead") == ["bad1", "bad2", "a", "b", "c"]


def test_purge_asks_first(filled: Path) -> None:
    assert run("purge", "q", "--file", str(filled), text="n\n").exit_code == 1
    assert ids(filled, "q") == ["a", "b", "c"]

    assert run("purge", "q", "--yes", "--file", str(filled)).output == "3 messages removed\n"
    assert ids(filled, "q") == []


def test_an_empty_queue_is_exported_as_an_empty_file(filled: Path, tmp_path: Path) -> None:
    old, nowhere = tmp_path / "old.jsonl", tmp_path / "gone" / "new.jsonl"
    run("export", "q", "--output", str(old), "--file", str(filled))
    run("purge", "q", "--yes", "--file", str(filled))

    done = run("export", "q", "--output", str(old), "--file", str(filled))
    failed = run("export", "q", "--output", str(nowhere), "--file", str(filled))

    assert (done.exit_code, old.read_text(encoding="utf-8")) == (0, "")
    assert failed.exit_code != 0
    assert "No such file" in failed.output


def test_what_is_exported_can_be_imported(filled: Path) -> None:
    file = filled.with_name("messages.jsonl")
    run("export", "q", "--output", str(file), "--file", str(filled))
    exported = file.read_text(encoding="utf-8")
    run("purge", "q", "--yes", "--file", str(filled))
    done = run("import", "q", str(file), "--file", str(filled))
    run("export", "q", "--output", str(file), "--file", str(filled))

    assert (done.exit_code, len(exported.splitlines())) == (0, 3)
    assert file.read_text(encoding="utf-8") == exported


SOUND: Any = {
    "id": "x",
    "subject": "q",
    "body": "",
    "headers": {},
    "content_type": "",
    "reply_to": "",
    "correlation_id": "",
    "priority": 0,
    "deadline": None,
    "attempts": 0,
}
UNSOUND: list[dict[str, Any]] = [
    {"headers": ["no", "object"]}, {"headers": "text"}, {"headers": {"a": float("nan")}}, {"headers": None}, {"id": 7},
    {"id": None}, {"subject": ["q"]}, {"body": 5}, {"body": "no base64!"}, {"content_type": {}}, {"reply_to": None},
    {"correlation_id": 1}, {"priority": "high"}, {"priority": 1.5}, {"priority": True}, {"deadline": "soon"},
    {"deadline": float("inf")}, {"deadline": float("nan")}, {"id": "\ud800"},
]  # fmt: skip


@pytest.mark.parametrize(
    "line", ["{}", "nonsense", "[]", "5", "null", '"text"', '{"id": 1}', *(json.dumps(SOUND | odd) for odd in UNSOUND)]
)
def test_an_import_is_whole_or_not_at_all(filled: Path, line: str) -> None:
    good = run("export", "q.dead", "--file", str(filled)).stdout.splitlines()[0]
    done = run("import", "q", "-", "--file", str(filled), text=f"{good}\n{line}\n")

    assert done.exit_code == 1
    assert "line 2" in done.output
    assert ids(filled, "q") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": nonsense}', "column 8: no JSON: Expecting value"),
        ("[" * 100_000, "no JSON: it is nested too deeply"),
        ('{"id": "a"}', "not a message as `kernel queue export` writes it: `headers` is missing"),
        ("[]", "not a message as `kernel queue export` writes it: it is no object"),
        (json.dumps(SOUND | {"id": 7}), "not a message as `kernel queue export` writes it: `id` is no str"),
    ],
    ids=["no JSON", "too deep", "no headers", "no object", "no id"],
)
def test_an_import_says_which_line_is_wrong_and_what(filled: Path, line: str, told: str) -> None:
    separated = json.dumps(SOUND | {"subject": "one\u2028line"}, ensure_ascii=False)
    done = run("import", "q", "-", "--file", str(filled), text=f"{separated}\n\n{line}\n")

    assert done.output.splitlines()[-1] == f"Error: line 3: {told}; nothing was imported"


def test_a_line_for_which_there_is_no_queue_is_named(filled: Path) -> None:
    done = run("import", "nowhere", "-", "--file", str(filled), text=json.dumps(SOUND))

    assert done.output.splitlines()[-1].startswith("Error: line 1: ")


def test_what_a_terminal_would_obey_is_escaped(filled: Path) -> None:
    odd = SOUND | {
        "id": "\x1b]0;owned\x07\x1b[2J",
        "subject": "q\nforged",
        "headers": {"a\x1b[2J": "\x1b", "\u202e": 1},
    }
    run("purge", "q", "--yes", "--file", str(filled))
    run("import", "q", "-", "--file", str(filled), text=json.dumps(odd))
    shown = run("peek", "q", "--file", str(filled)).output

    assert all(char.isprintable() for char in shown.replace("\n", ""))
    assert len(shown.splitlines()) == 4


def test_a_queue_or_file_that_does_not_exist_is_one_line(filled: Path) -> None:
    assert run("peek", "nope", "--file", str(filled)).output == 'Error: there is no queue "nope"\n'
    missing = run("list", "--file", str(filled.with_name("missing.db")))

    assert (missing.exit_code, missing.output.count("\n")) == (1, 1)
    assert "there is no file" in missing.output


def test_the_manifest_names_the_file(filled: Path) -> None:
    manifest = filled.with_name("kernel.toml")
    driver = f'plugin = "sqlite"\npath = "{filled}"\n'
    manifest.write_text(f'[kernel]\nname = "x"\n[drivers.queue]\n{driver}', encoding="utf-8")
    assert "q.dead" in run("list", "--manifest", str(manifest)).output

    manifest.write_text(f'[kernel]\nname = "x"\n[drivers.a]\n{driver}[drivers.b]\n{driver}', encoding="utf-8")
    assert "--driver" in run("list", "--manifest", str(manifest)).output
    assert "q.dead" in run("list", "--manifest", str(manifest), "--driver", "b").output


# --- what can be changed ----------------------------------------------------------------------------------------------


def opened(path: Path) -> Store:
    return Store(open_existing(path, synchronous="normal").connection)


def send(store: Store, subject: str, exchange: str = "") -> None:
    store.begin()
    try:
        store.send(letter("m")._replace(subject=subject), exchange=exchange, mandatory=True)
        store.commit()
    finally:
        store.rollback()


@pytest.fixture
def renamed(path: Path) -> Path:
    """A file whose queue was renamed in the manifest: the old one is bound still, full, and read by nobody."""
    store = Store(create_or_open(path, synchronous="normal").connection)
    store.begin()
    queues = [Queue(name="old", max_length=1), Queue(name="new")]
    bound = [Binding(queue=queue.name, exchange="events", pattern="order.*") for queue in queues]
    store.declare(Topology(exchanges=[Exchange(name="events")], queues=queues, bindings=bound))
    store.commit()
    send(store, "order.created", "events")
    with pytest.raises(QueueFullError, match="old"):
        send(store, "order.created", "events")
    return path


@pytest.mark.parametrize(
    "command",
    [
        ["delete", "old", "--yes"],
        ["unbind", "old", "events", "order.*"],
        ["alter", "old", "--max-length", "10"],
        ["alter", "old", "--max-length", "0"],
        ["alter", "old", "--overflow", "drop_oldest"],
    ],
    ids=" ".join,
)
def test_senders_go_on_when_a_queue_that_nobody_reads_is_out_of_the_way(renamed: Path, command: list[str]) -> None:
    """Also those that were there before, in another process."""
    sender = opened(renamed)
    with pytest.raises(QueueFullError):
        send(sender, "order.created", "events")
    done = run(*command, "--file", str(renamed))
    send(sender, "order.created", "events")

    assert done.exit_code == 0
    assert len(ids(renamed, "new")) == 2


def test_a_queue_is_declared_as_it_was_altered(renamed: Path) -> None:
    run("alter", "old", "--ttl", "60", "--dead-letters", "new", "--deduplication-window", "5", "--file", str(renamed))
    store = opened(renamed)
    wanted = Queue(name="old", max_length=1, ttl=60.0, dead_letters="new", deduplication_window=5.0)
    store.begin()
    store.declare(Topology(queues=[wanted]))
    with pytest.raises(ConflictError, match="`kernel queue alter` changes it"):
        store.declare(Topology(queues=[attrs.evolve(wanted, ttl=5.0)]))


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["delete", "q", "--if-empty"], 'queue "q" is not empty: 3 messages wait in it'),
        (["delete", "q.dead", "--yes"], 'queue "q" puts its dead letters into queue "q.dead"'),
        (["delete", "nope", "--yes"], 'there is no queue "nope"'),
        (["unbind", "q", "events", "order.*"], "is not bound to exchange"),
        (["alter", "q", "--dead-letters", "nope"], 'there is no queue "nope"'),
        (["alter", "q", "--dead-letters", "q"], "cannot take its own dead letters"),
        (["alter", "q"], "say what is to change"),
        (["backup", "queues.db"], "cannot be made: File exists"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_would_do_harm_is_refused(
    filled: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], text: str
) -> None:
    monkeypatch.chdir(filled.parent)
    done = run(*command, "--file", str(filled))

    assert done.exit_code != 0
    assert text in done.output
    assert ids(filled, "q") == ["a", "b", "c"]


def test_a_queue_with_messages_under_way_is_not_deleted(filled: Path) -> None:
    store = opened(filled)
    store.begin()
    store.claim("q", 1)
    store.commit()

    assert "1 of its messages are under way" in run("delete", "q", "--yes", "--file", str(filled)).output


def test_deleting_asks_first(filled: Path) -> None:
    assert run("delete", "q", "--file", str(filled), text="n\n").exit_code == 1
    assert ids(filled, "q") == ["a", "b", "c"]


def test_bindings_are_listed(renamed: Path) -> None:
    listed = json.loads(run("list", "--json", "--file", str(renamed)).output)

    assert [(row["queue"], row["bindings"]) for row in listed] == [
        ("old", [["events", "order.*"]]),
        ("new", [["events", "order.*"]]),
    ]
    assert run("unbind", "old", "--file", str(renamed)).output == "events  order.*\n"


def test_a_backup_has_what_is_only_in_the_log(filled: Path) -> None:
    store = opened(filled)
    send(store, "q.dead")
    copy = filled.with_name("copy.db")
    done = run("backup", str(copy), "--file", str(filled))

    assert (done.exit_code, copy.stat().st_mode & 0o777) == (0, 0o600)
    assert (ids(copy, "q"), ids(copy, "q.dead")) == (ids(filled, "q"), ids(filled, "q.dead"))


def test_peek_shows_nothing_that_is_called_like_a_secret(path: Path) -> None:
    """As `kernel tap` does; `--json` and `export` give all, to be sent again."""
    connection = create_or_open(path, synchronous="normal").connection
    store = Store(connection)
    store.begin()
    store.declare(Topology(queues=[Queue(name="q")]))
    secret = letter("s")._replace(
        body=b'{"password": "canary", "of": [{"api_key": "canary"}], "at": "amqp://u:canary@host"}',
        headers='{"authorization": "Bearer canary", "plain": "amqp://u:canary@host/x", "count": 3}',
    )
    store.send(secret, exchange="", mandatory=True)
    store.commit()
    connection.close()
    shown = run("peek", "q", "--file", str(path)).output

    assert "canary" not in shown
    assert "    authorization: ***\n    plain: amqp://***@host/x\n    count: 3\n" in shown


def test_the_manifest_can_be_changed_as_with_the_commands_of_the_kernel(filled: Path, tmp_path: Path) -> None:
    manifest, overlay = tmp_path / "kernel.toml", tmp_path / "production.toml"
    manifest.write_text('[drivers.queue]\nplugin = "sqlite"\npath = "elsewhere.db"\n', encoding="utf-8")
    overlay.write_text(f'[drivers.queue]\npath = "{filled}"\n', encoding="utf-8")

    laid_over = run("list", "--manifest", str(manifest), "--overlay", str(overlay))
    replaced = run("list", "--manifest", str(manifest), "--set", f"drivers.queue.path={filled}")

    assert "q.dead" in laid_over.output
    assert laid_over.output == replaced.output


def test_a_vacuum_gives_space_back(filled: Path) -> None:
    store = opened(filled)
    store.begin()
    for _ in range(4):
        store.send(letter("big")._replace(subject="q.dead", body=bytes(500_000)), exchange="", mandatory=True)
    store.commit()
    store.shelves.connection.close()
    run("purge", "q.dead", "--yes", "--file", str(filled))
    before = filled.stat().st_size
    run("vacuum", "--file", str(filled))

    assert before > 2_000_000
    assert filled.stat().st_size < 500_000
    assert ids(filled, "q") == ["a", "b", "c"]
