"""Where the dispatcher listens, and what it says when it cannot."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from kernel_web import OpenApiConfig, TlsConfig, WebConfig, WebDispatcher, WebOptions
from kernel_web._config import parse_address

from kernel.abc import Candidate
from kernel.errors import StartupError
from kernel.testing import fake_context, free_port


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def dispatcher(**config: Any) -> WebDispatcher:
    return WebDispatcher(config=WebConfig(**config), context=fake_context("dispatcher/web"))


async def open_and_close(**config: Any) -> None:
    async with dispatcher(**config).open():
        pass


async def test_every_address_is_listened_at(web: Any, tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with web(hello, bind=["127.0.0.1:0", "[::1]:0", f"unix:{path}"]) as service:
        texts = []
        for number, address in enumerate(service.addresses):
            transport = httpx.AsyncHTTPTransport(uds=str(path) if number == 2 else None)
            async with httpx.AsyncClient(transport=transport) as client:
                texts.append((await client.get("http://x/" if number == 2 else address)).text)
        mode = stat.S_IMODE(path.stat().st_mode)

    assert texts == ["hello"] * 3
    assert service.addresses[2] == f"http+unix:{path}"
    assert mode == 0o600
    assert not path.exists()


async def test_an_address_in_use_names_its_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartupError) as caught:
            await open_and_close(bind=["127.0.0.1:0", address])

    assert str(caught.value).startswith(f"{address}: address already in use (pid {os.getpid()}, ")
    assert str(caught.value).endswith("): stop who listens there, or bind another port")


async def test_all_addresses_are_given_up_if_one_fails() -> None:
    port = free_port()
    with pytest.raises(StartupError):
        await open_and_close(bind=[f"127.0.0.1:{port}", "203.0.113.1:80"], insecure=True)

    await open_and_close(bind=f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("bind", "message"),
    [
        (
            "203.0.113.1:8080",
            '203.0.113.1:8080: this machine has no such address: bind one of its own, or "0.0.0.0" for all',
        ),
        ("no-such-host.invalid:80", 'no-such-host.invalid:80: the host "no-such-host.invalid" cannot be found'),
    ],
)
async def test_an_address_that_is_no_good_is_named(bind: str, message: str) -> None:
    with pytest.raises(StartupError) as caught:
        await open_and_close(bind=bind, insecure=True)

    assert str(caught.value) == message


async def test_a_socket_left_behind_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    await open_and_close(bind=f"unix:{path}")

    async with dispatcher(bind=f"unix:{path}").open():
        with pytest.raises(StartupError) as caught:
            await open_and_close(bind=f"unix:{path}")
        still_there = path.exists()

    assert str(caught.value).startswith(f"unix:{path}: address already in use (pid {os.getpid()}, ")
    assert str(caught.value).endswith("): stop who listens there, or bind another path")
    assert still_there


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(StartupError):
        await open_and_close(bind=f"unix:{path}")

    assert path.read_text() == "data"


def test_two_workers_with_one_prefix_are_a_problem_of_the_plan() -> None:
    prefixes = {"app": "/a", "other": "/b", "twin": "/a"}
    workers = {name: Candidate(worker=None, options=WebOptions(prefix=prefix)) for name, prefix in prefixes.items()}
    problems = list(WebDispatcher.check_workers(WebConfig(), workers))

    told = 'worker/app and worker/twin both have the prefix "/a", which only those may that bring a router'
    assert problems == [told]


async def test_accepting_needs_an_open_dispatcher() -> None:
    with pytest.raises(RuntimeError, match="dispatcher/web is not open"):
        await dispatcher().accept(None, task_status=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        "host",
        ":80",
        "h:",
        "h:x",
        "h:65536",
        "h:-1",
        "::1:80",
        "[h]:80",
        "unix:",
        "unix:x",
        "h:\uff18\uff10",
    ],
)
def test_an_address_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_address(text)


@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:8080", "localhost:80", "0.0.0.0:1", "unix:/run/x"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"bind": "0.0.0.0:80"}, 1),
        ({"bind": ["[::]:80", "example.org:80", "127.0.0.1:80"]}, 2),
        ({"bind": "0.0.0.0:80", "insecure": True}, 0),
        ({"bind": "0.0.0.0:80", "tls": TlsConfig(cert="c", key="k")}, 0),
        ({"bind": ["localhost:80", "127.1.2.3:80", "[::1]:80", "unix:/x"]}, 0),
    ],
)
def test_plaintext_for_other_machines_must_be_asked_for(config: dict[str, Any], count: int) -> None:
    problems = list(WebDispatcher.check(WebConfig(**config)))

    assert len(problems) == count
    assert all("insecure = true" in problem for problem in problems)


NUMBERS = [field.name for field in attrs.fields(WebConfig) if field.type in {"int", "float"}]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, 10**12, float("nan")], ids=str)
def test_every_number_has_a_range(name: str, value: float) -> None:
    with pytest.raises((ValueError, TypeError)):
        WebConfig(**{name: value})


A_PATH = "a path such as /api/v1, without //, ?, #, spaces and a / at its end"


@pytest.mark.parametrize("prefix", ["", "api", "/api/", "//", "/a?b", "/a b"])
def test_a_prefix_is_a_path_without_a_last_slash(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix") as caught:
        WebOptions(prefix=prefix)

    assert caught.value.args[0] == f"'prefix' must be / or {A_PATH}, got {prefix!r}"


@pytest.mark.parametrize("path", ["api", "/", "/api/", "//", "/a?b", "/a b"])
@pytest.mark.parametrize(
    ("config", "name"),
    [(WebConfig, "root_path"), (OpenApiConfig, "path"), (OpenApiConfig, "docs")],
    ids=["root_path", "path", "docs"],
)
def test_what_may_be_empty_is_a_path_without_a_last_slash(config: type, name: str, path: str) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        config(**{name: path})

    assert caught.value.args[0] == f"'{name}' must be empty or {A_PATH}, got {path!r}"


@pytest.mark.parametrize("path", ["/sales", "/api/v1", "/~a/*", ""])
def test_what_may_be_empty_takes_paths(path: str) -> None:
    assert WebConfig(root_path=path).root_path == path
