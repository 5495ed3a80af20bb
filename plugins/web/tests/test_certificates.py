"""A certificate file that is no good is named, with what is wrong with it: the key is not blamed for its certificate."""

from __future__ import annotations

import base64
import datetime
import os
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from kernel_web import TlsConfig
from kernel_web.wire.certificate import load_authorities, load_pair
from kernel_web.wire.pem import expiry_of

from kernel import Secret
from kernel.errors import StartupError

CA = trustme.CA()


@attrs.frozen
class Files:
    cert: Path
    key: Path
    password: Secret | None = None


def written(folder: Path) -> Files:
    fresh = CA.issue_cert("localhost")
    files = Files(folder / "tls.crt", folder / "tls.key")
    files.cert.write_bytes(b"".join(blob.bytes() for blob in fresh.cert_chain_pems) + CA.cert_pem.bytes())
    fresh.private_key_pem.write_to_path(str(files.key))
    return files


def load(files: Files) -> float:
    config = TlsConfig(cert=str(files.cert), key=str(files.key), key_password=files.password)
    return load_pair(config, config, "tls", authorities=b"", h2=True).expires


def der(path: Path) -> bytes:
    return base64.b64decode(b"".join(path.read_bytes().split(b"-----")[2].split()))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def cut_chain(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def to_der(path: Path) -> None:
    path.write_bytes(der(path))


def damage(path: Path) -> None:
    """Be base64 between the right lines, and nothing else that is right."""
    head, _, rest = path.read_bytes().partition(b"-----\n")
    path.write_bytes(head + b"-----\nAAAA\n-----END" + rest.partition(b"-----END")[2])


def garble(path: Path) -> None:
    head, _, rest = path.read_bytes().partition(b"-----\n")
    path.write_bytes(head + b"-----\n!" + rest)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def locked(path: Path) -> None:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert not isinstance(key, str)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )


def locked_as_before(path: Path) -> None:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )


def of_another(path: Path) -> None:
    CA.issue_cert("other").private_key_pem.write_to_path(str(path))


def of_another_kind(path: Path) -> None:
    CA.issue_cert("other", key_type=trustme.KeyType.RSA).private_key_pem.write_to_path(str(path))


def swapped(path: Path) -> None:
    path.write_bytes((path.parent / ("tls.key" if path.suffix == ".crt" else "tls.crt")).read_bytes())


CAUSES: list[tuple[str, Callable[[Path], None], str]] = [
    ("crt", cut, "ends early, in the midst of a certificate: was it written only half?"),
    ("crt", cut_chain, "ends early, in the midst of a certificate: was it written only half?"),
    ("crt", to_der, "is DER, and must be PEM: has no PEM certificate in it"),
    ("crt", damage, "certificate 1 of 2 cannot be loaded ("),
    ("crt", garble, "has a certificate that cannot be loaded (no base64): is it damaged?"),
    ("crt", swapped, "has no PEM certificate in it, but: "),
    ("crt", lambda path: path.write_text("x"), "has no PEM certificate in it"),
    ("crt", lambda path: path.write_text(""), "is empty: has no PEM certificate in it"),
    ("crt", Path.unlink, "no such file or directory"),
    ("crt", pipe, "is no regular file"),
    ("crt", folder, "is a directory"),
    ("key", cut, "ends early, in the midst of a private key: was it written only half?"),
    ("key", to_der, "is DER, and must be PEM: has no PEM private key in it"),
    ("key", damage, "cannot be loaded ("),
    ("key", swapped, "has no PEM private key in it, but: certificate"),
    ("key", Path.unlink, "no such file or directory"),
    ("key", pipe, "is no regular file"),
    ("key", of_another, "does not belong to its certificate"),
    ("key", of_another_kind, "does not belong to its certificate"),
    ("key", locked, "is encrypted: does it need a key_password?"),
    ("key", locked_as_before, "is encrypted: does it need a key_password?"),
]


@pytest.mark.parametrize(("which", "spoil", "reason"), CAUSES)
def test_what_is_wrong_with_which_file_is_told(
    tmp_path: Path, which: str, spoil: Callable[[Path], None], reason: str
) -> None:
    files = written(tmp_path)
    key, path = ("tls.cert", files.cert) if which == "crt" else ("tls.key", files.key)
    spoil(path)

    with pytest.raises(StartupError) as caught:
        load(files)

    assert str(caught.value).startswith(f'{key} = "{path}": {reason}')


@pytest.mark.parametrize("lock", [locked, locked_as_before])
@pytest.mark.parametrize("password", ["swordfish", "hunter2"])
def test_a_password_is_told_from_a_wrong_one(tmp_path: Path, lock: Callable[[Path], None], password: str) -> None:
    files = attrs.evolve(written(tmp_path), password=Secret(password))
    lock(files.key)
    told = ""
    try:
        load(files)
    except StartupError as error:
        told = str(error)

    assert told.endswith("does it need another key_password?") is (password == "swordfish")
    assert told.startswith(f'tls.key = "{files.key}": ') is (password == "swordfish")


@pytest.mark.parametrize("spoil", [cut, to_der, damage, garble, pipe, folder, Path.unlink])
def test_the_file_of_authorities_is_looked_at_likewise(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = tmp_path / "ca.pem"
    CA.cert_pem.write_to_path(str(path))
    spoil(path)

    with pytest.raises(StartupError, match=r'^tls\.ca = ".*ca\.pem": '):
        load_authorities(str(path))


@pytest.mark.parametrize("year", [2031, 2049, 2050, 2099])
def test_until_when_a_certificate_is_good_is_read_from_it(tmp_path: Path, year: int) -> None:
    """From 2050 on it is written in another way."""
    end = datetime.datetime(year, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
    files = written(tmp_path)
    CA.issue_cert("localhost", not_after=end).cert_chain_pems[0].write_to_path(str(files.cert))

    assert expiry_of(der(files.cert)) == end.timestamp()
    assert expiry_of(der(files.cert)) > time.time()


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x80", b"\x30\x03\x30\x01\x02", bytes(range(48, 90))])
def test_what_is_no_certificate_says_nothing_of_its_end(data: bytes) -> None:
    assert expiry_of(data) == float("inf")


def test_a_good_pair_is_loaded_whatever_stands_around_it(tmp_path: Path) -> None:
    files = written(tmp_path)
    files.cert.write_bytes(b"subject=/CN=localhost\n" + files.cert.read_bytes() + b"\n# end\n")
    files.key.write_bytes(files.cert.read_bytes() + files.key.read_bytes())

    assert load(files) > time.time()
