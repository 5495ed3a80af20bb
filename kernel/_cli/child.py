"""The process that `kernel.Service` starts: `python -m kernel._cli.child READY LIFELINE SOURCE`.

It writes to one pipe when the service is ready, or has run to its end, and stops when the other one is closed: its parent is gone then.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import NoReturn

from .._convert.folder import on_path
from .._core.events import EventHub, KernelReady
from .._manifest.registry import discover
from ..errors import InvalidError
from .console import complain
from .service import ServiceOptions, run_service
from .source import Source

_INVALID = 2


def main(ready: int, lifeline: int, given: str) -> int:
    """Run a service; return the exit status.

    Args:
        ready: A file descriptor, to be written to.
        lifeline: A file descriptor that is at its end when nobody wants the service any more.
        given: The fields of a `Source`, as JSON.
    """
    threading.Thread(target=_stop_at_end_of, args=(lifeline,), name="lifeline", daemon=True).start()
    fields = json.loads(given)
    source = Source(path=fields.pop("path"), **{key: tuple(value) for key, value in fields.items()})
    hub = EventHub()
    told: list[object] = []

    def tell(event: object) -> None:
        told.append(event)
        os.write(ready, b"1")

    hub.subscribe(tell, KernelReady)
    try:
        with on_path(Path(source.path).parent):
            registry = discover()
            again = partial(source.resolve_again, registry)
            result = run_service(source.resolve(registry), ServiceOptions(), hub=hub, shows=False, again=again)
    except InvalidError as error:
        complain(str(error))
        return _INVALID
    if result.ran_to_end and not told:  # before all was ready: it has started, and its end is for who waits for it
        tell(result)
    return int(result.status) or result.returned


def _stop_at_end_of(lifeline: int) -> None:
    os.read(lifeline, 1)  # nobody ever writes
    os.kill(os.getpid(), signal.SIGTERM)


def _end() -> NoReturn:
    # As the command line does: what is left over, such as threads, does not hold the process.
    status = main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _end()
