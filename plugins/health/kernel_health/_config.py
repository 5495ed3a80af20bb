"""What the user writes: the table of a dispatcher `health`, and the `config` of the application that is mounted."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any, final

import attrs
from attrs.validators import ge, gt, le

from kernel.abc import parse_host

MAX_SECONDS = 3600.0


@final
@attrs.frozen
class Address:
    """One place to listen at: a host and port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach it."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return what a `bind` means.

    Raises:
        ValueError: if it is neither `host:port`, `[ipv6]:port` nor `unix:/absolute/path`.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path or len(path.encode()) > 107:
            raise ValueError(f'"{repr(text)[1:-1]}" must be "unix:" and an absolute path of at most 107 bytes')
        return Address(path=path)
    host, port = parse_host(text, lowest=0, forms='"host:port" or "unix:/path"')
    return Address(host=host, port=port)


def _check_bind(instance: object, attribute: attrs.Attribute[Any], value: str | list[str]) -> None:
    for bind in [value] if isinstance(value, str) else value:
        parse_address(bind)


@attrs.frozen(kw_only=True)
class TruthConfig:
    """What is answered, and what counts as live and as ready."""

    stall: float = attrs.field(default=10.0, validator=[gt(0), le(MAX_SECONDS)])
    """Seconds that the event loop may be blocked before `/live` says that it is."""
    page: bool = False
    """Whether `/page` shows a browser what `/status` says."""
    degraded_is_ready: bool = True
    """Whether a service is ready while a component that it cannot do without works badly: a driver that has lost its
    connection, a worker that is paused."""
    degraded_timeout: float = attrs.field(default=300.0, validator=[gt(0), le(MAX_SECONDS)])
    """Seconds for which an essential driver may be degraded before the service is not ready, whatever
    `degraded_is_ready` says: what it is needed for waits meanwhile, here and not where it could be done."""


@final
@attrs.frozen(kw_only=True)
class HealthConfig(TruthConfig):
    """The table of a dispatcher `health`. Times are seconds."""

    bind: str | list[str] = attrs.field(default="127.0.0.1:8081", validator=_check_bind)
    """`host:port`, `[ipv6]:port` or `unix:/path`, or a list of them, which may be empty; port 0 lets the system choose."""
    insecure: bool = False
    """Whether plaintext may be spoken at an address that other machines can reach, as a Kubernetes node's."""
    max_connections: int = attrs.field(default=64, validator=[ge(1), le(1024)])
    """Open connections; more are closed as soon as they are accepted."""
    timeout: float = attrs.field(default=5.0, validator=[gt(0), le(MAX_SECONDS)])
    """That a connection may take, from its first to its last byte."""
    notify: bool = True
    """Whether systemd is told what becomes of the service, where `NOTIFY_SOCKET` is set."""

    @property
    def addresses(self) -> list[Address]:
        """What `bind` means."""
        return [parse_address(bind) for bind in ([self.bind] if isinstance(self.bind, str) else self.bind)]

    def problems(self) -> Iterable[str]:
        """Yield what no validator of a single field can see."""
        for address in self.addresses:
            if not (self.insecure or address.is_private):
                yield (
                    f'bind: "{address}" would tell others how the service is, in plaintext: '
                    "set insecure = true if that is meant, as for the probes of Kubernetes"
                )
