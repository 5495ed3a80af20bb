"""TLS contexts from files: everything that can be wrong with them is a `StartupError` that says which file, and how.

Each file is looked at by itself before OpenSSL is given both: it does not say which of them it dislikes.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, TypeAlias, final

import attrs

from kernel.abc import read_regular
from kernel.errors import StartupError

from .._config import CertificateConfig, TlsConfig
from .pem import Pem, expiry_of

Pair: TypeAlias = TlsConfig | CertificateConfig

_OTHER_KEY: Final = "does not belong to its certificate"
_KEY_REASONS: Final = {
    "KEY_VALUES_MISMATCH": _OTHER_KEY,
    "KEY_TYPE_MISMATCH": _OTHER_KEY,
    "NO_CERTIFICATE_ASSIGNED": _OTHER_KEY,
}
_CERT_REASONS: Final = {
    "EE_KEY_TOO_SMALL": "has a key that is too short to be safe",
    "CA_MD_TOO_WEAK": "is signed with a digest that is not safe any more",
}


@final
@attrs.frozen(eq=False, repr=False)
class Loaded:
    """A certificate that can be used."""

    context: ssl.SSLContext
    expires: float
    """Seconds since 1970."""

    @property
    def is_expired(self) -> bool:
        """Whether no client takes it any more."""
        return self.expires <= time.time()

    @property
    def expired(self) -> str:
        """When that was, for people."""
        return time.strftime("expired on %Y-%m-%d at %H:%M:%S UTC", time.gmtime(self.expires))


def load_pair(config: TlsConfig, pair: Pair, where: str, *, authorities: bytes, h2: bool) -> Loaded:
    """Return the context of a server with a certificate and its key. Blocks.

    Args:
        config: What holds for all certificates.
        pair: Whose files these are; their paths are as the system has them.
        where: Its table, as the manifest calls it.
        authorities: One of which must have signed the certificates of clients, DER; empty asks for none.
        h2: Whether HTTP/2 is offered.

    Raises:
        StartupError: if a file cannot be read or is not what it should be.
    """
    first = _check_certificate(f"{where}.cert", pair.cert)
    key = _pem_of(f"{where}.key", pair.key, "PRIVATE KEY")
    context = _bare_context(config, h2=h2)
    _load(context, pair, where, key)
    if authorities:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=authorities)
    return Loaded(context, expiry_of(first))


def load_authorities(path: str) -> bytes:
    """Return the certificates of a file, one DER after the other. Blocks.

    Raises:
        StartupError: as `load_pair`.
    """
    return b"".join(_certificates("tls.ca", path))


def _bare_context(config: TlsConfig, *, h2: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if config.min_version == "1.3" else ssl.TLSVersion.TLSv1_2
    if config.ciphers:
        try:
            context.set_ciphers(config.ciphers)
        except ssl.SSLError as error:
            raise StartupError(f'tls.ciphers = "{config.ciphers}": none of them is known') from error
    context.set_alpn_protocols(["h2", "http/1.1"] if h2 else ["http/1.1"])
    return context


def _load(context: ssl.SSLContext, pair: Pair, where: str, key: Pem) -> None:
    # Without a password of our own, OpenSSL would ask for one at the terminal and block the loop.
    secret = pair.key_password.fresh() if pair.key_password else ""
    if key.is_encrypted and not secret:
        raise StartupError(f'{where}.key = "{pair.key}": is encrypted: does it need a key_password?')
    try:
        context.load_cert_chain(pair.cert, pair.key, lambda: secret)
    except (ssl.SSLError, OSError) as error:
        raise StartupError(_why_not_loaded(error, pair, where, key)) from error


def _why_not_loaded(error: OSError, pair: Pair, where: str, key: Pem) -> str:
    reason = getattr(error, "reason", None) or error.strerror or "wrong format"
    if reason in _CERT_REASONS:
        return f'{where}.cert = "{pair.cert}": {_CERT_REASONS[reason]}'
    guess = "does it need another key_password?" if key.is_encrypted else "is it damaged?"
    return f'{where}.key = "{pair.key}": {_KEY_REASONS.get(reason) or f"cannot be loaded ({reason}): {guess}"}'


# --- each file by itself --------------------------------------------------------------------------------------------


def _check_certificate(key: str, path: str) -> bytes:
    """Return the first certificate of a file, all of which are certificates."""
    return _certificates(key, path)[0]


def _certificates(key: str, path: str) -> list[bytes]:
    pem = _pem_of(key, path, "CERTIFICATE")
    for number, certificate in enumerate(pem.blocks, 1):
        of = f"certificate {number} of {len(pem.blocks)} " * (len(pem.blocks) > 1)
        with _named(key, path, f"{of}cannot be loaded (%s): is it damaged?"):
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificate)
    return list(pem.blocks)


def _pem_of(key: str, path: str, kind: str) -> Pem:
    try:
        data = read_regular(path)
    except OSError as error:
        raise StartupError(f'{key} = "{path}": {(error.strerror or str(error)).lower()}') from error
    pem = Pem.of(data, kind)
    if pem.problem:
        raise StartupError(f'{key} = "{path}": {pem.problem}')
    return pem


@contextmanager
def _named(key: str, path: str, text: str) -> Generator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise StartupError(f'{key} = "{path}": {text % (error.reason or "wrong format")}') from error
