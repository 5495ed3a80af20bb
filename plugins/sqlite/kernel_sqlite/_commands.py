"""The commands `kernel queue ...`: for the file of a broker, whether a service runs on it or not."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, nullcontext
from functools import partial, wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from attrs import evolve

from kernel import Plan, manifest_options
from kernel.abc import shown_body, shown_headers
from kernel.errors import InvalidError, KernelError

from . import _changes as changes
from . import _inspection as inspection
from ._config import SqliteConfig
from ._driver import SqliteDriver
from ._failure import as_storage_error
from ._file import open_existing
from ._reset_guard import ResetGuard
from ._store import Store

ResultT = TypeVar("ResultT")

_STEP: Final = 500
"""Messages in one transaction: the service writes in between."""
_LONG: Final = 2000
"""Messages from which on a bar shows how far it is."""
_PATIENCE: Final = 10_000
"""Milliseconds to wait for others who write."""


@click.group()
def queue() -> None:
    """Look into the queues of a `sqlite` broker, and tidy them up.

    They work on a file (--file), or on the `sqlite` driver of a manifest, while a service uses it or not.
    """


def _on_file(command: Callable[..., object]) -> Callable[..., object]:
    """Add the options that say which file, and pass the open store as first argument."""

    @click.option("--file", help="The file of the broker.")
    @manifest_options
    @click.option("--driver", help="Which driver of the manifest, if there are several.")
    @wraps(command)
    def run(
        *,
        file: str | None,
        read_plan: Callable[[], Plan],
        driver: str | None,
        **others: Any,  # noqa: ANN401
    ) -> object:
        config = SqliteConfig(path=file) if file else _configured(read_plan(), driver)
        try:
            with _opened(config) as store:
                return command(store, **others)
        except InvalidError:
            raise
        except KernelError as error:
            raise click.ClickException(str(error)) from error
        except sqlite3.Error as error:
            raise click.ClickException(str(as_storage_error(error, Path(config.path)))) from error

    return run


def _configured(plan: Plan, driver: str | None) -> SqliteConfig:
    there = {spec.name: spec.config for spec in plan.components.values() if getattr(spec, "cls", None) is SqliteDriver}
    found = {name: config for name, config in there.items() if driver in (None, name)}
    if len(found) != 1:
        names = ", ".join(sorted(there)) or "none"
        wrong = (
            "has several `sqlite` drivers, name one with --driver" if found else f'has no `sqlite` driver "{driver}"'
        )
        raise click.UsageError(f"{plan.path} {wrong if there else 'has no `sqlite` driver'}; it has: {names}")
    config = next(iter(found.values()))
    assert isinstance(config, SqliteConfig)
    return evolve(config, path=str(plan.directory / config.path))


@contextmanager
def _opened(config: SqliteConfig) -> Generator[Store]:
    path = Path(config.path)
    connection = open_existing(path, synchronous=config.synchronous).connection
    connection.execute(f"PRAGMA busy_timeout = {_PATIENCE}")
    reset_guard = ResetGuard(path)
    try:
        yield Store(connection, lease=config.lease, max_length=config.max_length, reset_guard=reset_guard)
    finally:
        with reset_guard.held():
            connection.close()
        reset_guard.close()


def _transact(store: Store, action: Callable[[], ResultT]) -> ResultT:
    if store.reset_guard is not None:
        store.reset_guard.take(_PATIENCE / 1000)
    store.begin()
    try:
        result = action()
        store.commit()
    finally:
        store.rollback()
    return result


def _in_steps(store: Store, step: Callable[[int], int], total: int, what: str) -> int:
    """Do something for `total` messages, some at a time; returns for how many it was done."""
    done = 0
    with _progress(total, what) as advance:
        while done < total:
            count = _transact(store, partial(step, min(_STEP, total - done)))
            if not count:
                break
            done += count
            advance(count)
    return done


@contextmanager
def _progress(total: int, what: str) -> Generator[Callable[[int], None]]:
    """Show how far it is, if it takes long and somebody looks at a terminal."""
    if total < _LONG or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415  slow, and seldom needed
    from rich.progress import Progress  # noqa: PLC0415  as above

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


# --- list, peek ---------------------------------------------------------------------------------------------------


@queue.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@_on_file
def list_queues(store: Store, *, as_json: bool) -> None:
    """List the queues and how many messages are in them."""
    rows = _transact(store, lambda: inspection.overview(store))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    columns = ["queue", "ready", "delayed", "behind", "claimed", "consumed", "dead_letters"]
    now = store.clock()
    for row in rows:
        row["consumed"] = _ago(row["consumed"], now)
    for line in _aligned([columns, *([_safe(str(row[column])) for column in columns] for row in rows)]):
        click.echo(line)


def _ago(at: object, now: float) -> str:
    """Return how long ago a queue was last seen to be consumed; services note that each quarter of an hour."""
    if not isinstance(at, float):
        return "-"
    minutes = max(0.0, now - at) / 60
    return f"{minutes:.0f} min ago" if minutes < 60 else f"{minutes / 60:.1f} h ago"


def _aligned(rows: list[list[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        numbers = [text.rjust(width) for text, width in zip(others[:-1], widths[1:-1], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *numbers, others[-1]]).rstrip()


@queue.command()
@click.argument("name")
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="How many messages.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON, one a line, whole, the body in base64.")
@_on_file
def peek(store: Store, *, name: str, limit: int, as_json: bool) -> None:
    """Show the first messages of queue NAME, without what is called like a secret; nothing is taken."""
    for claim in _transact(store, lambda: store.peek(name, limit)):
        record = inspection.as_record(claim)
        if as_json:
            click.echo(json.dumps(record))
            continue
        headers = shown_headers(inspection.headers_of(claim.letter))
        click.echo(f"{_safe(claim.letter.id)}  {_safe(claim.letter.subject)}  attempts {claim.attempt - 1}")
        for key, value in headers.items():
            click.echo(f"    {_safe(key)}: {_safe(value)}")
        click.echo(f"    {_safe(shown_body(claim.letter.body)[:200])}")


def _safe(text: str) -> str:
    """Return a text of somebody's with what a terminal would obey escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


