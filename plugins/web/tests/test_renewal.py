"""Certificates that are renewed while the service opens, wherever their files are and whatever names them."""

from __future__ import annotations

import datetime
import functools
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
import trio
import trustme
from kernel_web import TlsConfig, WebConfig, WebDispatcher
from kernel_web._config import CertificateConfig
from kernel_web.server.files import Watched
from kernel_web.server.renewal import Certificates

from kernel.testing import fake_context


def write(ca: trustme.CA, folder: Path) -> None:
    fresh = ca.issue_cert("localhost")
    fresh.private_key_pem.write_to_path(str(folder / "key"))
    fresh.cert_chain_pems[0].write_to_path(str(folder / "cert"))


@pytest.mark.parametrize("is_relative", [True, False], ids=["beside-the-manifest", "absolute"])
@pytest.mark.parametrize("changed", ["main", "of-a-name"])
async def test_a_certificate_that_changes_while_the_service_opens_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_relative: bool, changed: str
) -> None:
    """A relative path is below the manifest's folder, wherever the service was started."""
    ca, elsewhere = trustme.CA(), tmp_path / "elsewhere"
    for folder in (elsewhere, tmp_path / "main", tmp_path / "of-a-name"):
        folder.mkdir()
        if folder != elsewhere:
            write(ca, folder)
    monkeypatch.chdir(elsewhere)
    start = "" if is_relative else f"{tmp_path}/"
    names = {"shop.example": CertificateConfig(cert=f"{start}of-a-name/cert", key=f"{start}of-a-name/key")}
    tls = TlsConfig(cert=f"{start}main/cert", key=f"{start}main/key", names=names, reload=0.05)
    context = attrs.evolve(fake_context("dispatcher/web"), directory=tmp_path)
    dispatcher = WebDispatcher(config=WebConfig(bind=("127.0.0.1:0",), tls=tls), context=context)

    async with dispatcher.open():
        server = dispatcher._server
        assert server is not None
        assert server.tls is not None
        asked = "shop.example" if changed == "of-a-name" else "localhost"
        first = certificate_for(server.tls, asked)
        write(ca, tmp_path / changed)
        with trio.fail_after(30):
            while certificate_for(server.tls, asked) == first:  # noqa: ASYNC110  nothing tells
                await trio.sleep(0.01)


# --- each by itself -------------------------------------------------------------------------------------------------


def certificate_for(server: ssl.SSLContext, name: str) -> bytes:
    """Return the certificate that a client is shown who asks for a name."""
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for each in (asking, answering, asking):
        with suppress(ssl.SSLWantReadError):
            each.do_handshake()
    shown = asking.getpeercert(binary_form=True)
    assert shown is not None
    return shown


@attrs.frozen
class Farm:
    """Certificates of three hosts, and what the log says of them."""

    certificates: Certificates
    ca: trustme.CA
    folder: Path
    logs: list[dict[str, Any]]

    def renew_file(self, host: str) -> None:
        write(self.ca, self.folder / host)

    def shown(self, host: str) -> bytes:
        return certificate_for(self.certificates.context, host)

    def warnings(self) -> list[str]:
        return [str(log["reason"]) for log in self.logs if log["level"] == "warning"]


@pytest.fixture
async def farm(tmp_path: Path) -> Farm:
    ca, logs = trustme.CA(), list[dict[str, Any]]()
    ca.cert_pem.write_to_path(str(tmp_path / "ca"))

    def files(host: str) -> dict[str, str]:
        (tmp_path / host).mkdir()
        write(ca, tmp_path / host)
        return {"cert": str(tmp_path / host / "cert"), "key": str(tmp_path / host / "key")}

    names = {host: CertificateConfig(**files(host)) for host in ("shop", "desk")}
    config = TlsConfig(**files("main"), ca=str(tmp_path / "ca"), names=names)
    certificates = Certificates(config, True, recorder(logs))
    await certificates.open()
    return Farm(certificates, ca, tmp_path, logs)


def recorder(logs: list[dict[str, Any]]) -> Any:
    def record(_logger: object, method: str, event: Any) -> str:
        logs.append({"level": method, **event})
        raise structlog.DropEvent

    return structlog.wrap_logger(None, processors=[record], wrapper_class=structlog.make_filtering_bound_logger(0))


HOSTS = ("main", "shop", "desk")


@pytest.mark.parametrize("broken", HOSTS)
async def test_a_broken_certificate_holds_up_no_other(farm: Farm, broken: str) -> None:
    before = {host: farm.shown(host) for host in HOSTS}
    for host in HOSTS:
        farm.renew_file(host)
    (farm.folder / broken / "cert").write_text("x")
    refused = await farm.certificates.renew()
    again = await farm.certificates.renew()
    after = {host: farm.shown(host) for host in HOSTS}

    assert [host for host in HOSTS if after[host] == before[host]] == [broken]
    [reason] = refused
    assert f"{broken}/cert" in reason
    assert again == refused
    assert farm.warnings() == refused  # once, although it was asked for twice


