"""The command line: the group of commands, and how every way in which one ends becomes an exit status.

The only modules that print or exit are this one, `commands`, `running`, `operate` and `console`. Start-up time matters:
what only one command needs is imported by that command.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NoReturn, final

import click
from typing_extensions import override

from ..errors import InvalidError, PluginDuplicateError, PluginError, PluginLoadError, PluginNotFoundError
from .commands import BUILT_IN
from .console import OutputError, complain, flush

if TYPE_CHECKING:
    from .._manifest.registry import Registry

FAILED: Final = 1
INVALID: Final = 2
INTERNAL: Final = 70
"""Source: sysexits.h, EX_SOFTWARE."""
INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""
_HINT: Final = "set KERNEL_DEBUG=1 for the traceback"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its status; does not return.

    Threads that are left over are named on standard error and do not hold the process.

    Args:
        arguments: Without the name of the program; those of the process if None.
    """
    status = execute(sys.argv[1:] if arguments is None else arguments)
    flush()
    # Python looks for cycles on its way out, which takes as long as a third of importing trio, and frees what the end
    # of the process frees anyway.
    gc.freeze()
    if left := [thread.name for thread in threading.enumerate() if _holds_the_process(thread)]:
        complain(f"kernel: ending the process although threads still run: {', '.join(left)}")
        # sys.exit would wait for them, and nothing can be sent to a thread to end it.
        os._exit(status)
    sys.exit(status)


def _holds_the_process(thread: threading.Thread) -> bool:
    return not thread.daemon and thread is not threading.main_thread()


def execute(arguments: Sequence[str]) -> int:
    """Run a command and return the exit status; whatever it raises is put into one line."""
    try:
        status: object = cli.main(list(arguments), prog_name="kernel", standalone_mode=False)
    except KeyboardInterrupt:
        return INTERRUPTED
    except click.Abort as error:
        return _not_done(error)
    except Exception as error:  # noqa: BLE001  the end of the line: a fault of the kernel or of somebody's command
        return _status_of(error)
    return status if isinstance(status, int) else 0


def _not_done(abort: click.Abort) -> int:
    """Say why a question was not answered with yes, and return the exit status for it."""
    if isinstance(abort.__context__, KeyboardInterrupt):
        return INTERRUPTED
    nobody = isinstance(abort.__context__, EOFError)
    complain(f"\nkernel: not done: {'nobody answers; --yes does not ask' if nobody else 'it was not confirmed'}")
    return FAILED


def _status_of(error: Exception) -> int:
    """Say in one line what was raised, and return the exit status for it."""
    match error:
        case click.ClickException():
            error.show()
            return error.exit_code
        case InvalidError():
            complain(str(error))
            return INVALID
        case PluginError():
            complain(f"kernel: {error}")
            return INVALID
        case OutputError():
            complain(f"kernel: {error}")
            return FAILED
        case _:
            return _internal(error)


def _internal(error: Exception) -> int:
    from .._delivery.failure import describe  # noqa: PLC0415  only when something is badly wrong

    if os.environ.get("KERNEL_DEBUG"):
        complain("".join(traceback.format_exception(error)).rstrip())
        complain(f"kernel: internal error: {describe(error)}")
    else:
        complain(f"kernel: internal error: {describe(error)} ({_HINT})")
    return INTERNAL


@final
class _Commands(click.Group):
    """The kernel's own commands, and those of the entry-point group `kernel.commands`, imported when they are run."""

    @override
    def invoke(self, ctx: click.Context) -> None:
        super().invoke(ctx)  # what somebody's command returns is no exit status

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *_foreign(_installed())]

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if own := self.commands.get(cmd_name):
            return own
        try:
            return _load(cmd_name)
        except PluginNotFoundError:
            return None
        except (PluginDuplicateError, PluginLoadError) as error:
            if ctx.resilient_parsing:  # completion in a shell: the others go on being completed
                return click.Command(cmd_name)
            raise click.UsageError(str(error)) from error

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(80)) for name, command in self.commands.items()])
        if foreign := _foreign(_installed()):
            with formatter.section("Commands of plugins"):
                formatter.write_dl(list(foreign.items()))


def _installed() -> Registry:
    from .._manifest.registry import discover  # noqa: PLC0415  slow

    return discover()


def _foreign(registry: Registry) -> dict[str, str]:
    """Return the commands of plugins with the distributions that they are from; nothing of them is imported."""
    owners: dict[str, list[str]] = {}
    for plugin in registry.plugins:
        if plugin.kind == "command" and plugin.name not in BUILT_IN:
            owners.setdefault(plugin.name, []).append(str(plugin))
    return {name: f"of {' and '.join(who)}{', which is a conflict' * (len(who) > 1)}" for name, who in owners.items()}


def _load(name: str) -> click.Command:
    registry = _installed()
    command = registry.load("command", name)
    if not isinstance(command, click.Command):
        raise registry.find("command", name).broken(f"it must be a click.Command, not {type(command).__name__}")
    return command


@click.group(
    cls=_Commands,
    commands=dict(BUILT_IN),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="trio-kernel", prog_name="kernel", message="%(prog)s %(version)s")
def cli() -> None:
    """Run Python services under structured concurrency, as their manifest says.

    A command that takes a MANIFEST uses $KERNEL_MANIFEST, or else ./kernel.toml, if none is given.
    """
