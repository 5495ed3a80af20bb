"""An ActiveMQ of the test's own, to be stopped and killed: on a free port, in a folder of the test's.

A start takes about 5 s. It is Debian's package `activemq`, run without its scripts, which need a user of their own.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from kernel.testing import free_port

from ..amqp._node import PATIENCE

LIBRARIES = Path("/usr/share/activemq")
_BEANS = Path("/usr/share/java")
_CONFIG = """\
<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans
  http://www.springframework.org/schema/beans/spring-beans-2.0.xsd
  http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" useJmx="false" brokerName="own" schedulerSupport="true"
      dataDirectory="{folder}/data" useShutdownHook="true">
    <persistenceAdapter>
      <kahaDB directory="{folder}/data/kahadb" journalMaxFileLength="4mb" preallocationStrategy="sparse_file"/>
    </persistenceAdapter>
    <plugins>
      <simpleAuthenticationPlugin>
        <users><authenticationUser username="guest" password="guest" groups="users"/></users>
      </simpleAuthenticationPlugin>
    </plugins>
    <transportConnectors>
      <transportConnector name="stomp" uri="stomp://127.0.0.1:{port}"/>
    </transportConnectors>
  </broker>
</beans>
"""


def activemq_is_here() -> bool:
    """Return whether it and a Java are installed."""
    return shutil.which("java") is not None and (LIBRARIES / "lib" / "activemq-stomp.jar").exists()


@attrs.define(eq=False)
class ActiveMq:
    """One server; its methods block, so asynchronous tests call them in a thread."""

    folder: Path
    port: int = attrs.field(factory=free_port)
    _server: subprocess.Popen[bytes] | None = attrs.field(default=None, init=False)

    @property
    def process(self) -> int:
        """The id of its process, while it runs."""
        assert self._server is not None
        return self._server.pid

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        config = self.folder / "activemq.xml"
        config.write_text(_CONFIG.format(folder=self.folder, port=self.port))
        jars = [*LIBRARIES.glob("bin/*.jar"), *LIBRARIES.glob("lib/*.jar"), *LIBRARIES.glob("lib/optional/*.jar")]
        path = ":".join(map(str, [*jars, *_BEANS.glob("xbean*.jar")]))
        main = ["org.apache.activemq.console.Main", "start", f"xbean:file:{config}"]
        places = [f"-Dactivemq.{name}={self.folder}" for name in ("base", "home", "data", "conf")]
        command = ["java", "-Xmx256m", "-XX:+UseSerialGC", *places, "-cp", path, *main]
        with (self.folder / "output").open("ab") as output:
            self._server = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        began = time.monotonic()
        while not self._accepts():
            if self._server.poll() is not None or time.monotonic() - began > PATIENCE:
                tail = (self.folder / "output").read_text(errors="replace")[-3000:]
                raise AssertionError(f"ActiveMQ did not start:\n{tail}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it in order."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait(PATIENCE)
            self._server = None

    def kill(self) -> None:
        """Kill it as `kill -9` does."""
        if self._server is not None:
            self._server.kill()
            self._server.wait(PATIENCE)
            self._server = None

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def running_activemq(folder: Path) -> Iterator[ActiveMq]:
    """A server that runs; whatever the test did to it, it is gone afterwards."""
    server = ActiveMq(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
