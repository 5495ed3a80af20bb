"""Sends messages, each confirmed by a receipt, through all connections there will be; and holds those that are delayed."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, final

import attrs
import trio

from kernel import Envelope
from kernel.errors import EncodeError, SendError, UnavailableError, UnknownOutcomeError, UnroutableError

from .._errors import LateError, LinkError, LinkLostError, LoginRefusedError
from ..core import Frame, FrameError
from ..link.connect import LinkSettings
from ..link.keeper import Keeper
from ..link.link import OnWritten, open_link
from .dialect import Dialect
from .letters import TARGET, write_letter
from .rabbitmq import DELAY_PREFIX, RabbitMq, quote

_MOST_PLACES: Final = 1000
"""Places for delayed messages that are remembered; one that is forgotten is declared again."""
_LEAST_LIFE: Final = 60.0
"""Seconds that a place lives at least, besides twice its delay."""


@final
@attrs.define(eq=False, repr=False)
class Outbox:
    """Sends over the connection that is for sending. Safe to share between tasks."""

    dialect: Dialect
    _keeper: Keeper
    _settings: Callable[[], LinkSettings]
    _under_way: int = attrs.field(default=0, init=False)
    _places: OrderedDict[str, float] = attrs.field(factory=OrderedDict[str, float], init=False)
    """Places for delayed messages -> until when each is known to live long enough."""

    def frame(self, envelope: Envelope, *, exchange: str, attempts: int = 0, after: float = 0.0) -> Frame:
        """Return the message that carries an envelope.

        Args:
            envelope: What to send.
            exchange: Where to; empty for the queue that its subject names.
            attempts: Those behind it.
            after: Seconds that it is held back.

        Raises:
            EncodeError, ValueError: if it cannot be written.
        """
        headers = write_letter(envelope, now=trio.current_time(), attempts=attempts)
        headers |= self.dialect.outside(envelope, exchange=exchange)
        if after <= 0 and isinstance(self.dialect, RabbitMq):
            headers |= self.dialect.expiration(headers)
        headers["destination"] = self.dialect.destination(exchange=exchange, subject=envelope.subject)
        return Frame("SEND", headers, envelope.body)

    def to_queue(self, frame: Frame, queue: str) -> Frame:
        """Return a message that goes to another place than its subject says: to a queue."""
        destination = self.dialect.destination(exchange="", subject=queue)
        return Frame(frame.command, {**frame.headers, "destination": destination}, frame.body)

    async def send(self, frame: Frame, *, on_written: OnWritten | None = None) -> None:
        """Send a message; returns when the server has taken it.

        Waits for a connection, and while too much waits to be sent; `on_written` as in `Link.request`.

        Raises:
            UnroutableError: if there is no such exchange.
            EncodeError: if something of it has no place in STOMP.
            SendError: if this user must not send there.
            UnknownOutcomeError: if the connection broke before the server answered, or it has not answered in time.
            UnavailableError: if the driver is closed.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been sent.
        """
        while True:
            link = self._keeper.current or await self._keeper.link()
            self._under_way += 1
            alone = self._under_way == 1
            try:
                await link.request(frame, on_written=on_written)
            except LinkLostError as error:
                if error.written:
                    raise self._outcome(error, frame, alone=alone and self._under_way == 1) from error
            except LateError as error:
                raise UnknownOutcomeError(f"it is not known whether a message was taken: {error}") from error
            except FrameError as error:
                raise EncodeError(f"the message cannot be written in STOMP: {error}") from error
            else:
                return
            finally:
                self._under_way -= 1
            await trio.lowlevel.checkpoint()  # certainly nothing was sent: try again

    async def postpone(self, frame: Frame, *, delay: float, target: str, on_written: OnWritten | None = None) -> None:
        """Send a message that is delivered after some seconds.

        Args:
            frame: The message, whose destination says where it goes then.
            delay: Seconds, more than 0.
            target: The queue that it goes to; empty for an exchange.
            on_written: As in `send`; not called for the first message of a place, which has a connection of its own.

        Raises and Cancellation: as `send`.
        """
        if (held := self.dialect.holds(delay)) is not None:
            await self.send(Frame(frame.command, {**frame.headers, **held}, frame.body), on_written=on_written)
            return
        delay = rounded(delay)
        place, arguments = _place(frame.headers["destination"], delay)
        headers = {**frame.headers, TARGET: target}
        if self._places.get(place, 0.0) > trio.current_time():
            known = {**headers, "destination": f"/amq/queue/{quote(place)}"}
            await self.send(Frame(frame.command, known, frame.body), on_written=on_written)
            return
        await self._send_first(Frame(frame.command, {**headers, **arguments}, frame.body), place, delay)

    async def _send_first(self, frame: Frame, place: str, delay: float) -> None:
        """Send a message that makes its place exist, or live longer: only the first of a connection does that."""
        await self._keeper.link()  # there is a server
        began = trio.current_time()
        try:
            async with open_link(self._settings()) as link:
                await link.request(frame)
        except LinkLostError as error:
            raise self._outcome(error, frame, alone=True) from error
        except LateError as error:
            raise UnknownOutcomeError(f"it is not known whether a message was taken: {error}") from error
        except (LinkError, LoginRefusedError) as error:
            raise UnavailableError(f"a message cannot be held back: {error}") from error
        except FrameError as error:
            raise EncodeError(f"the message cannot be written in STOMP: {error}") from error
        self._places[place] = began + (delay + _LEAST_LIFE) / 2
        self._places.move_to_end(place)
        if len(self._places) > _MOST_PLACES:
            self._places.popitem(last=False)

    def forget_places(self) -> None:
        """Declare places for delayed messages anew: the server may have been another one meanwhile."""
        self._places.clear()

    def _outcome(self, error: LinkLostError, frame: Frame, *, alone: bool) -> Exception:
        """Return what is known of a message that was under way when the connection ended."""
        where = frame.headers.get("destination", "")
        if not (error.text and alone):
            return UnknownOutcomeError(f'it is not known whether "{where}" took a message: {error}')
        if "not_found" in error.text.lower():
            return UnroutableError(f'there is no "{where}" to send to: {error.text}')
        return SendError(f'the server refused a message for "{where}": {error.text}')


def rounded(delay: float) -> float:
    """Return a delay with two digits, rounded up, so that there are not too many places."""
    milliseconds = max(1, math.ceil(delay * 1000))
    unit = int("1".ljust(len(str(milliseconds)) - 1, "0"))
    return math.ceil(milliseconds / unit) * unit / 1000


def _place(destination: str, delay: float) -> tuple[str, Mapping[str, str]]:
    """Return the queue in which messages wait for their time, and how it is declared."""
    kind, _, key = destination.removeprefix("/").partition("/")
    exchange = {"topic": "amq.topic"}.get(kind, "")
    if kind == "amq":
        key = key.partition("/")[2]
    elif kind == "exchange":
        exchange, _, key = key.partition("/")
    key, exchange = key.replace("%2F", "/"), exchange.replace("%2F", "/")
    milliseconds = round(delay * 1000)
    mark = hashlib.sha256(destination.encode()).hexdigest()[:16]
    name = f"{DELAY_PREFIX}stomp.{milliseconds}.{mark}"
    return name, {
        "destination": f"/queue/{name}",
        "durable": "true",
        "auto-delete": "false",
        "x-message-ttl": str(milliseconds),
        "x-expires": str(2 * milliseconds + round(_LEAST_LIFE * 1000)),
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-routing-key": key,
    }
