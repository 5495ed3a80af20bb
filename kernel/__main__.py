"""`python -m kernel`, and what the script `kernel` calls."""

from __future__ import annotations

from ._cli.cli import main

if __name__ == "__main__":
    main()
