"""Every key of every plugin that takes an address, a header or a place to listen refuses what is none, and shows no password."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs
import pytest
from kernel_amqp import AmqpConfig, AmqpDriver
from kernel_amqp10 import Amqp10Config
from kernel_health import HealthConfig
from kernel_http import HttpConfig
from kernel_mongo import MongoConfig
from kernel_otel import OtelConfig
from kernel_postgres import PostgresConfig
from kernel_prometheus import PrometheusConfig
from kernel_redis import RedisConfig
from kernel_s3 import S3Config
from kernel_sentry import SentryConfig, SentryDriver
from kernel_stomp import StompConfig
from kernel_web import WebConfig
from kernel_websocket import WebSocketClientConfig
from kernel_zmq import PublishConfig, ReplyConfig

from kernel import Secret

CANARY = "yellow-feathers"

URLS = (
    "{}",
    "{}:",
    "{}://",
    "{}://:80",
    "{}://host:port",
    "{}://host:0",
    "{}://host:65536",
    "{}://ho st",
    "{}://host\n",
    "{}://host/\0",
    "{}://[::1",
)
FOREIGN = ("not a url", "127.0.0.1:80", "//host/path", "gopher://host/path", f"gopher://user:{CANARY}@host/path")
HOSTS = (
    "",
    ":1",
    "host:",
    "host:port",
    "host:65536",
    "host:-1",
    "host:1 ",
    "ho st:1",
    "host\n:1",
    "host\0:1",
    "::1:1",
    "[::1:1",
    "::1]:1",
    "[host]:1",
    "http://host:1",
    "host:1/path",
    f"user:{CANARY}@host:1",
    f"amqp://user:{CANARY}@host:1",
)
ENDPOINTS = (
    "",
    "nothing",
    "host:70000",
    "host:port",
    "tcp://",
    "tcp://host",
    "tcp://:1",
    "tcp://host:port",
    "tcp://host:65536",
    "tcp://ho st:1",
    "tcp://host:1\n",
    "http://host:1",
    "ipc://",
    "ipc://path\0",
    "inproc://",
)
HEADERS = (
    {"bad header": "x"},
    {"": "x"},
    {"a:": "x"},
    {"a": Secret(f"{CANARY}\nx")},
    {"a": Secret(f"{CANARY}\r\nb: c")},
    {"a": Secret(f"{CANARY}\0")},
    {"a": Secret(f"caf\u00e9{CANARY}")},
    {"a": Secret(f" {CANARY}")},
)
TOKENS = tuple(Secret(f"{CANARY}{end}") for end in ("\n", "\r\nx: y", "\0", "\u00e9"))


def urls(scheme: str, *more: str) -> tuple[str, ...]:
    plain = [url.format(scheme) for url in URLS]
    with_password = [url.replace("://", f"://user:{CANARY}@") for url in plain if "://" in url and "[" not in url]
    return (*plain, *with_password, *FOREIGN, *more)


@attrs.frozen
class Key:
    """A key of a table, and what it must not take."""

    config: Callable[..., object]
    name: str
    bad: tuple[Any, ...]
    wrapped: Callable[[Any], Any] = attrs.field(default=lambda value: value)
    check: Callable[[Any], Any] = attrs.field(default=lambda _: ())

    def refusals(self, value: object) -> Iterator[str]:
        try:
            config = self.config(**{self.name: self.wrapped(value)})
        except ValueError as error:
            yield str(error)
        else:
            yield from self.check(config)


def many(value: str) -> tuple[str]:
    return (value,)


KEYS = (
    Key(OtelConfig, "endpoint", urls("http")),
    Key(OtelConfig, "endpoint", urls("https"), Secret),
    Key(OtelConfig, "headers", HEADERS),
    Key(SentryConfig, "dsn", urls("https", "https://k@host/name", "https://host/1"), Secret, SentryDriver.check),
    Key(HttpConfig, "base_url", urls("http", f"http://u:{CANARY}@host", "http://host?a", "http://host#a")),
    Key(partial(HttpConfig, base_url="http://host"), "headers", HEADERS),
    Key(partial(HttpConfig, base_url="http://host"), "forward", ("bad header", "a:"), many),
    Key(S3Config, "endpoint_url", urls("http", f"http://u:{CANARY}@host", "http://host?a", "http://host#a")),
    Key(partial(MongoConfig, database="d"), "dsn", urls("mongodb", "mongodb://a,b:port", "mongodb://host/?a")),
    Key(partial(MongoConfig, database="d"), "dsn", urls("mongodb+srv"), Secret),
    Key(RedisConfig, "dsn", urls("redis", "redis://host/x", "unix://", "unix://path", "unix:///path?db=x")),
    Key(RedisConfig, "dsn", urls("rediss"), Secret),
    Key(PostgresConfig, "dsn", ("postgresql://h:port/d", "postgresql://h:0/d", "host=h port=x", "unknown=1", *FOREIGN)),
    Key(AmqpConfig, "url", urls("amqp", "amqp://host/a/b", "amqp://host?unknown=1"), Secret, AmqpDriver.check),
    Key(AmqpConfig, "hosts", HOSTS[1:], many),
    Key(Amqp10Config, "hosts", HOSTS[1:], many),
    Key(Amqp10Config, "management", urls("http", f"http://u:{CANARY}@host", "http://host?a")),
    Key(StompConfig, "hosts", HOSTS[1:], many),
    Key(WebSocketClientConfig, "url", urls("ws", f"ws://u:{CANARY}@host", "ws://host/#a")),
    Key(partial(WebSocketClientConfig, url="ws://host"), "token", TOKENS),
    Key(ReplyConfig, "bind", ENDPOINTS, many),
    Key(PublishConfig, "connect", ENDPOINTS, many),
    Key(PrometheusConfig, "bind", HOSTS),
    Key(HealthConfig, "bind", (*HOSTS, "unix:", "unix:path", "unix:/path\0")),
    Key(WebConfig, "bind", (*HOSTS, "unix:", "unix:path", "unix:/path\0", "fd:x")),
)


@pytest.mark.parametrize(
    ("key", "value"), [pytest.param(key, value, id=f"{key.name}-{value!a}") for key in KEYS for value in key.bad]
)
def test_what_is_none_is_refused_before_the_start_and_no_password_is_shown(key: Key, value: object) -> None:
    refusals = list(key.refusals(value))

    assert refusals
    assert CANARY not in "".join(refusals)
    assert all(text.isprintable() for text in refusals)
