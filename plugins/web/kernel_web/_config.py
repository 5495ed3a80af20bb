"""What the user writes: the dispatcher's table, its `tls` table and the `options` of its workers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any, Final, Literal, final

import attrs
from attrs.validators import ge, gt, le

from kernel import Secret
from kernel.abc import ByFields, parse_host

MAX_SECONDS = 3600.0
MAX_BYTES = 2**31 - 1
LISTENERS_MAX = 64
_PATH_OR_NONE: Final = re.compile(r"|(/[^/?#\s]+)+")
_PATH_OR_ROOT: Final = re.compile(r"/|(/[^/?#\s]+)+")


@final
@attrs.frozen(eq=False, repr=False)
class Address(ByFields):
    """One place to listen at: a host and port, the path of a unix socket, or a descriptor that listens already."""

    host: str = ""
    port: int = 0
    path: str = ""
    fd: int | None = None

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach it."""
        if self.path or self.host == "localhost" or self.fd is not None:  # a descriptor is looked at when it is opened
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.fd is not None:
            return f"fd:{self.fd}"
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return what a `bind` means.

    Raises:
        ValueError: if it is neither `host:port`, `[ipv6]:port`, `unix:/absolute/path` nor `fd:number`.
    """
    if text.startswith("fd:"):
        number = text.removeprefix("fd:")
        if not (number.isascii() and number.isdecimal() and len(number) <= 6):
            raise ValueError(f'"{text}" must be "fd:" and the number of a descriptor')
        return Address(fd=int(number))
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path or len(path.encode()) > 107:
            raise ValueError(f'"{repr(text)[1:-1]}" must be "unix:" and an absolute path of at most 107 bytes')
        return Address(path=path)
    host, port = parse_host(text, lowest=0, forms='"host:port" or "unix:/path"')
    return Address(host=host, port=port)


def _check_bind(instance: object, attribute: attrs.Attribute[Any], value: str | list[str]) -> None:
    binds = [value] if isinstance(value, str) else value
    if not 1 <= len(binds) <= LISTENERS_MAX:
        raise ValueError(f"must name from 1 to {LISTENERS_MAX} addresses")
    for bind in binds:
        parse_address(bind)


def _check_hosts(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    for host in value:
        if not re.fullmatch(r"(\*\.)?[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\]", host):
            raise ValueError(f'"{host}" must be a name without a port, or "*." and one')


def _check_networks(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    for network in value:
        if network != "unix":
            ipaddress.ip_network(network)


def _check_path(instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    _check_form(attribute, value, _PATH_OR_NONE, "empty")


def _check_prefix(instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    _check_form(attribute, value, _PATH_OR_ROOT, "/")


def _check_form(attribute: attrs.Attribute[Any], value: str, form: re.Pattern[str], other: str) -> None:
    if not form.fullmatch(value):
        rule = f"{other} or a path such as /api/v1, without //, ?, #, spaces and a / at its end"
        # With what attrs' `matches_re` has along, too: the JSON schema takes its pattern from there.
        raise ValueError(f"'{attribute.name}' must be {rule}, got {value!r:.60}", attribute, form, value)


def _check_seconds(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"must be from 0 to {MAX_SECONDS:g} seconds")


def _check_bytes(instance: object, attribute: attrs.Attribute[Any], value: int | None) -> None:
    if value is not None and not 0 <= value <= MAX_BYTES:
        raise ValueError(f"must be from 0 to {MAX_BYTES} bytes")


def _check_names(instance: object, attribute: attrs.Attribute[Any], value: dict[str, CertificateConfig]) -> None:
    for name in value:
        if not re.fullmatch(r"(\*\.)?[0-9a-z_-]+(\.[0-9a-z_-]+)*", name):
            raise ValueError(f'"{name}" must be a name in small letters, or "*." and one')


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class CertificateConfig(ByFields):
    """One certificate of several."""

    cert: str
    """Path of the certificate chain, PEM."""
    key: str
    """Path of its private key, PEM."""
    key_password: Secret | None = None
    """What the key is encrypted with."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class TlsConfig(ByFields):
    """The `tls` table."""

    cert: str
    """Path of the certificate chain, PEM."""
    key: str
    """Path of its private key, PEM."""
    key_password: Secret | None = None
    """What the key is encrypted with."""
    ca: str = ""
    """Path of the authorities, PEM, one of which must have signed the client's certificate; empty asks for none."""
    names: dict[str, CertificateConfig] = attrs.field(factory=dict[str, CertificateConfig], validator=_check_names)
    """Certificates for those who ask for a host by name (SNI); `*.example.org` is one label below. Others get `cert`."""
    min_version: Literal["1.2", "1.3"] = "1.2"
    """The oldest version spoken."""
    ciphers: str = ""
    """Those of TLS 1.2, as OpenSSL writes them; empty takes what Python thinks right."""
    reload: float = attrs.field(default=60.0, validator=[ge(0), le(MAX_SECONDS)])
    """Seconds between two looks whether the files have changed; 0 looks only when the service is reloaded."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class OpenApiConfig(ByFields):
    """The `openapi` table: the document that the routers of all workers have together."""

    title: str = "API"
    version: str = "0.1.0"
    description: str = ""
    path: str = attrs.field(default="/openapi.json", validator=_check_path)
    """Where it is; empty for nowhere."""
    docs: str = attrs.field(default="/docs", validator=_check_path)
    """Where it is shown to people; empty for nowhere."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class WebConfig(ByFields):
    """The table of a `web` dispatcher. Times are seconds."""

    bind: str | list[str] = attrs.field(default="127.0.0.1:8080", validator=_check_bind)
    """`host:port`, `[ipv6]:port`, `unix:/path` or `fd:number`, or a list of them; port 0 lets the system choose."""
    reuse_port: bool = False
    """Whether other processes of the same user may listen at the same address and port, and share the clients."""
    insecure: bool = False
    """Whether plaintext may be spoken at an address that other machines can reach."""
    unix_mode: int = attrs.field(default=0o600, validator=[ge(0), le(0o777)])
    """Permissions of unix sockets."""
    backlog: int = attrs.field(default=256, validator=[ge(1), le(65535)])
    """Connections that the system holds until they are accepted."""
    tls: TlsConfig | None = None
    h2: bool = True
    """Whether HTTP/2 is offered over TLS."""
    h2c: bool = False
    """Whether a client may start HTTP/2 without TLS (prior knowledge; never by upgrade)."""
    max_connections: int = attrs.field(default=1000, validator=[ge(1), le(1_000_000)])
    """Open connections; more are closed as soon as they are accepted."""
    max_connections_per_ip: int = attrs.field(default=0, validator=[ge(0), le(1_000_000)])
    """Open connections from one address; 0 sets no limit, as behind a proxy."""
    header_timeout: float = attrs.field(default=5.0, validator=[gt(0), le(MAX_SECONDS)])
    """For the TLS handshake, and again from the first byte of a request (or the start) to the end of its headers."""
    body_timeout: float = attrs.field(default=30.0, validator=[gt(0), le(MAX_SECONDS)])
    """That a request may wait for its body in all; time in which its application does not read is not counted."""
    body_pause_timeout: float = attrs.field(default=10.0, validator=[gt(0), le(MAX_SECONDS)])
    """Between two pieces of a body."""
    body_buffer_bytes: int = attrs.field(default=32 * 1024, validator=[ge(0), le(60 * 1024)])
    """Of a body that must have arrived, if it is that long, before its request takes a slot; 0 calls the application at
    once, for those that answer while they are still being asked."""
    slot_timeout: float = attrs.field(default=10.0, validator=[gt(0), le(MAX_SECONDS)])
    """That a request may wait for a slot; then it is answered 503."""
    max_waiting: int = attrs.field(default=1000, validator=[ge(0), le(1_000_000)])
    """Requests that may wait for a slot; more are answered 503 at once."""
    max_websockets: int = attrs.field(default=1000, validator=[ge(0), le(1_000_000)])
    """Open websockets, which take no slot; more are answered 503."""
    write_timeout: float = attrs.field(default=10.0, validator=[gt(0), le(MAX_SECONDS)])
    """In which a client must take the next 64 KiB of what it is sent."""
    keep_alive_timeout: float = attrs.field(default=5.0, validator=[gt(0), le(MAX_SECONDS)])
    """That a connection may stay open with nothing to do."""
    request_timeout: float = attrs.field(default=0.0, validator=[ge(0), le(MAX_SECONDS)])
    """That an application may take for a request, not for a websocket; 0 sets no limit."""
    max_body_bytes: int = attrs.field(default=2**20, validator=[ge(0), le(MAX_BYTES)])
    max_header_bytes: int = attrs.field(default=16 * 1024, validator=[ge(256), le(2**20)])
    """Of all headers of a request together; the request line may be as long again."""
    websocket_max_bytes: int = attrs.field(default=2**20, validator=[ge(1), le(MAX_BYTES)])
    """Of one message that is received."""
    websocket_ping: float = attrs.field(default=20.0, validator=[ge(0), le(MAX_SECONDS)])
    """Between two pings to a websocket; 0 sends none."""
    websocket_pong_timeout: float = attrs.field(default=20.0, validator=[gt(0), le(MAX_SECONDS)])
    """In which a ping must be answered."""
    websocket_compression: bool = False
    """Whether messages of websockets may be compressed (permessage-deflate, nothing kept between messages)."""
    allowed_hosts: tuple[str, ...] = attrs.field(default=(), validator=_check_hosts)
    """Names that `Host` may have, without a port; `*.example.org` is any below. Empty allows all. Others are a 400."""
    root_path: str = attrs.field(default="", validator=_check_path)
    """A prefix that a proxy has taken off every path; applications see it again."""
    trusted_proxies: tuple[str, ...] = attrs.field(default=(), validator=_check_networks)
    """Addresses and networks, or `unix`, that are believed when they say for whom they ask."""
    proxy_headers: Literal["x-forwarded", "forwarded", "none"] = "x-forwarded"
    """Where they say so: `X-Forwarded-For` and `X-Forwarded-Proto`, `Forwarded` (RFC 7239), or not in a header. What a
    proxy does not write, a client may."""
    proxy_protocol: bool = False
    """Whether each connection begins with a header of the PROXY protocol, version 1 or 2; others are closed."""
    openapi: OpenApiConfig = attrs.field(factory=OpenApiConfig)
    """Of the routers that workers bring; without one there is no document."""
    access_log: Literal["off", "text", "json"] = "off"
    """Whether each request is written down, and how."""
    access_log_file: str = ""
    """Path of the file that it is added to; empty for standard output."""
    server_header: bool = False
    """Whether answers say which server wrote them."""

    @property
    def addresses(self) -> list[Address]:
        """What `bind` means."""
        return [parse_address(bind) for bind in ([self.bind] if isinstance(self.bind, str) else self.bind)]

    @property
    def shortest_timeout(self) -> float:
        """Seconds of the shortest of its time limits."""
        times = (
            self.header_timeout,
            self.body_timeout,
            self.body_pause_timeout,
            self.write_timeout,
            self.keep_alive_timeout,
            self.request_timeout,
            self.websocket_ping,
            self.websocket_pong_timeout,
        )
        return min(time for time in times if time)

    def problems(self) -> Iterable[str]:
        """Yield what no validator of a single field can see."""
        if self.tls is None and not self.insecure:
            for address in self.addresses:
                if not address.is_private:
                    yield (
                        f'bind: "{address}" would speak plaintext that others can read: '
                        'add a "tls" table, or set insecure = true'
                    )
        if self.proxy_protocol and not self.trusted_proxies:
            yield "proxy_protocol: nobody may connect: name the proxies in trusted_proxies"


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class WebOptions(ByFields):
    """The `options` table of a worker."""

    prefix: str = attrs.field(default="/", validator=_check_prefix)
    """The paths that the worker serves: this one and everything below; the longest prefix wins."""
    request_timeout: float | None = attrs.field(default=None, validator=_check_seconds)
    """In place of the dispatcher's."""
    max_body_bytes: int | None = attrs.field(default=None, validator=_check_bytes)
    """In place of the dispatcher's."""
    concurrency: int = attrs.field(default=0, validator=[ge(0), le(1_000_000)])
    """Requests that its application works on at a time, besides the dispatcher's limit; more wait. 0 sets no limit."""
    asyncio: bool = False
    """Whether the application runs in asyncio, over a bridge that another plugin brings."""
