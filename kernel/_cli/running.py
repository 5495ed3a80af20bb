"""The commands that run something of a manifest. Each imports what it needs when it runs: see `cli`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec

import click

from ..errors import ManifestError
from .console import say, unheard_is_lost
from .given import beside, installed, source_of, takes_changes, takes_manifest
from .operate import LEVELS

# --- run ----------------------------------------------------------------------------------------------------------


def _levels(_context: click.Context, _option: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    """Return the level for each name; that of the service for the empty one."""
    levels: dict[str, str] = {}
    for one in given:
        name, _, level = one.rpartition("=")
        if level not in LEVELS:
            raise click.BadParameter(f"{level!r} is not one of {', '.join(LEVELS)}.")
        levels[name] = level
    return levels


@click.command()
@takes_manifest
@click.option(
    "--log-level",
    "levels",
    multiple=True,
    metavar="[NAME=]LEVEL",
    callback=_levels,
    help=f"What is logged: {', '.join(LEVELS)}. With NAME=, of one logger or component; may be given often.",
)
@click.option(
    "--processes", type=click.IntRange(1), metavar="COUNT", help="Run it in so many processes; see [kernel] processes."
)
@click.option("--watch", "watches", is_flag=True, help="Start it again when its code or manifest changes.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="How it is logged, one record a line.")
def run(
    words: Sequence[str],
    overlays: Sequence[str],
    overrides: Sequence[str],
    levels: Mapping[str, str],
    processes: int | None,
    log_format: str | None,
    *,
    watches: bool,
) -> None:
    """Run the service until it is told to stop.

    Ctrl-C or SIGTERM begins the stop: what has been accepted is finished first. A second Ctrl-C skips that. SIGHUP has
    the manifest read again, as `kernel reload` does. The log goes to standard error.

    With --watch, what has been accepted is finished before the new code runs, and a mistake in it is shown and waited
    out.

    In several processes, SIGHUP has each replaced by a new one, one after the other.

    The exit status is 0 if it stopped cleanly, 1 if a component failed, 2 if the manifest is wrong, and 3 if something
    had to be cut at a deadline.

    What follows -- is for the service: its manifest says which options it takes, and `kernel run -- --help` lists them.
    """
    count = processes or (1 if watches else None)
    source = source_of(words, overlays, [*overrides, *([f"kernel.processes={count}"] if count else [])])
    if source.asks_for_help:
        say(source.help(installed()))
        return
    from .._core.policies import RestartPolicy  # noqa: PLC0415  as below
    from .._manifest.reading import several_processes  # noqa: PLC0415  as below
    from .service import ServiceOptions, run_service  # noqa: PLC0415  structlog and trio

    options = ServiceOptions(
        log_level=levels.get(""),
        log_levels={name: level for name, level in levels.items() if name},
        as_json=None if log_format is None else log_format == "json",
    )
    with unheard_is_lost(), beside(source.path):
        manifest = None
        if not watches:
            with suppress(ManifestError):  # which is raised below, with all that is wrong beside it
                manifest = source.load()
        table = None if manifest is None else several_processes(manifest)
        if watches or table is not None:
            from .crew import run_crew  # noqa: PLC0415  as above

            size, restart = (1, RestartPolicy()) if table is None else (table.processes, table.process_restart)
            status = run_crew(source, options, size=count or size, restart=restart, watches=_can_watch(wanted=watches))
        else:
            registry = installed()
            plan = source.resolve(registry, manifest)
            result = run_service(plan, options, again=partial(source.resolve_again, registry))
            status = int(result.status) or result.returned
    raise click.exceptions.Exit(status)


def _can_watch(*, wanted: bool) -> bool:
    """Return whether files are to be watched; end the command if they cannot be."""
    if wanted and find_spec("watchfiles") is None:
        raise click.UsageError('--watch needs watchfiles: pip install "trio-kernel[watch]"')
    return wanted


# --- exec ---------------------------------------------------------------------------------------------------------


@click.command(
    "exec", context_settings={"allow_interspersed_args": False}, options_metavar="[OPTIONS] [MANIFEST] MODULE:FUNCTION"
)
@click.argument("words", nargs=-1, metavar="[ARGUMENTS]", required=True)
@takes_changes
@click.option("--deadline", type=click.FloatRange(min=0, min_open=True), help="Cancel it after so many SECONDS.")
@click.option("--log-level", type=click.Choice(LEVELS), default="warning", show_default=True, help="What is logged.")
def exec_(
    words: Sequence[str], overlays: Sequence[str], overrides: Sequence[str], deadline: float | None, log_level: str
) -> None:
    """Run a function once, with what it needs of the service.

    Drivers that its parameters name are opened before and closed after it, with all that they stand on, and nothing
    else is. Its other parameters are arguments; MODULE:FUNCTION --help lists them. It may be plain or async.

    The exit status is what it returns, if that is a number, and 0 otherwise; 1 if it or a component fails, 2 if
    something is wrong with the command, 3 if it was cancelled at its deadline.
    """
    from .script import run_script  # noqa: PLC0415  structlog and trio

    manifests = [word for word in words[:1] if ":" not in word]
    if len(words) == len(manifests):
        raise click.UsageError("Missing argument 'MODULE:FUNCTION'.")
    path, *arguments = words[len(manifests) :]
    source = source_of(manifests, overlays, overrides)
    with unheard_is_lost(), beside(source.path):
        status = run_script(source.resolve(installed()), path, arguments, deadline=deadline, log_level=log_level)
    raise click.exceptions.Exit(status)


# --- shell --------------------------------------------------------------------------------------------------------


@click.command()
@takes_manifest
@click.option("--all", "everything", is_flag=True, help="Run the workers and let the dispatchers accept, too.")
@click.option("--log-level", type=click.Choice(LEVELS), default="warning", show_default=True, help="What is logged.")
def shell(
    words: Sequence[str], overlays: Sequence[str], overrides: Sequence[str], *, everything: bool, log_level: str
) -> None:
    """Open the drivers of the service, and a Python shell with them.

    They are there by their names, and `await` works at the top. Lines may come from a pipe. Ctrl-D ends it.
    """
    from .script import run_shell  # noqa: PLC0415  structlog and trio

    source = source_of(words, overlays, overrides)
    with unheard_is_lost(), beside(source.path):
        status = run_shell(source.resolve(installed()), everything=everything, log_level=log_level)
    raise click.exceptions.Exit(status)
