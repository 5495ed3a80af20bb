"""What the broker says when it refuses to declare or to consume, as errors that name the manifest's keys."""

from __future__ import annotations

import re
from typing import Final

import attrs

from kernel.abc import Exchange, Queue
from kernel.errors import ConflictError, KernelError, SendError

from .._errors import ChannelClosedError, MissingError

NOT_FOUND: Final = 404
REFUSED: Final = 403
LOCKED: Final = 405
UNEQUAL: Final = 406
_ARGUMENT: Final = re.compile(r"inequivalent arg '([^']*)'")
_SIZE: Final = re.compile(r"larger than (?:configured )?max size (\d+)")
_TOPIC: Final = re.compile(r"access to topic '([^']*)'")
_USER: Final = re.compile(r"user_id property set to '([^']*)'")
_ANYBODY: Final = re.compile(r"access to exchange|internal exchange")
_KEYS: Final = {
    "x-max-length": "max_length",
    "x-overflow": "overflow",
    "x-message-ttl": "ttl",
    "x-dead-letter-exchange": "dead_letters",
    "x-dead-letter-routing-key": "dead_letters",
    "x-single-active-consumer": "partition_by",
    "x-max-length-bytes": "options.max_length_bytes",
    "x-max-priority": "options.max_priority",
    "x-queue-type": "options.type",
    "x-delivery-limit": "options.delivery_limit",
    "x-expires": "options.expires",
    "x-dead-letter-strategy": "options.dead_letter_strategy",
    "x-max-age": "options.max_age",
    "auto_delete": "options.auto_delete",
    "exclusive": "options.exclusive",
}


def declare_error(kind: str, name: str, error: ChannelClosedError) -> KernelError:
    """Return the error for a declaration that the broker refused; names both values where two do not agree."""
    match error.code:
        case 406 | 405 if found := _ARGUMENT.search(error.text):
            key = _key(kind, found[1])
            move = f", move what is in it (`kernel rabbitmq renew {name}`)" if kind == "queue" else ""
            return ConflictError(
                f'{kind} "{name}" exists with another `{key}`: {error.text}; change the manifest, delete the {kind}{move},'
                " or take what exists with `adopt = true`"
            )
        case 404:
            return MissingError(f'{kind} "{name}" does not exist, or what it is bound to does not: {error.text}')
        case 405:
            return MissingError(f'{kind} "{name}" belongs to another connection alone: {error.text}', is_locked=True)
        case _:
            return ConflictError(f'{kind} "{name}" cannot be declared: {error.code} {error.text}')


def consume_error(queue: str, error: ChannelClosedError) -> KernelError:
    """Return the error for a queue that cannot be consumed from."""
    match error.code:
        case 404:
            return ConflictError(f'there is no queue "{queue}"')
        case 403 | 405:
            return ConflictError(f'queue "{queue}" is exclusive, or not for this user: {error.text}')
        case _:
            return ConflictError(f'queue "{queue}" cannot be consumed from: {error.code} {error.text}')


def send_error(exchange: str, error: ChannelClosedError) -> KernelError:
    """Return the error for a message that made the broker close the channel."""
    return SendError(f'exchange "{exchange}" did not take a message: {error.code} {error.text}')


def is_about(error: ChannelClosedError, *, routing_key: str, user_id: str | None, size: int) -> bool:
    """Whether the broker closed a channel for a message such as this one, among others that were under way.

    It does not say which it was, but what was wrong with it.
    """
    if found := _SIZE.search(error.text):
        return size > int(found[1])
    if found := _TOPIC.search(error.text):
        return found[1] == routing_key
    if found := _USER.search(error.text):
        return found[1] == user_id
    return error.code == REFUSED and _ANYBODY.search(error.text) is not None  # whatever is sent there is refused


def check_same(wanted: Exchange | Queue, known: Exchange | Queue) -> None:
    """Raise ConflictError if two components of this service ask for one name with different properties."""
    kind = "exchange" if isinstance(wanted, Exchange) else "queue"
    for field in attrs.fields(type(wanted)):
        asked, found = getattr(wanted, field.name), getattr(known, field.name)
        if asked != found:
            raise ConflictError(
                f'{kind} "{wanted.name}" was declared with {field.name} = {found!r}, and is asked for with {asked!r}:'
                " say the same wherever it is declared, or `declare = false` in all places but one, and start the service anew"
            )


def _key(kind: str, argument: str) -> str:
    if kind == "exchange":
        return argument
    return _KEYS.get(argument, f"options.arguments.{argument}" if argument.startswith("x-") else argument)
