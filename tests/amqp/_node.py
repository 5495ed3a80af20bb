"""A RabbitMQ node of the test's own, to be stopped, killed and starved: on free ports, in a folder of the test's.

It shares nothing with another node of this machine but `epmd`, the name service of Erlang, which it leaves running.
A start takes about 4 s, a stop 1 s.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from kernel.testing import free_port

PATIENCE = 60.0
"""Seconds in which a node must have started, on a machine that is busy."""
_SCRIPTS = (Path("/usr/lib/rabbitmq/bin"), Path("/usr/local/lib/rabbitmq/bin"), Path("/opt/rabbitmq/sbin"))


def scripts() -> Path | None:
    """Return where the programs of RabbitMQ are, or None if it is not installed.

    Debian's own in `PATH` change the user, and its environment with it.
    """
    found = shutil.which("rabbitmq-server")
    candidates = (*_SCRIPTS, *([Path(found).resolve().parent] if found else []))
    return next((path for path in candidates if (path / "rabbitmq-server").is_file()), None)


@attrs.define(eq=False)
class Node:
    """One node; its methods block, so asynchronous tests call them in a thread."""

    folder: Path
    programs: Path
    port: int = attrs.field(factory=free_port)
    plugins: tuple[str, ...] = ()
    """Those of its own plugins that are on; the folder's `rabbitmq.conf` says how."""
    _distribution: int = attrs.field(factory=free_port)
    _server: subprocess.Popen[bytes] | None = attrs.field(default=None, init=False)

    @property
    def name(self) -> str:
        return f"kernel-{os.getpid()}-{self.port}@localhost"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> float:
        """Start it and wait until it accepts connections; returns the seconds that it took."""
        began = time.monotonic()
        (self.folder / "pid").unlink(missing_ok=True)
        with (self.folder / "output").open("ab") as output:
            self._server = subprocess.Popen(
                [self.programs / "rabbitmq-server"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment(),
                start_new_session=True,  # a terminal's interrupt is the test's to handle
            )
        while not self._accepts():
            if self._server.poll() is not None or time.monotonic() - began > PATIENCE:
                raise AssertionError(f"the node {self.name} did not start:\n{self._tail()}")
            time.sleep(0.05)
        return time.monotonic() - began

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Stop it in order; what it holds stays in its folder."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait(PATIENCE)
            self._server = None

    def restart(self) -> float:
        """Stop it and start it again."""
        self.stop()
        return self.start()

    def kill(self) -> None:
        """Kill it as `kill -9` does; returns when it is gone."""
        if self._server is not None:
            self._kill_machine()
            with suppress(subprocess.TimeoutExpired):
                self._server.wait(5)
            self._kill_group()
            self._server.wait(PATIENCE)
            self._server = None

    def _kill_machine(self) -> None:
        """Kill Erlang's own process; the script that started it waits for it, and ends."""
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)

    def _kill_group(self) -> None:
        assert self._server is not None
        with suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` for this node; returns what it wrote."""
        command = [self.programs / "rabbitmqctl", "--quiet", "--node", self.name, *arguments]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"rabbitmqctl {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def waiting(self, queue: str) -> int:
        """Return how many messages a queue has, those in the hands of consumers included."""
        lines = self.control("list_queues", "--no-table-headers", "name", "messages").splitlines()
        return next(int(count) for name, count in (line.split("\t") for line in lines) if name == queue)

    def _tail(self) -> str:
        return "\n".join((self.folder / "output").read_text(errors="replace").splitlines()[-20:])

    def _environment(self) -> dict[str, str]:
        plugins = self.folder / "enabled_plugins"
        plugins.write_text(f"[{', '.join(self.plugins)}].\n")
        foreign = [name for name in os.environ if name.startswith("RABBITMQ_")]
        own = {
            "HOME": str(self.folder),  # where Erlang keeps its cookie
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",  # idle, it spins otherwise
        }
        return {**{name: value for name, value in os.environ.items() if name not in foreign}, **own}


@contextmanager
def running_node(folder: Path, programs: Path, *, plugins: tuple[str, ...] = ()) -> Iterator[Node]:
    """A node that runs; whatever the test did to it, it is gone afterwards."""
    node = Node(folder, programs, plugins=plugins)
    try:
        node.start()
        yield node
    finally:
        node.kill()
