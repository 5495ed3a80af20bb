"""The commands `kernel rabbitmq ...`: for the queues of a service, whether it runs or not."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any, Final, TypeVar

import click
import trio

from kernel import Plan, manifest_options
from kernel.abc import shown_headers
from kernel.errors import InvalidError, KernelError

from .._driver import AmqpDriver
from ..link.link import Link, open_link
from . import looking
from .carrying import Depth, counted
from .manifest import Service, read_service
from .renewing import Renewal

ResultT = TypeVar("ResultT")

_ALL: Final = 1_000_000_000


@click.group()
def rabbitmq() -> None:
    """Look into the queues of an `amqp` driver, and tidy them up.

    They connect as the driver of the manifest does, while a service uses it or not.
    """


def _of_service(command: Callable[..., object]) -> Callable[..., object]:
    """Add the options that say which driver, and pass the service as first argument."""

    @manifest_options
    @click.option("--driver", help="Which driver of the manifest, if there are several.")
    @wraps(command)
    def run(*, read_plan: Callable[[], Plan], driver: str | None, **others: Any) -> object:  # noqa: ANN401
        service = read_service(read_plan(), driver, AmqpDriver)
        try:
            return command(service, **others)
        except InvalidError:
            raise
        except KernelError as error:
            raise click.ClickException(str(error)) from error

    return run


def _ask(service: Service, question: Callable[[Link], Awaitable[ResultT]]) -> ResultT:
    """Ask the broker something, on a connection for that."""

    async def ask() -> ResultT | KernelError:
        async with open_link(service.settings) as link:
            try:
                return await question(link)
            except KernelError as error:  # raised below, outside of the nursery, which would wrap it
                return error

    result = trio.run(ask)
    if isinstance(result, KernelError):
        raise result
    return result


# --- list, peek ---------------------------------------------------------------------------------------------------


@rabbitmq.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@_of_service
def list_queues(service: Service, *, as_json: bool) -> None:
    """List the queues of the service, how many messages wait in them and how many consumers they have."""
    names = [queue.name for queue in service.queues]
    found = _ask(service, lambda link: looking.depths(link, names))
    rows = [
        {"queue": name, "ready": depth and depth.ready, "consumers": depth and depth.consumers}
        for name, depth in found.items()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    width = max([len("queue"), *map(len, names)])
    click.echo(f"{'queue'.ljust(width)}  ready  consumers")
    for row in rows:
        ready, consumers = ("missing", "") if row["ready"] is None else (str(row["ready"]), str(row["consumers"]))
        click.echo(f"{_safe(str(row['queue'])).ljust(width)}  {ready.rjust(5)}  {consumers.rjust(9)}".rstrip())


@rabbitmq.command()
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many messages.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON, one a line, the body in base64.")
@_of_service
def peek(service: Service, *, name: str, limit: int, as_json: bool) -> None:
    """Show the first messages of queue NAME, without what is called like a secret. They are taken and go back, marked as redelivered."""
    full = service.name(name)
    in_stream = service.is_stream(full)
    for record in _ask(service, lambda link: looking.peek(link, full, limit, in_stream=in_stream)):
        if as_json:
            click.echo(json.dumps(record))
            continue
        click.echo(f"{_safe(record['id'])}  {_safe(record['subject'])}  attempts {record['attempts']}")
        for key, value in shown_headers(record["headers"]).items():
            click.echo(f"    {_safe(key)}: {_safe(value)}")
        click.echo(f"    {record['bytes']} bytes")


def _safe(text: str) -> str:
    """Return a text of somebody's with what a terminal would obey escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


# --- retry, move, purge, delete -----------------------------------------------------------------------------------


@rabbitmq.command()
@click.argument("name")
@click.option("--to", default="", help="Where they go; else each to the queue in which it died.")
@click.option("--limit", type=click.IntRange(1), default=_ALL, help="How many at most; all if not given.")
@_of_service
def retry(service: Service, *, name: str, to: str, limit: int) -> None:
    """Give the dead letters in queue NAME another chance, their attempts counted anew."""
    done = _ask(service, partial(looking.retry, queue=service.emptied(name), to=to and service.name(to), limit=limit))
    click.echo(f"{done} messages moved")


@rabbitmq.command()
@click.argument("name")
@click.argument("to")
@click.option("--limit", type=click.IntRange(1), default=_ALL, help="How many at most; all if not given.")
@_of_service
def move(service: Service, *, name: str, to: str, limit: int) -> None:
    """Move the messages of queue NAME to queue TO, as they are."""
    source, target = service.emptied(name), service.name(to)
    if source == target:
        raise click.UsageError(f'"{source}" is where they are already')
    done = _ask(service, partial(looking.move, queue=source, to=target, limit=limit))
    click.echo(f"{done} messages moved")


@rabbitmq.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_of_service
def purge(service: Service, *, name: str, yes: bool) -> None:
    """Remove all messages that wait in queue NAME; those under way are left alone."""
    full = service.emptied(name)
    there = _ask(service, lambda link: looking.look(link, full))
    if not yes:
        click.confirm(f'Remove {there} from queue "{full}" for good?', abort=True)
    gone = _ask(service, lambda link: looking.purge(link, full))
    click.echo(f'queue "{full}" is empty: {counted(gone, "message")} removed{_told(there)}')


@rabbitmq.command()
@click.argument("name")
@click.option("--if-empty", is_flag=True, help="Only if nothing waits in it; not for quorum queues.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_of_service
def delete(service: Service, *, name: str, if_empty: bool, yes: bool) -> None:
    """Remove queue NAME, its bindings and what waits in it."""
    full = service.name(name)
    there = _ask(service, lambda link: looking.look(link, full))
    if not (yes or if_empty):
        click.confirm(f'Delete queue "{full}" with {there} for good?', abort=True)
    gone = _ask(service, lambda link: looking.delete(link, full, if_empty=if_empty))
    click.echo(f'queue "{full}" deleted, with {counted(gone, "message")}{_told(there)}')


def _told(there: Depth) -> str:
    """Say who consumes a queue of which something was removed; what they have in hand is not in the count."""
    return f"; {counted(there.consumers, 'consumer')} had it" if there.consumers else ""


# --- renew --------------------------------------------------------------------------------------------------------


@rabbitmq.command()
@click.argument("names", nargs=-1)
@_of_service
def renew(service: Service, *, names: tuple[str, ...]) -> None:
    """Make queues NAMES, or all of the service, as the manifest says, and keep what is in them.

    RabbitMQ changes no queue that exists. This carries the messages into `NAME.renew`, deletes the queue, declares it
    anew and carries them back. Nobody may consume meanwhile: stop the service. Who sends through an exchange may go
    on: a message that comes in a moment of change may be there twice. If it is interrupted, run it again.
    """
    for queue in [service.queue(service.emptied(name)) for name in names] or service.queues:
        if service.is_stream(queue.name):
            click.echo(f'queue "{queue.name}": is a stream, and left as it is')
            continue
        renewal = Renewal(queue, service.bindings_of(queue.name), lambda text: click.echo(text, err=True))
        is_new = _ask(service, renewal.run)
        click.echo(f'queue "{queue.name}": {"renewed" if is_new else "is as the manifest says"}')
