"""What a manifest says of the outside is checked, and never shown."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from kernel import Secret
from kernel.abc import check_http_headers, check_http_url, parse_url

CANARY = "yellow-feathers"


@attrs.frozen
class Table:
    url: str | Secret | None = attrs.field(default=None, validator=check_http_url)
    headers: Any = attrs.field(factory=dict[str, str], validator=check_http_headers)


NO_URLS = [
    "",
    "not a url",
    "127.0.0.1:4318",
    "localhost",
    "//host/path",
    "http:",
    "http:host",
    "http://",
    "http:///path",
    "http://:80",
    "http://host:port",
    "http://host:0",
    "http://host:65536",
    "http://host:-1",
    "http://ho st",
    "http://host/a b",
    "http://host\n",
    "http://host/\r\nx: y",
    "http://host/\0",
    "http://[::1",
    "ftp://host/y",
    "file:///etc/passwd",
]


@pytest.mark.parametrize("url", [*NO_URLS, *(f"{url}?key={CANARY}" for url in NO_URLS)])
@pytest.mark.parametrize("given", [str, Secret])
def test_what_is_no_address_is_refused_and_not_shown(url: str, given: Any) -> None:
    with pytest.raises(ValueError, match=r"url.*http://") as caught:
        Table(given(url))

    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://host", "HTTP://Host:80/", "https://[::1]:4318/v1?key=x", "http://u:p@host", "https://h\u00f6st/"]
)
def test_an_address_is_one(url: str) -> None:
    assert Table(url).url == url
    assert Table(Secret(url)).url == Secret(url)


def test_other_schemes_are_for_who_names_them() -> None:
    assert parse_url("wss://host:1/p", "ws", "wss").port == 1
    with pytest.raises(ValueError, match="it must begin with ws:// or wss://"):
        parse_url("http://host", "ws", "wss")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (f"{CANARY}\n", "line break"),
        (f"{CANARY}\r\nx: y", "line break"),
        (f"\0{CANARY}", "control character"),
        (f"{CANARY}\x7f", "control character"),
        (f"caf\u00e9{CANARY}", "ASCII"),
        (f"\U0001f600{CANARY}", "ASCII"),
        (f" {CANARY}", "space"),
        (f"{CANARY}\t", "space"),
    ],
)
@pytest.mark.parametrize("given", [str, Secret])
def test_a_value_that_no_header_can_have_is_refused_and_not_shown(value: str, problem: str, given: Any) -> None:
    with pytest.raises(ValueError, match=f"'headers' has a value for `x-token` .*{problem}") as caught:
        Table(headers={"x-token": given(value)})

    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("name", ["", "bad header", "x:", "a\n", "a\r\nb", "\u00e4", "(x)", "a/b", "a\0"])
def test_a_name_that_no_header_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="'headers' has the name"):
        Table(headers={name: "x"})


@pytest.mark.parametrize("value", ["", "Bearer x.y-z~+/=", "a\tb", 'quote "d"; q=0.1'])
def test_a_header_is_one(value: str) -> None:
    assert Table(headers={"X-Token_1": value}).headers
