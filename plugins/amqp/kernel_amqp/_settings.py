"""What the manifest says of the way to the broker, as settings of a connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from kernel.errors import StartupError

from ._config import AmqpConfig, TlsTable
from .core import Settings
from .link.connect import LinkSettings


def link_settings(
    config: AmqpConfig, *, name: str, path: Callable[[str], Path] = Path, close_timeout: float
) -> LinkSettings:
    """Return how to reach the broker.

    Args:
        config: What the manifest says.
        name: What the connection is called.
        path: Returns where a file is that the table `tls` names.
        close_timeout: Seconds for the last words.

    Raises:
        StartupError: if a file of the table `tls` cannot be used.
    """
    core = Settings(
        virtual_host=config.virtual_host,
        mechanism=config.mechanism,
        response=config.sasl_response(),
        heartbeat=config.heartbeat,
        max_message_bytes=config.max_message_bytes,
        properties={"product": "kernel", "connection_name": name},
    )
    return LinkSettings(
        hosts=config.addresses,
        core=core,
        tls=None if config.tls is None else tls_context(config.tls, path),
        server_name="" if config.tls is None else config.tls.server_name,
        connect_timeout=config.connect_timeout,
        close_timeout=close_timeout,
    )


def tls_context(table: TlsTable, path: Callable[[str], Path] = Path) -> ssl.SSLContext:
    """Return what is verified, and how we prove who we are.

    Args:
        table: What the manifest says.
        path: Returns where a file is that it names.

    Raises:
        StartupError: if a file cannot be read or is no certificate or key.
    """
    try:
        context = ssl.create_default_context(cafile=path(table.ca) if table.ca else None)
        if table.certificate:
            context.load_cert_chain(path(table.certificate), path(table.key) if table.key else None)
    except (OSError, ssl.SSLError) as error:
        raise StartupError(f"the table `tls` names files that cannot be used ({_files(table)}): {error}") from error
    if not table.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _files(table: TlsTable) -> str:
    return ", ".join(path for path in (table.ca, table.certificate, table.key) if path)
