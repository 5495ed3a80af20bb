"""A Python shell in the event loop of a service, with its drivers by name; from a terminal, or from a pipe."""

from __future__ import annotations

import ast
import code
import sys
import traceback
import types
from collections.abc import Mapping
from contextlib import suppress
from inspect import CO_COROUTINE
from pathlib import Path
from typing import Final, cast, final

import trio
from typing_extensions import override

from .._core.spec import DriverSpec, Plan
from .._plan.part import free_id, part_of
from .guest import guest

HISTORY: Final = Path("~/.kernel_history")
"""What was typed in a terminal, for the next time."""
_SHORT: Final = ("call", "publish")
"""Methods that are at hand by their names where one driver alone has them."""


@final
class Shell:
    """One session; `plan` is what has to be served for it.

    Args:
        plan: Of the service.
        everything: Whether workers run and dispatchers accept, too; else only drivers are open.
    """

    def __init__(self, plan: Plan, *, everything: bool) -> None:
        self.status = 0
        """1 if something that came from a pipe raised; what `sys.exit` was called with."""
        drivers = {spec.name: id_ for id_, spec in plan.components.items() if isinstance(spec, DriverSpec)}
        ids = plan.components if everything else drivers.values()
        worker = guest(plan, free_id(plan, "shell"), self._session, drivers=drivers)
        self._name = plan.name
        self.plan = part_of(plan, ids, user=worker)

    async def _session(self, **drivers: object) -> None:  # noqa: ASYNC910  the thread is waited for
        console = _Console(_at_hand(drivers), self)
        try:
            # In a thread: who waits for a line of a terminal waits for somebody.
            await trio.to_thread.run_sync(console.session, self._banner(drivers), abandon_on_cancel=True)
        except SystemExit as error:
            self.status = console.exited(error.code)

    def _banner(self, drivers: Mapping[str, object]) -> str:
        names = ", ".join(drivers) or "no drivers"
        return f"{self._name}: {names}. `await` works at the top. Ctrl-D ends it."


def _at_hand(drivers: Mapping[str, object]) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "__console__", "trio": trio, **drivers}
    for word in _SHORT:
        having = [one for one in drivers.values() if callable(getattr(type(one), word, None))]
        if len(having) == 1:
            names.setdefault(word, getattr(having[0], word))
    return names


@final
class _Console(code.InteractiveConsole):
    """Reads in a thread, and runs in the event loop."""

    def __init__(self, names: dict[str, object], shell: Shell) -> None:
        super().__init__(names)
        self._names = names
        self._shell = shell
        self._is_terminal = sys.stdin.isatty()
        self._is_ended = False
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

    def session(self, banner: str) -> None:
        """Read and run until the end of the input."""
        if self._is_terminal:
            _use_readline(self._names)
            self.interact(banner, exitmsg="")
            _keep_history()
        else:
            self.interact("", exitmsg="")
            if self.buffer:
                self._fail(f"the input ends inside of a statement, which is not run: {self.buffer[0]}\n")

    def exited(self, code: object) -> int:
        """Return the status of `sys.exit`, as Python has it."""
        if code is None or isinstance(code, int):
            return code or 0
        self.write(f"{code}\n")
        return 1

    @override
    def raw_input(self, prompt: str = "") -> str:
        if self._is_terminal:
            return super().raw_input(prompt)
        line = sys.stdin.readline()
        if not line and (self._is_ended or not self.buffer):
            raise EOFError
        self._is_ended = not line  # an empty line ends a block that nothing follows
        return line.rstrip("\n")

    @override
    def write(self, data: str) -> None:
        if self._is_terminal or data.strip():
            sys.stderr.write(data)

    @override
    def runcode(self, code: types.CodeType) -> None:
        try:
            trio.from_thread.run(self._run, code)
        except SystemExit:
            raise
        except trio.Cancelled:
            raise EOFError from None
        except BaseException:  # noqa: BLE001  of whoever types: it is shown, and the next line may be better
            self._fail()
            self.showtraceback()
        finally:
            sys.stdout.flush()

    def _fail(self, text: str = "") -> None:
        self._shell.status = int(not self._is_terminal)
        self.write(text)

    async def _run(self, compiled: types.CodeType) -> None:
        made = types.FunctionType(compiled, self._names)()
        if compiled.co_flags & CO_COROUTINE:
            await cast("types.CoroutineType[object, object, object]", made)
        await trio.lowlevel.checkpoint()

    @override
    def showsyntaxerror(self, filename: str | None = None, **given: object) -> None:
        self._fail()
        self.write("".join(traceback.format_exception_only(sys.exception())))

    @override
    def showtraceback(self) -> None:
        error = sys.exception()
        if error is None:
            return
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != self.filename:
            trace = trace.tb_next  # what is the shell's own tells nobody anything
        self.write("".join(traceback.format_exception(type(error), error, trace)))


def _use_readline(names: dict[str, object]) -> None:
    try:
        import readline  # noqa: PLC0415  not on every machine
        import rlcompleter  # noqa: PLC0415  as above
    except ImportError:
        return
    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")
    with suppress(OSError):
        readline.read_history_file(HISTORY.expanduser())


def _keep_history() -> None:
    try:
        import readline  # noqa: PLC0415  as above

        readline.write_history_file(HISTORY.expanduser())
    except (ImportError, OSError):
        pass