# --- retry, purge -------------------------------------------------------------------------------------------------


@queue.command()
@click.argument("name")
@click.option("--to", default="", help="Where they go; else each to the queue in which it died.")
@click.option("--limit", type=click.IntRange(1), help="How many at most; all if not given.")
@_on_file
def retry(store: Store, *, name: str, to: str, limit: int | None) -> None:
    """Give the dead letters in queue NAME another chance, their attempts counted anew."""
    total = _transact(store, lambda: inspection.count(store, name))
    done = _in_steps(
        store, lambda step: inspection.retry(store, name, step, to=to), min(total, limit or total), "retrying"
    )
    click.echo(f"{done} of {total} messages moved")


@queue.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_on_file
def purge(store: Store, *, name: str, yes: bool) -> None:
    """Remove all messages that wait in queue NAME; those under way are left alone."""
    total = _transact(store, lambda: inspection.count(store, name))
    if not yes:
        click.confirm(f'Remove {total} messages from queue "{name}" for good?', abort=True)
    done = _in_steps(store, lambda step: inspection.purge(store, name, step), total, "purging")
    click.echo(f"{done} messages removed")


# --- delete, unbind, alter ----------------------------------------------------------------------------------------


@queue.command()
@click.argument("name")
@click.option("--if-empty", is_flag=True, help="Only if nothing waits in it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_on_file
def delete(store: Store, *, name: str, if_empty: bool, yes: bool) -> None:
    """Remove queue NAME, its bindings and what waits in it, so that senders do not fill it any more."""
    if not (yes or if_empty):
        total = _transact(store, lambda: inspection.count(store, name))
        click.confirm(f'Delete queue "{name}" and the {total} messages in it for good?', abort=True)
    gone = _transact(store, lambda: changes.delete(store, name, only_if_empty=if_empty))
    click.echo(f'queue "{name}" deleted, with {gone} messages')


@queue.command()
@click.argument("name")
@click.argument("exchange", required=False)
@click.argument("pattern", required=False)
@_on_file
def unbind(store: Store, *, name: str, exchange: str | None, pattern: str | None) -> None:
    """Remove the binding of queue NAME to EXCHANGE with PATTERN; without these, list its bindings."""
    if exchange is None or pattern is None:
        for one, other in _transact(store, lambda: changes.bindings(store, name)):
            click.echo(f"{_safe(one)}  {_safe(other)}")
        return
    _transact(store, lambda: changes.unbind(store, name, exchange, pattern))
    click.echo(f'queue "{name}" is not bound to {exchange} with {pattern} any more')


@queue.command()
@click.argument("name")
@click.option("--max-length", type=click.IntRange(0), help="Messages; 0 leaves it to the driver's `max_length`.")
@click.option("--max-length-bytes", type=click.IntRange(0), help="Bytes of the bodies that wait; 0 for no bound.")
@click.option("--overflow", type=click.Choice(["refuse", "drop_oldest"]), help="What happens at the bound.")
@click.option("--ttl", type=click.FloatRange(0), help="Seconds, of what comes from now on; 0 for none.")
@click.option("--dead-letters", help="The queue for what is put aside; empty drops it.")
@click.option("--deduplication-window", type=click.FloatRange(0), help="Seconds; 0 takes all.")
@_on_file
def alter(store: Store, *, name: str, **options: Any) -> None:  # noqa: ANN401  each option has its type
    """Change how queue NAME was declared. Say the same in the manifest, or the service does not start."""
    wanted = {key: value for key, value in options.items() if value is not None}
    if not wanted:
        raise click.UsageError("say what is to change: see --help")
    meant = {
        key: value or None if key in {"max_length", "max_length_bytes", "ttl"} else value
        for key, value in wanted.items()
    }
    _transact(store, lambda: changes.alter(store, name, meant))
    click.echo(f'queue "{name}" altered: ' + ", ".join(f"{key} = {value!r}" for key, value in meant.items()))
    click.echo("Write the same into the manifest before its dispatcher starts again: it is refused otherwise.")


# --- vacuum, backup -----------------------------------------------------------------------------------------------


@queue.command()
@_on_file
def vacuum(store: Store) -> None:
    """Give space that nothing takes any more back to the disk. Others wait meanwhile."""
    with store.reset_guard.held() if store.reset_guard is not None else nullcontext():
        changes.vacuum(store.shelves.connection)
    click.echo("done")


@queue.command()
@click.argument("target", type=click.Path(path_type=Path))
@_on_file
def backup(store: Store, *, target: Path) -> None:
    """Copy the file to TARGET as it is at one moment, also while services use it."""
    try:
        changes.backup(store.shelves.connection, target)
    except OSError as error:
        raise click.ClickException(f'"{target}" cannot be made: {error.strerror}') from error
    click.echo(f"copied to {target}")


# --- export, import -----------------------------------------------------------------------------------------------


@queue.command("export")
@click.argument("name")
@click.option("--output", type=click.File("w", encoding="utf-8"), default="-", help="A file; else standard output.")
@_on_file
def export_queue(store: Store, *, name: str, output: Any) -> None:  # noqa: ANN401  click opens it
    """Write the messages of queue NAME as JSON, one a line; those under way too. Nothing is taken."""
    total = _transact(store, lambda: inspection.count(store, name))
    after = done = 0
    output.write("")  # click opens a file at the first write: also of no messages there is one, and none that was
    with _progress(total, "exporting") as advance:
        while claims := _transact(store, partial(inspection.page, store, name, after=after, limit=_STEP)):
            output.writelines(json.dumps(inspection.as_record(claim)) + "\n" for claim in claims)
            after = claims[-1].seq
            done += len(claims)
            advance(len(claims))
    click.echo(f"{done} messages written", err=True)


@queue.command("import")
@click.argument("name")
@click.argument("source", type=click.File("r", encoding="utf-8"))
@_on_file
def import_queue(store: Store, *, name: str, source: Any) -> None:  # noqa: ANN401  click opens it
    """Put messages that `export` wrote into queue NAME, all or none; `-` reads standard input.

    Their ids stay the same, their attempts are counted anew. Empty lines are none.
    """
    lines = [(number, line) for number, line in enumerate(source.read().split("\n"), 1) if line.strip()]

    def add_all() -> int:
        with _progress(len(lines), "importing") as advance:
            for number, line in lines:
                try:
                    inspection.add(store, name, _read_line(line))
                except (ValueError, KernelError) as error:
                    raise click.ClickException(f"line {number}: {error}; nothing was imported") from error
                advance(1)
        return len(lines)

    click.echo(f"{_transact(store, add_all)} messages imported", err=True)


def _read_line(line: str) -> Any:  # noqa: ANN401  whatever a file may hold
    """Return what a line says; where it is no JSON, the place is a column, since the line has its number already."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"column {error.colno}: no JSON: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("no JSON: it is nested too deeply") from error