async def test_what_was_refused_is_taken_once_it_is_good(farm: Farm) -> None:
    before = farm.shown("shop")
    (farm.folder / "shop" / "cert").write_text("x")
    await farm.certificates.renew()
    (farm.folder / "shop" / "cert").write_text("y")
    await farm.certificates.renew()
    farm.renew_file("shop")
    refused = await farm.certificates.renew()

    assert refused == []
    assert farm.shown("shop") != before
    assert len(farm.warnings()) == 2  # each change is told


async def test_authorities_that_are_no_good_hold_up_no_certificate(farm: Farm) -> None:
    before = farm.shown("main")
    (farm.folder / "ca").write_text("x")
    farm.renew_file("main")
    refused = await farm.certificates.renew()

    assert [reason.partition(" = ")[0] for reason in refused] == ["tls.ca"]
    assert farm.shown("main") != before
    assert farm.certificates.context.get_ca_certs(binary_form=True) == [der_of(farm.ca)]


async def test_other_authorities_hold_for_all_certificates(farm: Farm) -> None:
    others = trustme.CA()
    others.cert_pem.write_to_path(str(farm.folder / "ca"))
    refused = await farm.certificates.renew()
    contexts = [farm.certificates.context, *farm.certificates._others.values()]

    assert refused == []
    assert [context.get_ca_certs(binary_form=True) for context in contexts] == [[der_of(others)]] * 3


def der_of(ca: trustme.CA) -> bytes:
    return ssl.PEM_cert_to_DER_cert(ca.cert_pem.bytes().decode())


async def test_a_certificate_that_has_expired_does_not_replace_one_that_is_good(farm: Farm) -> None:
    before = farm.shown("main")
    old = farm.ca.issue_cert("localhost", not_after=datetime.datetime(2021, 2, 3, tzinfo=datetime.UTC))
    old.private_key_pem.write_to_path(str(farm.folder / "main" / "key"))
    old.cert_chain_pems[0].write_to_path(str(farm.folder / "main" / "cert"))
    refused = await farm.certificates.renew()

    assert refused == [f'tls.cert = "{farm.folder}/main/cert": expired on 2021-02-03 at 00:00:00 UTC']
    assert farm.shown("main") == before


async def test_a_pipe_in_the_place_of_a_file_is_refused_at_once_and_forgotten(farm: Farm) -> None:
    before, path = farm.shown("main"), farm.folder / "main" / "cert"
    path.unlink()
    os.mkfifo(path)
    refused = await farm.certificates.renew()
    path.unlink()
    farm.renew_file("main")
    later = await farm.certificates.renew()

    assert refused == [f'tls.cert = "{path}": is no regular file']
    assert later == []
    assert farm.shown("main") != before


# --- what does not answer -------------------------------------------------------------------------------------------


class Hanging:
    """Files of which reading one hangs, as on a file system whose server is away."""

    def __init__(self, path: Path) -> None:
        self.answers, self.reads, self.path = threading.Event(), 0, path
        self.taken: list[int] = []

    def read(self) -> int:
        self.reads += 1
        self.answers.wait()
        return self.reads

    async def take(self, found: int) -> None:
        await trio.lowlevel.checkpoint()
        self.taken.append(found)


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Hanging]:
    files = Hanging(tmp_path / "cert")
    yield files
    files.answers.set()


async def test_a_file_that_does_not_answer_is_told_once_and_read_when_it_answers(hanging: Hanging) -> None:
    logs: list[dict[str, Any]] = []
    watched = Watched("tls", [str(hanging.path)], hanging.read, hanging.take, recorder(logs), within=0.02)
    refused = [await watched.look(anew=True) for _ in range(3)]
    hanging.answers.set()
    with trio.fail_after(30):
        while await watched.look(anew=True):
            pass

    assert all(reason.startswith(f'tls: "{hanging.path}" does not answer since ') for reason in refused)
    assert [log["event"] for log in logs if log["level"] == "warning"] == [
        "a file does not answer, its changes are not noticed"
    ]
    assert logs[0]["path"] == str(hanging.path)
    assert hanging.taken == [hanging.reads] == [2]  # one thread hung, and no second beside it


async def test_an_end_waits_for_no_file(hanging: Hanging) -> None:
    watched = Watched("tls", [str(hanging.path)], hanging.read, hanging.take, recorder([]), within=3600.0)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(watched.look, anew=True))
            while not hanging.reads:  # noqa: ASYNC110  a thread
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()

    assert not hanging.answers.is_set()
