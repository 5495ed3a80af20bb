"""What people do with queues: look, clear, try dead letters again, carry messages elsewhere. In steps that are short."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast

import attrs

from kernel.errors import ConflictError, QueueFullError

from ._catalog import StoredQueue
from ._deserted import last_consumed
from ._letter import Claim, Letter
from ._schema import BEHIND, CLAIMED, DELAYED, READY
from ._store import Store

_STATES = {READY: "ready", DELAYED: "delayed", BEHIND: "behind", CLAIMED: "claimed"}

ValueT = TypeVar("ValueT")
_NO_MESSAGE: Final = "not a message as `kernel queue export` writes it"


def waiting_in(store: Store) -> list[tuple[StoredQueue, int]]:
    """Return all queues, each with how many messages wait in it."""
    catalog = store.shelves.catalog
    return [(queue, catalog.waiting(queue)) for queue in catalog.queues]


def overview(store: Store) -> list[dict[str, object]]:
    """Return for each queue how it was declared and how many messages are in which state."""
    counts: dict[int, dict[str, object]] = {}
    for queue, state, count in store.shelves.connection.execute(
        "SELECT queue, state, count(*) FROM kernel_entry GROUP BY queue, state"
    ).fetchall():
        counts.setdefault(queue, {})[_STATES[state]] = count
    nothing = dict.fromkeys(_STATES.values(), 0)
    consumed = last_consumed(store.shelves.connection)
    return [
        {
            "queue": queue.spec.name,
            **nothing,
            **counts.get(queue.id, {}),
            **attrs.asdict(queue.spec, filter=lambda field, _: field.name not in {"name", "options"}),
            "max_length_bytes": queue.most_bytes,
            "consumed": consumed.get(queue.id),
            "bindings": [list(binding) for binding in store.shelves.catalog.bindings_of(queue)],
        }
        for queue in store.shelves.catalog.queues
    ]


def count(store: Store, name: str) -> int:
    """Return how many messages wait in a queue.

    Raises:
        ConflictError: if there is no such queue.
    """
    return store.shelves.catalog.waiting(store.shelves.catalog.need(name))


def purge(store: Store, name: str, limit: int) -> int:
    """Remove messages that wait in a queue, at most `limit`; returns how many.

    Raises:
        ConflictError: if there is no such queue.
    """
    shelves = store.shelves
    queue = shelves.catalog.need(name)
    found = shelves.entries.waiting(queue.id, limit)
    for entry in found:
        shelves.entries.remove(entry.seq)
    shelves.catalog.shift(queue, -len(found))
    for entry in found:
        shelves.advance(queue, entry.key, entry.seq)
    return len(found)


def retry(store: Store, name: str, limit: int, *, to: str = "") -> int:
    """Move ready messages to another queue, attempts counted anew, at most `limit`; returns how many.

    Args:
        store: In a transaction.
        name: Where they are.
        limit: How many.
        to: Where they go; empty sends each to the queue in which it died.

    Raises:
        ConflictError: if one of the queues does not exist, or a message does not say where it died.
        QueueFullError: if there is no room; the transaction is to be undone.
    """
    shelves = store.shelves
    queue = shelves.catalog.need(name)
    found = shelves.entries.first_ready(queue.id, limit)
    for claim in found:
        target = shelves.catalog.need(to or _death_queue(claim.letter))
        if target is not queue and (lack := shelves.lack(target, len(claim.letter.body))):
            raise QueueFullError(f'queue "{target.spec.name}" is full: {lack}')
        shelves.catalog.shift(queue, -1)
        shelves.move(target, claim.seq, claim.letter)
        shelves.advance(queue, claim.key, claim.seq)
    return len(found)


def page(store: Store, name: str, *, after: int, limit: int) -> list[Claim]:
    """Return messages of a queue, claimed ones too, in the order of their numbers.

    Raises:
        ConflictError: if there is no such queue.
    """
    return store.shelves.entries.page(store.shelves.catalog.need(name).id, after, limit)


def add(store: Store, name: str, record: Mapping[str, Any]) -> None:
    """Put a message, as `as_record` wrote it, into a queue.

    Raises:
        ConflictError: if there is no such queue.
        QueueFullError: if there is no room.
        ValueError: if it is no such record.
    """
    shelves, letter = store.shelves, _from_record(record)
    queue = shelves.catalog.need(name)
    if lack := shelves.lack(queue, len(letter.body)):
        raise QueueFullError(f'queue "{name}" is full: {lack}')
    shelves.put(queue, letter)


def as_record(claim: Claim) -> dict[str, object]:
    """Return a message as JSON can say it; the body in base64."""
    letter = claim.letter
    return {
        "id": letter.id,
        "subject": letter.subject,
        "body": base64.b64encode(letter.body).decode(),
        "headers": headers_of(letter),
        "content_type": letter.content_type,
        "reply_to": letter.reply_to,
        "correlation_id": letter.correlation_id,
        "priority": 9 - letter.rank,
        "deadline": letter.deadline,
        "attempts": claim.attempt - 1,
    }


def headers_of(letter: Letter) -> dict[str, object]:
    """Return the headers of a message."""
    return cast("dict[str, object]", json.loads(letter.headers)) if letter.headers else {}


def _from_record(record: Mapping[str, Any]) -> Letter:
    if not isinstance(cast("object", record), dict):
        raise ValueError(f"{_NO_MESSAGE}: it is no object")  # noqa: TRY004  what is in a file is no type of ours
    try:
        headers = cast("dict[str, object]", _checked(record, "headers", dict))
        return Letter(
            id=_checked(record, "id", str),
            subject=_checked(record, "subject", str),
            body=base64.b64decode(_checked(record, "body", str), validate=True),
            headers=json.dumps(headers, allow_nan=False) if headers else "",
            content_type=_checked(record, "content_type", str),
            reply_to=_checked(record, "reply_to", str),
            correlation_id=_checked(record, "correlation_id", str),
            rank=9 - min(9, max(0, _checked(record, "priority", int))),
            delay=0.0,
            deadline=None if record["deadline"] is None else _finite(record["deadline"]),
        )
    except KeyError as error:
        raise ValueError(f"{_NO_MESSAGE}: `{error.args[0]}` is missing") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{_NO_MESSAGE}: {error}") from error


def _checked(record: Mapping[str, Any], key: str, kind: type[ValueT]) -> ValueT:
    """Return a value of a record, which a file may hold in whatever shape."""
    value = record[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"`{key}` is no {kind.__name__}")
    if isinstance(value, str):
        value.encode()  # a lone surrogate is no text
    return value


def _finite(value: object) -> float:
    number = float(cast("Any", value))
    if isinstance(value, bool | str) or not math.isfinite(number):
        raise ValueError("`deadline` is no time")
    return number


def _death_queue(letter: Letter) -> str:
    name = headers_of(letter).get("kernel-death-queue")
    if not isinstance(name, str):
        raise ConflictError(f"message {letter.id} does not say in which queue it died: say where it is to go")
    return name
