"""TLS without I/O: bytes of the socket to bytes of the client, and back."""

from __future__ import annotations

import re
import ssl
from contextlib import suppress
from typing import Any, Final, final

_RECORD: Final = 16 * 1024
"""Bytes that a record holds at most: who asks for more has that much memory made ready for nothing."""
_HTTP: Final = frozenset({"HTTP_REQUEST", "HTTPS_PROXY_REQUEST"})
"""What OpenSSL takes for HTTP: GET, HEAD, POST, PUT and CONNECT."""
_TOLD: Final = b"This address speaks TLS: ask with https.\n"
_PLAIN: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
    b"connection: close\r\n\r\n%b" % (len(_TOLD), _TOLD)
)
_VERSIONS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_SHORT: Final = {
    "commonName": "CN",
    "countryName": "C",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
}
_SPECIAL: Final = re.compile(r'([,+"\\<>;=]|^[ #]| $)').sub


@final
class Tls:
    """The server's side of one connection."""

    __slots__ = ("_incoming", "_object", "_outgoing", "answered", "ended")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.answered = 0
        """Bytes of body of the answer to who speaks HTTP."""
        self.ended = False
        """The client said that nothing more comes."""

    @property
    def alpn(self) -> str:
        """The protocol that was agreed on; empty if none was."""
        return self._object.selected_alpn_protocol() or ""

    def extension(self) -> dict[str, Any]:
        """Return what ASGI's extension `tls` says of the connection; call it after the handshake."""
        chain = self._object.getpeercert(binary_form=True)
        certificate = self._object.getpeercert() or {}
        return {
            "server_cert": None,
            "client_cert_chain": [ssl.DER_cert_to_PEM_cert(chain)] if chain else [],
            "client_cert_name": _name(certificate.get("subject", ())) if chain else None,
            "client_cert_error": None,
            "tls_version": _VERSIONS.get(self._object.version() or ""),
            "cipher_suite": None,
        }

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
        incoming = self._incoming
        if data:
            incoming.write(data)
        piece = self._next_piece()
        if not incoming.pending or not piece:  # nearly always: one record came, and the next would have to be asked for
            return piece
        pieces = [piece]
        while incoming.pending and (piece := self._next_piece()):
            pieces.append(piece)
        return b"".join(pieces)

    def _next_piece(self) -> bytes:
        """Return what the next whole record says; nothing if there is none, or it is the last."""
        try:
            piece = self._object.read(_RECORD)
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLZeroReturnError:
            piece = b""
        self.ended = not piece
        return piece

    def encrypt(self, data: bytes) -> bytes:
        """Return what says it to the client."""
        self._object.write(data)
        return self._outgoing.read()

    def pending(self) -> bytes:
        """Return what TLS itself has to say."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def complaint(self, error: OSError) -> bytes:
        """Return what tells the client why its handshake failed: in HTTP, if that is what it speaks."""
        if getattr(error, "reason", "") not in _HTTP:
            return self.pending()
        self.answered = len(_TOLD)
        return _PLAIN

    def close(self) -> bytes:
        """Return what tells the client that nothing more comes."""
        with suppress(ssl.SSLError):
            self._object.unwrap()
        return self._outgoing.read()


def _name(subject: Any) -> str:  # noqa: ANN401  tuples of tuples of pairs
    """Return a distinguished name as RFC 4514 writes it: the most special part first."""
    parts = [
        "+".join(f"{_SHORT.get(key, key)}={_SPECIAL(_ESCAPED, value)}" for key, value in relative)
        for relative in reversed(subject)
    ]
    return ",".join(parts)


_ESCAPED: Final = r"\\\1"
