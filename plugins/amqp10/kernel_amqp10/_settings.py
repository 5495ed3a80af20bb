"""What the manifest says of the way to the broker, as settings of a connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from kernel.errors import StartupError

from ._config import Amqp10Config, Amqp10TlsTable, parse_management
from .link.connect import LinkSettings
from .link.engine import EngineSettings
from .management.http import Api

_API_TIMEOUT: Final = 10.0


def link_settings(
    config: Amqp10Config, *, name: str, path: Callable[[str], Path] = Path, close_timeout: float
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
    is_rabbit = config.has_directory
    engine = EngineSettings(
        container=name,
        hostname=f"vhost:{config.virtual_host}" if is_rabbit and config.virtual_host != "/" else "",
        mechanism=config.mechanism,
        username=config.username,
        password=config.plain_password() if config.mechanism == "PLAIN" else "",
        idle_timeout=config.idle_timeout,
        max_frame_bytes=config.max_frame_bytes,
        max_message_bytes=config.max_message_bytes,
    )
    return LinkSettings(
        hosts=config.addresses,
        engine=engine,
        tls=None if config.tls is None else tls_context(config.tls, path),
        server_name="" if config.tls is None else config.tls.server_name,
        connect_timeout=config.connect_timeout,
        close_timeout=close_timeout,
    )


def api_of(config: Amqp10Config, *, path: Callable[[str], Path] = Path) -> Api:
    """Return RabbitMQ's HTTP API; an `https` one is verified as the table `tls` says.

    Raises:
        StartupError: if a file of the table `tls` cannot be used.
    """
    parts = parse_management(config.management)
    is_encrypted = parts.scheme == "https"
    return Api(
        url=parts._replace(path=f"{parts.path.rstrip('/')}/api"),
        username=config.username,
        password=config.plain_password(),
        timeout=_API_TIMEOUT,
        tls=tls_context(config.tls or Amqp10TlsTable(), path) if is_encrypted else None,
    )


def tls_context(table: Amqp10TlsTable, path: Callable[[str], Path] = Path) -> ssl.SSLContext:
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
        files = ", ".join(name for name in (table.ca, table.certificate, table.key) if name)
        raise StartupError(f"the table `tls` names files that cannot be used ({files}): {error}") from error
    if not table.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _key_password(table: Amqp10TlsTable) -> str:
    """Return what the key is encrypted with; OpenSSL would ask on the terminal, and wait for it."""
    if table.key_password is None:
        raise ValueError("the private key is encrypted: give `key_password`")
    return table.key_password.fresh()
