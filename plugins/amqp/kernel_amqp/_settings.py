"""What the manifest says of the way to the broker, as settings of a connection."""

from __future__ import annotations

import os
import platform
import socket
import ssl
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

from kernel.errors import StartupError

from ._config import AmqpConfig, TlsTable
from .core import Settings
from .link.connect import LinkSettings


def link_settings(
    config: AmqpConfig, *, name: str, role: str = "", path: Callable[[str], Path] = Path, close_timeout: float
) -> LinkSettings:
    """Return how to reach the broker.

    Args:
        config: What the manifest says.
        name: What the connection is called, unless the manifest says so.
        role: What it is for, which is told apart in its name.
        path: Returns where a file is that the table `tls` names.
        close_timeout: Seconds for the last words.

    Raises:
        StartupError: if a file of the table `tls` cannot be used, or `url` was changed to what is none.
    """
    try:
        config = config.without_url()
    except ValueError as error:
        raise StartupError(f"`url`: {error}") from None
    core = Settings(
        virtual_host=config.virtual_host,
        mechanism=config.mechanism,
        response=config.sasl_response(),
        heartbeat=config.heartbeat,
        max_message_bytes=config.max_message_bytes,
        properties=_client(f"{config.connection_name or name} {role}".rstrip()),
    )
    return LinkSettings(
        hosts=config.addresses,
        core=core,
        tls=None if config.tls is None else tls_context(config.tls, path),
        server_name="" if config.tls is None else config.tls.server_name,
        connect_timeout=config.connect_timeout,
        close_timeout=close_timeout,
    )


def _client(name: str) -> dict[str, object]:
    """Return what RabbitMQ shows of us."""
    return {
        "product": "kernel",
        "version": version("trio-kernel-amqp"),
        "platform": f"Python {platform.python_version()}",
        "connection_name": name,
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }


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
