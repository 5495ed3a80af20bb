"""Makes exchanges, queues and bindings exist: one step after the other, on a channel of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, final

import attrs
import trio
from pamqp import base, commands

from kernel.abc import Exchange, Queue
from kernel.errors import ConflictError

from .._errors import ChannelClosedError, LinkLostError, MissingError
from .._tables import ExchangeTable
from ..core import with_names
from ..link.link import Link
from .conflicts import NOT_FOUND, declare_error
from .topology import Bound, exchange_method, options_of, queue_method

_FORCED: Final = 320
"""Reply code of a connection that an operator has closed, or a node that stops."""


@final
@attrs.frozen(repr=False)
class Step:
    """One thing that must exist."""

    kind: str
    name: str
    method: base.Frame
    """Makes it exist."""
    look: base.Frame | None = None
    """Asks whether something of the name exists, which is then taken as it is; None does not ask."""


@final
class FatalStepError(ConflictError):
    """The broker has closed the connection for what a step asks for: nobody must ask for it again."""

    def __init__(self, step: Step, error: LinkLostError) -> None:
        self.step = step
        advice = "; `durable = false` is for exclusive queues alone" if _is_transient(step) else ""
        super().__init__(f'{step.kind} "{step.name}" cannot be declared: {error.reason}{advice}')


def _is_transient(step: Step) -> bool:
    method = step.method
    return isinstance(method, commands.Queue.Declare) and not (method.durable or method.exclusive)


def exchange_step(exchange: Exchange, table: ExchangeTable | None) -> Step:
    """Return the step for an exchange and its table in the manifest."""
    look = exchange_look(exchange.name) if table is not None and table.adopt else None
    return Step("exchange", exchange.name, exchange_method(exchange, table), look)


def queue_step(queue: Queue) -> Step:
    """Return the step for a queue.

    Raises:
        ConflictError: if it is asked for what its type cannot be.
    """
    look = queue_look(queue.name)
    if options_of(queue).passive:
        return Step("queue", queue.name, look)
    return Step("queue", queue.name, queue_method(queue), look if options_of(queue).adopt else None)


def binding_step(bound: Bound) -> Step:
    """Return the step for a binding."""
    return Step("exchange" if bound.is_exchange else "queue", bound.destination, bound.method())


def exchange_look(name: str) -> commands.Exchange.Declare:
    """Return what asks whether an exchange exists."""
    return with_names(commands.Exchange.Declare(passive=True), exchange=name)


def queue_look(name: str) -> commands.Queue.Declare:
    """Return what asks whether a queue exists."""
    return with_names(commands.Queue.Declare(passive=True), queue=name)


async def perform(link: Link, steps: Sequence[Step]) -> None:
    """Do all steps, in their order.

    Raises:
        ConflictError: if the broker refuses one; those before it are done. A `FatalStepError` where it has closed the
            connection for it.
        MissingError: if something that must exist does not, or not for us; likewise.
        LinkLostError: if the connection is gone.

    Cancellation: Is a checkpoint. If cancelled, any of them may have been done.
    """
    async with link.declaring, link.open_channel() as channel:
        for step in steps:
            if step.look is not None and await exists(link, step.look):
                continue
            try:
                await channel.call(step.method)
            except ChannelClosedError as error:
                raise declare_error(step.kind, step.name, error) from error
            except LinkLostError as error:
                if _is_for(error, step):
                    raise FatalStepError(step, error) from error
                raise


def _is_for(error: LinkLostError, step: Step) -> bool:
    """Whether the broker has closed the whole connection for a step, as it would do again and again."""
    return error.code not in {0, _FORCED} and error.method == step.method.name.lower()


async def perform_each(link: Link, steps: Iterable[Step]) -> list[ConflictError | MissingError]:
    """Do each step that can be done; return why others could not.

    Raises:
        FatalStepError: if the broker has closed the connection for one of them.
        LinkLostError: if the connection is gone.

    Cancellation: as `perform`.
    """
    wanted = list(steps)
    try:
        await perform(link, wanted)
    except FatalStepError:
        raise
    except (ConflictError, MissingError):
        pass
    else:
        return []
    await trio.lowlevel.checkpoint()
    return [error for step in wanted if (error := await _refusal(link, step)) is not None]


async def exists(link: Link, look: base.Frame) -> bool:
    """Return whether the broker has what `look` asks for.

    Raises:
        ConflictError: if it must not be asked for.
        LinkLostError: if the connection is gone.

    Cancellation: Is a checkpoint.
    """
    async with link.open_channel() as channel:
        try:
            await channel.call(look)
        except ChannelClosedError as error:
            if error.code == NOT_FOUND:
                return False
            raise ConflictError(f"what may exist cannot be asked for: {error}") from error
    return True


async def _refusal(link: Link, step: Step) -> ConflictError | MissingError | None:
    try:
        await perform(link, [step])
    except FatalStepError:
        raise
    except (ConflictError, MissingError) as error:
        return error  # noqa: ASYNC910  it comes from the broker
    return None
