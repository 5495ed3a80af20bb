"""What can go wrong on a connection, each kind as a type of its own.

    LinkError (UnavailableError)         no connection could be made
    ├── LinkLostError                    the connection is gone
    └── LateError                        the server has not answered; the connection may be there
    LoginRefusedError (StartupError)     the server does not let this user in, or not to this host

In STOMP every mistake ends the connection: `LinkLostError.word` tells which it was, if the server said so.
"""

from __future__ import annotations

from typing import final

from kernel.errors import StartupError, UnavailableError


class LinkError(UnavailableError):
    """No connection to a server could be made."""


@final
class LinkLostError(LinkError):
    """The connection to the server is gone.

    Args:
        reason: What happened, and where.
        text: What the server said in its frame ERROR; empty if it did not say anything.
        written: Whether something of what was asked may have reached the server; False means certainly not.
    """

    def __init__(self, reason: str, *, text: str = "", written: bool = False) -> None:
        self.reason = reason
        self.text = text
        self.written = written
        super().__init__(reason)

    def again(self, *, written: bool) -> LinkLostError:
        """Return the same error for one more who has to know; an instance is raised once."""
        error = LinkLostError(self.reason, text=self.text, written=written)
        error.__cause__ = self.__cause__
        return error


@final
class LateError(LinkError):
    """The server has not answered in time; whether it did what was asked is not known.

    Args:
        seconds: How long it had.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the server has not answered within {seconds:g} s")


@final
class LoginRefusedError(StartupError):
    """The server does not let this user in, or not to this host.

    Args:
        where: `host:port`.
        text: What the server said.
    """

    def __init__(self, where: str, text: str) -> None:
        self.where = where
        self.text = text
        super().__init__(f"{where} refused the login: {text}; check `login`, `passcode` and `host`")
