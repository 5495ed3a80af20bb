"""The session: a context variable that goes from one side to the other in a header."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from kernel import Incoming, Outgoing
from kernel.errors import PermanentError

SESSION: ContextVar[str] = ContextVar("session", default="")
HEADER = "session-id"


class Session:
    """Takes the session of who sends along, and gives it to who handles."""

    @contextmanager
    def sending(self, outgoing: Outgoing) -> Generator[None]:
        """Add the header to what is sent in a session."""
        if session := SESSION.get():
            outgoing.headers[HEADER] = session
        yield

    @contextmanager
    def handling(self, incoming: Incoming) -> Generator[None]:
        """Have the handler in the session that its message was sent in; there is none without one."""
        session = str(incoming.headers.get(HEADER, ""))
        if not session:
            raise PermanentError("it was sent outside of any session")
        before = SESSION.set(session)
        try:
            yield
        finally:
            SESSION.reset(before)
