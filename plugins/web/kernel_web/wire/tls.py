"""TLS without I/O: bytes of the socket to bytes of the client, and back."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any, Final, final

_READ_BYTES: Final = 64 * 1024


@final
class Tls:
    """The server's side of one connection."""

    __slots__ = ("_incoming", "_object", "_outgoing", "ended")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.ended = False
        """The client said that nothing more comes."""

    @property
    def alpn(self) -> str:
        """The protocol that was agreed on; empty if none was."""
        return self._object.selected_alpn_protocol() or ""

    @property
    def client_certificate(self) -> dict[str, Any] | None:
        """What the certificate of the client says, None if it has shown none."""
        return self._object.getpeercert() or None

    def shake(self, data: bytes) -> bool:
        """Take bytes of the handshake; return whether it is complete.

        Raises:
            ssl.SSLError: if the client does it wrong, or shows no good certificate.
        """
        self._incoming.write(data)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def decrypt(self, data: bytes) -> bytes:
        """Return what the client says.

        Raises:
            ssl.SSLError: if that is no TLS.
        """
        if data:
            self._incoming.write(data)
        pieces: list[bytes] = []
        with suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while piece := self._object.read(_READ_BYTES):
                pieces.append(piece)
            self.ended = True
        return b"".join(pieces)

    def encrypt(self, data: bytes) -> bytes:
        """Return what says it to the client."""
        self._object.write(data)
        return self._outgoing.read()

    def pending(self) -> bytes:
        """Return what TLS itself has to say."""
        return self._outgoing.read()

    def close(self) -> bytes:
        """Return what tells the client that nothing more comes."""
        with suppress(ssl.SSLError):
            self._object.unwrap()
        return self._outgoing.read()
