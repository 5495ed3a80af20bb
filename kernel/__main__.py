"""`python -m kernel`, and what the script `kernel` calls."""

from __future__ import annotations

import os
import signal
from typing import Final, NoReturn

from ._cli.collecting import without_collecting

TERMINATED: Final = 143
"""128 + SIGTERM, as shells have it."""


def main() -> NoReturn:
    """Run the command line and end the process with its status; does not return."""
    if os.getpid() == 1:  # in a container: a signal that process 1 has no handler for is lost, and imports take long
        signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(TERMINATED))
    with without_collecting():
        from ._cli.cli import main as run_command  # noqa: PLC0415  after the handler, since it takes long
    run_command()


if __name__ == "__main__":
    main()
