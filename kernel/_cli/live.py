"""The tree of a service on a terminal, written over while it comes up. The only module that knows rich."""

from __future__ import annotations

import sys
from contextlib import suppress
from types import TracebackType
from typing import Self, final

import rich.console
import rich.live
import rich.text

from .._core.events import Event
from .screen import Tree


@final
class LiveTree:
    """Shows the tree from entry until `close` or exit; what it shows last stays on the terminal.

    It has no thread: events move it. A terminal that breaks away ends the show and nothing else.
    """

    def __init__(self, tree: Tree, *, colour: bool) -> None:
        self._tree = tree
        self._colour = colour
        console = rich.console.Console(
            file=sys.stdout, no_color=not colour, highlight=False, force_terminal=True, markup=False
        )
        self._live = rich.live.Live(
            console=console,
            auto_refresh=False,
            redirect_stdout=False,
            # Where both are the same terminal, lines of the log must go above the tree, not through it.
            redirect_stderr=sys.stderr.isatty(),
            get_renderable=self._render,
        )
        self._open = False

    def __enter__(self) -> Self:
        try:
            self._live.start(refresh=True)
            self._open = True
        except OSError:
            pass
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def refresh(self, event: Event) -> None:
        """Show the tree as it is. Takes the event only to be a hook."""
        del event
        if self._open:
            try:
                self._live.refresh()
            except OSError:
                self.close()

    def close(self, event: Event | None = None) -> None:
        """Leave the tree as it is; later calls change nothing."""
        del event
        if self._open:
            self._open = False
            with suppress(OSError):
                self._live.stop()

    def _render(self) -> rich.text.Text:
        return rich.text.Text.from_ansi(self._tree.text(colour=self._colour), no_wrap=True, overflow="crop")
