"""What the user writes: the table of a dispatcher `prometheus`, and the `config` of the application that is mounted."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable
from typing import Any, final

import attrs
from attrs.validators import ge, gt, le

from kernel.abc import parse_host

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


def _check_bind(instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    split_address(value)


def _check_buckets(instance: object, attribute: attrs.Attribute[Any], value: tuple[float, ...]) -> None:
    if not 1 <= len(value) <= 100 or any(left >= right for left, right in itertools.pairwise(value)):
        raise ValueError("must be from 1 to 100 numbers, each greater than the one before")


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of a `bind`.

    Raises:
        ValueError: if it is neither `host:port` nor `[ipv6]:port`.
    """
    return parse_host(text, lowest=0, forms='"host:port" or "[ipv6]:port"')


@attrs.frozen(kw_only=True)
class MetricsConfig:
    """What is measured."""

    buckets: tuple[float, ...] = attrs.field(default=BUCKETS, validator=_check_buckets)
    """Seconds: the upper bounds of the buckets of histograms."""
    handlers: bool = False
    """Whether the time in handlers is measured, apart from that of their deliveries; it takes one more event for each."""
    max_series: int = attrs.field(default=1000, validator=[ge(1), le(100_000)])
    """Sets of label values that one metric may have; what has others is counted as `other`."""
    micro_framework: bool = False
    """Whether metrics have the names that micro-framework gave them, too, so that its dashboards go on."""


@final
@attrs.frozen(kw_only=True)
class PrometheusConfig(MetricsConfig):
    """The table of a dispatcher `prometheus`. Times are seconds."""

    bind: str = attrs.field(default="127.0.0.1:9464", validator=_check_bind)
    """`host:port` or `[ipv6]:port`; port 0 lets the system choose."""
    insecure: bool = False
    """Whether plaintext may be spoken at an address that other machines can reach, as a Prometheus elsewhere needs it."""
    max_connections: int = attrs.field(default=16, validator=[ge(1), le(1024)])
    """Open connections; more are closed as soon as they are accepted."""
    timeout: float = attrs.field(default=10.0, validator=[gt(0), le(3600.0)])
    """That a connection may take, from its first to its last byte."""

    def problems(self) -> Iterable[str]:
        """Yield what no validator of a single field can see."""
        host, _ = split_address(self.bind)
        try:
            is_private = host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            is_private = False
        if not (is_private or self.insecure):
            yield (
                f'bind: "{self.bind}" would tell others how the service is, in plaintext: '
                "set insecure = true if that is meant"
            )
