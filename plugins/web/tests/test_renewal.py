"""Certificates that are renewed while the service opens, wherever their files are and whatever names them."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio
import trustme
from kernel_web import TlsConfig, WebConfig, WebDispatcher
from kernel_web._config import CertificateConfig

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
        assert dispatcher._server is not None
        first = dispatcher._server.tls
        write(ca, tmp_path / changed)
        with trio.fail_after(30):
            while dispatcher._server.tls is first:  # noqa: ASYNC110  nothing tells
                await trio.sleep(0.01)
