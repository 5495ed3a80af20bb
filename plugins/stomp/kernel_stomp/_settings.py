"""What the manifest says of the way to the server, as settings of a connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kernel.errors import StartupError

from ._config import StompConfig, TlsTable
from .core import Limits
from .link.connect import LinkSettings


def link_settings(config: StompConfig, path: Callable[[str], Path] = Path) -> LinkSettings:
    """Return how to reach the server; secrets and certificates are read anew where they are in files.

    Args:
        config: What the manifest says.
        path: Returns where a file is that the table `tls` names.

    Raises:
        StartupError: if a file of the table `tls` cannot be used.
    """
    headers = {"login": config.login, "passcode": config.secret()} if config.login else {}
    host = config.host or ("/" if config.server == "rabbitmq" else "")
    return LinkSettings(
        hosts=config.addresses,
        headers=headers | ({"host": host} if host else {}),
        heartbeat=config.heartbeat,
        limits=Limits(body=config.max_message_bytes),
        tls=None if config.tls is None else tls_context(config.tls, path),
        server_name="" if config.tls is None else config.tls.server_name,
        connect_timeout=config.connect_timeout,
    )


def tls_context(table: TlsTable, path: Callable[[str], Path] = Path) -> ssl.SSLContext:
    """Return what is verified, and how we prove who we are.

    Raises:
        StartupError: if a file cannot be read or is no certificate or key.
    """
    try:
        context = ssl.create_default_context(cafile=path(table.ca) if table.ca else None)
        if table.certificate:
            key = path(table.key) if table.key else None
            context.load_cert_chain(path(table.certificate), key, password=partial(_key_password, table))
    except (OSError, ValueError, ssl.SSLError) as error:
        raise StartupError(f"the table `tls` names files that cannot be used ({_files(table)}): {error}") from error
    if not table.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _key_password(table: TlsTable) -> str:
    """Return what the key is encrypted with; OpenSSL would ask on the terminal, and wait for it."""
    if table.key_password is None:
        raise ValueError("the private key is encrypted: give `key_password`")
    return table.key_password.fresh()


def _files(table: TlsTable) -> str:
    return ", ".join(path for path in (table.ca, table.certificate, table.key) if path)
