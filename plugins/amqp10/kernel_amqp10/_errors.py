"""Errors of the driver `amqp10`."""

from __future__ import annotations

from typing import final

from kernel.errors import KernelError, StartupError, UnavailableError


class LinkError(KernelError):
    """A connection could not be opened, or went away."""


@final
class LinkLostError(LinkError):
    """The connection is gone; whoever waits for an answer on it gets none.

    Args:
        text: Why.
        written: Whether a message that was to be sent may have reached the broker.
    """

    def __init__(self, text: str, *, written: bool = False) -> None:
        self.written = written
        super().__init__(text)

    def again(self, *, written: bool) -> LinkLostError:
        """Return the same error for one more who has to know; an instance is raised once."""
        return LinkLostError(str(self), written=written)


@final
class EndClosedError(KernelError):
    """The broker ended a link or its session; the others of the connection go on.

    Args:
        condition: Why, as AMQP names it, for example `amqp:not-found`.
        text: What the broker said.
        written: Whether a message that was to be sent may have reached the broker.
    """

    def __init__(self, condition: str, text: str, *, written: bool = False) -> None:
        self.condition = condition
        self.text = text
        self.written = written
        super().__init__(f"the broker ended the link: {condition} {text}".rstrip())

    def again(self, *, written: bool) -> EndClosedError:
        """Return the same error for one more who has to know; an instance is raised once."""
        return EndClosedError(self.condition, self.text, written=written)


@final
class LoginRefusedError(StartupError):
    """The broker does not let us in: user, password, mechanism or virtual host are not accepted."""

    def __init__(self, where: str, text: str) -> None:
        self.where = where
        super().__init__(f"{where} refused the login: {text}; see `username`, `password`, `mechanism`, `virtual_host`")


@final
class ManagementError(UnavailableError):
    """The HTTP API that declares queues and exchanges did not answer, or not as it should."""
