"""A PostgreSQL of its own: on a free port of loopback, in a folder that goes away with it, without syncs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import psycopg
import trustme

from kernel.testing import free_port

PASSWORD: Final = "correct horse"
_SETTINGS: Final = {
    "fsync": "off",
    "synchronous_commit": "on",
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "logging_collector": "off",
    "ssl": "on",
}


def programs() -> Path | None:
    """Return where initdb and postgres are; None if PostgreSQL is not installed."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


def _user() -> str | None:
    """PostgreSQL does not run as root."""
    return "postgres" if os.geteuid() == 0 else None


@attrs.define(eq=False)
class Cluster:
    """One server."""

    folder: Path
    programs: Path
    port: int
    password: str = PASSWORD
    _server: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return f"postgresql://tester@127.0.0.1:{self.port}/postgres"

    @property
    def ca(self) -> str:
        """The file of the authority that has signed the certificate of `localhost`."""
        return str(self.folder / "ca.pem")

    def start(self) -> None:
        files = dict.fromkeys(("ssl_cert_file", "ssl_key_file"), str(self.folder / "server.pem"))
        settings = {**_SETTINGS, **files}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), *options]
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(command, user=_user(), cwd="/", stdout=log, stderr=log)
        until = time.monotonic() + 30
        while not self.answers():
            is_starting = self._server.poll() is None and time.monotonic() < until
            assert is_starting, (self.folder / "log").read_text()
            time.sleep(0.02)

    def answers(self) -> bool:
        try:
            psycopg.connect(self.dsn, password=PASSWORD, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop; SIGQUIT ends it as a crash does, SIGINT ends it in order without waiting for clients."""
        if self._server is not None:
            self._server.send_signal(how)
            self._server.wait(30)
            self._server = None

    def query(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        """Ask by hand."""
        with psycopg.connect(self.dsn, password=PASSWORD, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def clients(self, name: str = "test") -> int:
        """How many connections of an application there are."""
        [(count,)] = self.query("SELECT count(*)::int FROM pg_stat_activity WHERE application_name = %s", name)
        assert isinstance(count, int)
        return count


@contextmanager
def open_cluster(folder: Path, binaries: Path) -> Generator[Cluster]:
    """Make a server and run it while inside."""
    data, secret = folder / "data", folder / "password"
    data.mkdir()
    secret.write_text(PASSWORD)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    (folder / "server.pem").chmod(0o600)
    for path in (folder, data, secret, folder / "server.pem"):
        if _user():
            shutil.chown(path, _user())
    for path in (folder, *folder.parents):  # pytest keeps its folders from other users
        if _user() and path.owner() == "root" and path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(0o711)
    words = [
        "--username=tester",
        f"--pwfile={secret}",
        "--auth=scram-sha-256",
        "--no-sync",
        "--encoding=UTF8",
        "--no-locale",
    ]
    subprocess.run(
        [binaries / "initdb", "-D", data, *words], user=_user(), cwd="/", check=True, stdout=subprocess.DEVNULL
    )
    cluster = Cluster(folder, binaries, free_port())
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
