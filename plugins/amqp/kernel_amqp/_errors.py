"""What can go wrong on a connection, each kind as a type of its own.

    LinkError (UnavailableError)         no connection could be made
    └── LinkLostError                    the connection is gone
    MissingError (UnavailableError)      a queue or exchange is not there, or not for us; that may pass
    ConsumerCancelledError (UnavailableError)   the broker brings no more of a queue, which was deleted or moved
    LoginRefusedError (StartupError)     the broker does not let this user in, or not to this virtual host
    ChannelClosedError (KernelError)     the broker closed one channel, because of one method
    ReturnedError (KernelError)          no queue is bound for a mandatory message
    RefusedError (KernelError)           the broker did not take a message
    ConfirmLateError (KernelError)       the broker has not answered a message in time
    UnansweredError (Exception)          it has not answered yet, and may be waited for later; never leaves the plugin

An error of a publish says whether the message may have reached the broker: `written`.
"""

from __future__ import annotations

from typing import final

from kernel.errors import KernelError, StartupError, UnavailableError


class LinkError(UnavailableError):
    """No connection to a broker could be made."""


@final
class LinkLostError(LinkError):
    """The connection to the broker is gone.

    Args:
        reason: What happened, and where.
        written: Whether something of what was asked may have reached the broker; False means certainly not.
        code: Reply code, if the broker has closed it; 0 if it broke.
        method: What the broker answered by closing it, for example `queue.declare`; empty if it did not say.
    """

    def __init__(self, reason: str, *, written: bool = False, code: int = 0, method: str = "") -> None:
        self.reason = reason
        self.written = written
        self.code = code
        self.method = method
        super().__init__(reason)

    def again(self, *, written: bool) -> LinkLostError:
        """Return the same error for one more who has to know; an instance is raised once."""
        error = LinkLostError(self.reason, written=written, code=self.code, method=self.method)
        error.__cause__ = self.__cause__
        return error


@final
class LoginRefusedError(StartupError):
    """The broker does not let this user in, or not to this virtual host.

    Args:
        where: `host:port`.
        code: Reply code of the broker: 403 or 530.
        text: What the broker said.
    """

    def __init__(self, where: str, *, code: int, text: str) -> None:
        self.where = where
        self.code = code
        self.text = text
        super().__init__(f"{where} refused the login: {code} {text}; check user, password and virtual host")


@final
class ChannelClosedError(KernelError):
    """The broker closed a channel; other channels of the connection go on.

    Args:
        code: Reply code of the broker, for example 404 (not found) or 406 (precondition failed).
        text: What the broker said: names what it is about, and both values if two did not agree.
        method: What it answered with that, for example `queue.declare`; empty if it did not say.
        written: Whether a message that was to be published may have reached the broker.
    """

    def __init__(self, code: int, text: str, method: str, *, written: bool = False) -> None:
        self.code = code
        self.text = text
        self.method = method
        self.written = written
        super().__init__(f"the broker closed the channel{' at ' + method if method else ''}: {code} {text}")

    def again(self, *, written: bool) -> ChannelClosedError:
        """Return the same error for one more who has to know; an instance is raised once."""
        return ChannelClosedError(self.code, self.text, self.method, written=written)


@final
class ReturnedError(KernelError):
    """No queue is bound for a mandatory message; the broker returned it and keeps nothing."""

    def __init__(self, code: int, text: str, *, exchange: str, routing_key: str) -> None:
        self.code = code
        self.text = text
        self.exchange = exchange
        self.routing_key = routing_key
        super().__init__(f'exchange "{exchange}" has no queue for "{routing_key}": {code} {text}')


@final
class RefusedError(KernelError):
    """The broker answered a message with a negative confirm: it did not take it.

    A queue that is full and rejects what comes does so, and a queue that failed.
    """

    def __init__(self) -> None:
        super().__init__("the broker did not take the message: a queue that should get it is full, or failed")


@final
class ConfirmLateError(KernelError):
    """The broker has not answered a message in time; whether it has taken it is not known."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the broker has not confirmed the message within {seconds:g} s")


@final
class UnansweredError(Exception):
    """The broker has not answered a message yet, and whoever waited goes on to something else; a receipt will tell."""


@final
class MissingError(UnavailableError):
    """A queue or exchange is not there, or belongs to another connection alone: it can be otherwise the next time."""

    def __init__(self, message: str, *, is_locked: bool = False) -> None:
        self.is_locked = is_locked
        """Whether it is another connection's: it may be that of our own that broke, which the broker still believes in."""
        super().__init__(message)


@final
class ConsumerCancelledError(UnavailableError):
    """The broker has cancelled a consumer: its queue was deleted, or its node is gone."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        super().__init__(f'the broker has cancelled the consumer of queue "{queue}": is the queue deleted?')
