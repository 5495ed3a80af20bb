"""What is in queues: how much, the first messages, and dead letters that get another chance."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio
from pamqp import commands

from kernel import Envelope
from kernel.errors import ConflictError

from .._errors import ChannelClosedError
from ..broker.conflicts import declare_error
from ..broker.letters import read_letter, write_retry
from ..broker.streams import OFFSET
from ..core import Delivered, TooLarge, with_names
from ..link.link import Link
from .carrying import Depth, Letter, carry, depth, taking

_DEATH_QUEUE: Final = "kernel-death-queue"


async def depths(link: Link, names: list[str]) -> dict[str, Depth | None]:
    """Return what is in queues; None for one that there is not.

    Cancellation: Is a checkpoint.
    """
    await trio.lowlevel.checkpoint()
    return {name: await depth(link, name) for name in names}


async def look(link: Link, queue: str) -> Depth:
    """Return what is in a queue.

    Raises:
        ConflictError: if there is no such queue.

    Cancellation: Is a checkpoint.
    """
    found = await depth(link, queue)
    if found is None:
        raise ConflictError(f'there is no queue "{queue}"')
    return found


async def purge(link: Link, queue: str) -> int:
    """Remove what waits in a queue; returns how many messages.

    Raises:
        ConflictError, MissingError: if the broker refuses it.

    Cancellation: Is a checkpoint. If cancelled, it may have been done.
    """
    return await _remove(link, queue, commands.Queue.Purge())


async def delete(link: Link, queue: str, *, if_empty: bool) -> int:
    """Remove a queue; returns how many messages went with it.

    Raises and Cancellation: as `purge`.
    """
    return await _remove(link, queue, commands.Queue.Delete(if_empty=if_empty))


async def _remove(link: Link, queue: str, method: commands.Queue.Purge | commands.Queue.Delete) -> int:
    try:
        async with link.open_channel() as channel:
            answer = await channel.call(with_names(method, queue=queue))
    except ChannelClosedError as error:
        raise declare_error("queue", queue, error) from error
    assert isinstance(answer, (commands.Queue.PurgeOk, commands.Queue.DeleteOk))
    return answer.message_count or 0


async def peek(link: Link, queue: str, limit: int, *, in_stream: bool = False) -> list[Mapping[str, Any]]:
    """Return the first messages of a queue, as records; they go back. Of a stream nobody knows how many there are.

    Raises:
        ConflictError: if there is no such queue.

    Cancellation: Is a checkpoint.
    """
    found = await depth(link, queue)
    ready = min(limit, found.ready) if found is not None and not in_stream else limit
    how = {"arguments": {OFFSET: "first"}} if in_stream else {}
    records: list[Mapping[str, Any]] = []
    async with taking(link, queue, prefetch=max(ready, 1), **how) as source:
        while len(records) < ready and (message := await source.take()) is not None:
            records.append(_record(message))
    return records


def _record(message: Delivered | TooLarge) -> Mapping[str, Any]:
    if isinstance(message, TooLarge):
        return {"id": "", "subject": message.routing_key, "attempts": 0, "headers": {}, "bytes": message.size}
    envelope, attempts = read_letter(message, now=trio.current_time())
    return {
        "id": envelope.id,
        "subject": envelope.subject,
        "attempts": attempts,
        "headers": dict(envelope.headers),
        "content_type": envelope.content_type,
        "reply_to": envelope.reply_to,
        "correlation_id": envelope.correlation_id,
        "priority": envelope.priority,
        "bytes": len(envelope.body),
        "body": base64.b64encode(envelope.body).decode("ascii"),
    }


async def retry(link: Link, queue: str, *, to: str, limit: int) -> int:
    """Send messages back to the queue in which each died, or to one queue, attempts counted anew; returns how many.

    Raises:
        ConflictError: if one does not say where it died; it stays, and those before it are gone.
        KernelError: as `carry`.

    Cancellation: as `carry`.
    """
    return await _carry_all(link, queue, limit, lambda message: _again(message, to))


async def move(link: Link, queue: str, *, to: str, limit: int) -> int:
    """Send messages to another queue, as they are; returns how many.

    Raises:
        KernelError: as `carry`.

    Cancellation: as `carry`.
    """
    return await _carry_all(link, queue, limit, lambda message: _moved(message, to))


async def _carry_all(link: Link, queue: str, limit: int, write: Callable[[Delivered], Letter]) -> int:
    """Carry no more than what is there now: what comes back to the same queue is not carried again."""
    found = await look(link, queue)
    return await carry(link, queue, write, limit=min(limit, found.ready))


def _again(message: Delivered, to: str) -> Letter:
    envelope, _ = read_letter(message, now=trio.current_time())
    target = to or _death_queue(envelope)
    return _letter(message, envelope, target, attempts=0)


def _moved(message: Delivered, to: str) -> Letter:
    envelope, attempts = read_letter(message, now=trio.current_time())
    return _letter(message, envelope, to, attempts=attempts)


def _letter(message: Delivered, envelope: Envelope, target: str, *, attempts: int) -> Letter:
    properties = write_retry(message, envelope, attempts=attempts, after=0.0, now=trio.current_time())
    return Letter(exchange="", routing_key=target, properties=properties, body=message.body)


def _death_queue(envelope: Envelope) -> str:
    queue = envelope.headers.get(_DEATH_QUEUE)
    if isinstance(queue, str) and queue:
        return queue
    raise ConflictError(f"message {envelope.id} does not say in which queue it died: say where it goes, with --to")
