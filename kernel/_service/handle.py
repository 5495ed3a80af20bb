"""`kernel.Service`: a service as an object of a program: run here, opened for a while, or started as a process of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, final

from .._convert.folder import on_path
from .._manifest.manifest import load as load_manifest
from .._manifest.registry import discover
from .._manifest.values import toml_text
from .._plan.read import read_plan
from .._supervise.process import run
from .._supervise.reload import Again
from ..errors import StartupError
from .part_time import default_log
from .part_time import open as open_part

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from .._supervise.kernel import Result

_CHILD: Final = "kernel._cli.child"


@final
class Service:
    """A service by its manifest. `with Service("kernel.toml") as service:` starts a process, and stops it at the end.

    Args:
        manifest: Path of the file.
        overrides: `{"workers.shop.config.size": 3}`, as `--set` does it.
        overlays: Paths of files to lay over it.
        arguments: What would follow `--` on the command line.

    The process ends when this one does, however this one ends: it stops in order then.
    """

    def __init__(
        self,
        manifest: str | Path,
        *,
        overrides: Mapping[str, object] | None = None,
        overlays: Sequence[str | Path] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        self.manifest = Path(manifest)
        self._overrides = [f"{key}={toml_text(value)}" for key, value in (overrides or {}).items()]
        self._overlays = [str(overlay) for overlay in overlays]
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None

    def run(self, *, log: FilteringBoundLogger | None = None) -> Result:
        """Run it in this process until it ends. Call it from the main thread, outside of trio.

        Args:
            log: What components log to; structlog's, as the program has configured it, if None.

        Raises:
            InvalidError: if the manifest is wrong.
        """
        registry = discover()

        load = partial(
            load_manifest,
            self.manifest,
            environ=os.environ,
            overrides=self._overrides,
            overlays=self._overlays,
            arguments=self._arguments,
        )
        read = partial(read_plan, load, registry)

        with on_path(self.manifest.parent):
            return run(read(), log=log or default_log(), again=Again(read=read))

    def open(self) -> AbstractAsyncContextManager[Mapping[str, object]]:
        """Return what has it open in this process while inside: `kernel.open` of all of it."""
        return open_part(self.manifest, overrides=self._overrides, overlays=self._overlays, arguments=self._arguments)

    # --- a process of its own -------------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The id of its process; None if none was started, or it has been waited for."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    def start(self, *, within: float = 60.0) -> Self:
        """Start it as a process, and return when it is ready, or has run to its end. Its log goes to standard error.

        Args:
            within: Seconds that it may take.

        Raises:
            StartupError: if it fails or is stopped before, or takes longer: it has been stopped then.
            RuntimeError: if it runs already.
        """
        if self.pid is not None:
            raise RuntimeError(f"{self.manifest} runs already, as process {self.pid}")
        ready, ready_in_child = os.pipe()
        lifeline_in_child, self._lifeline = os.pipe()
        given = {
            "path": str(self.manifest),
            "overrides": self._overrides,
            "overlays": self._overlays,
            "arguments": self._arguments,
        }
        command = [sys.executable, "-m", _CHILD, str(ready_in_child), str(lifeline_in_child), json.dumps(given)]
        try:
            self._process = subprocess.Popen(command, pass_fds=(ready_in_child, lifeline_in_child))
        finally:
            os.close(ready_in_child)
            os.close(lifeline_in_child)
        try:
            self._await_ready(ready, within)
        finally:
            os.close(ready)
        return self

    def _await_ready(self, ready: int, within: float) -> None:
        readable, _, _ = select.select([ready], [], [], within)
        if readable and os.read(ready, 1):
            return
        ended = "did not become ready in time" if not readable else "ended"
        status = self.stop() if not readable else self.wait()
        raise StartupError(f"{self.manifest} {ended}, with status {status}, before it was ready")

    def reload(self) -> None:
        """Have the process read its manifest again, and return at once: its log says what came of it.

        Raises:
            RuntimeError: if none runs.
        """
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"{self.manifest} does not run")
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        """Stop the process in order, and return its exit status; 0 if there is none."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait until the process has ended, and return its exit status; 0 if there is none."""
        if self._process is None:
            return 0
        status = self._process.wait()
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        return status

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()
