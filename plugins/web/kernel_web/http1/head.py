"""The head of a request: its grammar, and everything that makes it ambiguous or unwelcome.

Strict where RFC 9112 leaves a choice: whatever two programs could read in two ways is refused, so that nothing can be
smuggled past a proxy in front of this server. Nothing here does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, final

from ..asgi.fields import FIELD, TOKEN, is_host

LINE: Final = re.compile(rb"(%b) ([\x21\x22\x24-\x7e]++) HTTP/([0-9]\.[0-9])\r\n" % TOKEN)
HEAD: Final = re.compile(rb"%b((?:%b)*+)\r\n" % (LINE.pattern, FIELD))
_WHOLE_URL: Final = re.compile(rb"(?i:https?)://([^/?]++)([^?]*+)(\?.*+)?", re.DOTALL).fullmatch
_DECIMAL: Final = re.compile(rb"[0-9]++").fullmatch
_MAX_DIGITS: Final = 18
_NOTED: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"})
CHUNKED: Final = -1
"""The length of a body that comes in chunks."""


class RefusedError(Exception):
    """A client is told a status, and its connection ends: what it sent cannot be served, or is understood in two ways."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason
        self.method, self.target, self.version = "-", b"-", "-"
        """What it asked for, as far as that could be read."""
        self.headers: list[tuple[bytes, bytes]] = []

    def tell(self, method: bytes, target: bytes = b"-", version: bytes = b"-") -> None:
        """Say what it was that the client asked for."""
        self.method, self.target, self.version = method.decode(), target, version.decode()


@final
class Head:
    """What a client asks for. `target` is in origin form, or `*`."""

    __slots__ = ("expects", "headers", "keep_alive", "length", "method", "target", "upgrade", "version")

    def __init__(self, method: bytes, target: bytes, version: bytes, block: bytes) -> None:
        """Read a head whose grammar is known to be right.

        Raises:
            RefusedError: if it can be read in two ways, or asks for what no server here does.
        """
        self.method = method.decode()
        self.target = target
        self.version = version.decode()
        self.length = 0
        self.keep_alive = version == b"1.1"
        self.expects = False
        """The client waits for `100 Continue` before it sends its body."""
        self.upgrade = b""
        """The protocol that it would rather speak, in small letters."""
        self.headers: list[tuple[bytes, bytes]] = []
        noted: dict[bytes, list[bytes]] = {}
        for line in block.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b":")
            name = name.lower()
            value = value.strip(b" \t")
            self.headers.append((name, value))
            if name in _NOTED:
                noted.setdefault(name, []).append(value)
        try:
            self._judge(noted)
        except RefusedError as error:
            error.tell(method, target, version)
            error.headers = self.headers
            raise

    def again(self, method: bytes, target: bytes) -> Head:
        """Return a head that differs from this one in method and path alone, which no verdict on it depends on.

        Args:
            method: Of the other.
            target: Of the other; this one's is in origin form as well.
        """
        twin = Head.__new__(Head)
        twin.method = method.decode()
        twin.target = target
        twin.version = self.version
        twin.length = self.length
        twin.keep_alive = self.keep_alive
        twin.expects = self.expects
        twin.upgrade = self.upgrade
        twin.headers = self.headers.copy()
        return twin

    def _judge(self, noted: dict[bytes, list[bytes]]) -> None:
        if self.version not in {"1.1", "1.0"}:
            raise RefusedError(505, "neither HTTP/1.1 nor HTTP/1.0")
        self._judge_host(noted.get(b"host", ()))
        if b"transfer-encoding" in noted or b"content-length" in noted:
            self._judge_length(noted.get(b"content-length", ()), noted.get(b"transfer-encoding", ()))
        if self.target[:1] != b"/":
            self._judge_target()
        if b"connection" in noted or b"upgrade" in noted:
            self._judge_connection(noted.get(b"connection", ()), noted.get(b"upgrade", ()))
        if b"expect" in noted and self.version == "1.1":
            self.expects = [value.lower() for value in noted[b"expect"]] == [b"100-continue"]
            if not self.expects:
                raise RefusedError(417, "an expectation that nobody knows")

    def _judge_host(self, hosts: Sequence[bytes]) -> None:
        if len(hosts) > 1 or (not hosts and self.version == "1.1"):
            raise RefusedError(400, "not one Host")
        if hosts and not is_host(hosts[0]):
            raise RefusedError(400, "a Host that cannot be one")

    def _judge_length(self, lengths: Sequence[bytes], codings: Sequence[bytes]) -> None:
        if (lengths and codings) or len(lengths) > 1 or (codings and self.version == "1.0"):
            raise RefusedError(400, "the length of the body is told in two ways")
        if codings:
            self._judge_codings(b",".join(codings).lower())
            self.length = CHUNKED
        elif _DECIMAL(lengths[0]) is None:
            raise RefusedError(400, "a Content-Length that is no number")
        else:
            digits = lengths[0].lstrip(b"0") or b"0"
            self.length = int(digits[:_MAX_DIGITS])
            if len(digits) > _MAX_DIGITS:
                raise RefusedError(413, "a body that no disk could hold")

    def _judge_codings(self, codings: bytes) -> None:
        names = [name.strip(b" \t") for name in codings.split(b",")]
        if names[-1] != b"chunked" or names.count(b"chunked") > 1:
            raise RefusedError(400, "a body whose end cannot be known")
        if len(names) > 1:
            raise RefusedError(501, "a transfer coding that nobody knows")

    def _judge_target(self) -> None:
        """Bring a target that is a whole URL into origin form; its host takes the place of Host (RFC 9112, 3.2.2)."""
        if self.method == "CONNECT":
            raise RefusedError(501, "this is no proxy")
        if self.target == b"*" and self.method == "OPTIONS":
            return
        found = _WHOLE_URL(self.target)
        if found is None or not found[1] or b"@" in found[1] or not is_host(found[1]):
            raise RefusedError(400, "a target that is neither a path nor a URL")
        self.target = (found[2] or b"/") + (found[3] or b"")
        self.headers = [(b"host", found[1]), *(field for field in self.headers if field[0] != b"host")]

    def _judge_connection(self, options: Sequence[bytes], upgrades: Sequence[bytes]) -> None:
        tokens = {token.strip(b" \t") for token in b",".join(options).lower().split(b",")}
        if b"close" in tokens:
            self.keep_alive = False
        if b"upgrade" in tokens and self.version == "1.1":
            self.upgrade = b",".join(upgrades).lower().strip(b" \t")
