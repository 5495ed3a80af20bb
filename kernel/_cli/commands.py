"""The kernel's own commands. Each imports what it needs when it runs: see `cli`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

from ..errors import ManifestError, PlanError
from .console import complain, paint, say, unheard_is_lost
from .operate import LEVELS, LOOKING_IN, show_diff

if TYPE_CHECKING:
    from .._core.spec import Plan
    from .._manifest.registry import Registry
    from .source import Source

CommandT = TypeVar("CommandT", bound=Callable[..., object])

DEFAULT_MANIFEST: Final = "kernel.toml"
KINDS: Final = ("driver", "protocol", "dispatcher")
_INVALID: Final = 2
_BY_UV: Final = "UV"
"""The variable that uv sets for what it runs."""


def _manifest(command: CommandT) -> CommandT:
    """Add the arguments MANIFEST and, after --, those of the service, and what changes a manifest."""
    return click.argument("words", nargs=-1, metavar="[MANIFEST] [-- OPTIONS OF THE SERVICE]")(_changes(command))


def _changes(command: CommandT) -> CommandT:
    """Add the options --overlay and --set."""
    overlays = click.option(
        "--overlay",
        "overlays",
        multiple=True,
        metavar="FILE",
        help="Lay a file over the manifest, key by key; may be given often.",
    )
    overrides = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="TABLE.KEY=VALUE",
        help="Replace a value of the manifest; may be given often. VALUE is TOML, or a string as it stands.",
    )
    return overlays(overrides(command))


def _path(given: str | None) -> str:
    return given or os.environ.get("KERNEL_MANIFEST") or DEFAULT_MANIFEST


def _split(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the manifests of a command line, and what follows them for the service."""
    at = next((number for number, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:at], words[at:]


def _source(words: Sequence[str], overlays: Sequence[str], overrides: Sequence[str]) -> Source:
    """Return where one manifest is, and what changes it."""
    from .source import Source  # noqa: PLC0415  `--help` needs none of it

    manifests, arguments = _split(words)
    if len(manifests) > 1:
        raise click.UsageError(f"Got unexpected extra argument ({manifests[1]})")
    path = _path(manifests[0] if manifests else None)
    return Source(path=path, overlays=tuple(overlays), overrides=tuple(overrides), arguments=tuple(arguments))


def _beside(path: str) -> AbstractContextManager[None]:
    """Return what finds the modules beside a manifest while inside."""
    from .._convert.folder import on_path  # noqa: PLC0415  as above

    return on_path(Path(path).parent)


def _discover() -> Registry:
    from .._manifest.registry import discover  # noqa: PLC0415  as above

    return discover()


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
@_manifest
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
    source = _source(words, overlays, [*overrides, *([f"kernel.processes={count}"] if count else [])])
    if source.asks_for_help:
        say(source.help(_discover()))
        return
    from .._core.policies import RestartPolicy  # noqa: PLC0415  as below
    from .._manifest.tables import several_processes  # noqa: PLC0415  as below
    from .service import ServiceOptions, run_service  # noqa: PLC0415  structlog and trio

    options = ServiceOptions(
        log_level=levels.get(""),
        log_levels={name: level for name, level in levels.items() if name},
        as_json=None if log_format is None else log_format == "json",
    )
    with unheard_is_lost(), _beside(source.path):
        manifest = None if watches else source.load()
        table = None if manifest is None else several_processes(manifest)
        if watches or table is not None:
            from .crew import run_crew  # noqa: PLC0415  as above

            size, restart = (1, RestartPolicy()) if table is None else (table.processes, table.process_restart)
            status = run_crew(source, options, size=count or size, restart=restart, watches=_can_watch(wanted=watches))
        else:
            registry = _discover()
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
@_changes
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
    source = _source(manifests, overlays, overrides)
    with unheard_is_lost(), _beside(source.path):
        status = run_script(source.resolve(_discover()), path, arguments, deadline=deadline, log_level=log_level)
    raise click.exceptions.Exit(status)


# --- shell --------------------------------------------------------------------------------------------------------


@click.command()
@_manifest
@click.option("--all", "everything", is_flag=True, help="Run the workers and let the dispatchers accept, too.")
@click.option("--log-level", type=click.Choice(LEVELS), default="warning", show_default=True, help="What is logged.")
def shell(
    words: Sequence[str], overlays: Sequence[str], overrides: Sequence[str], *, everything: bool, log_level: str
) -> None:
    """Open the drivers of the service, and a Python shell with them.

    They are there by their names, and `await` works at the top. Lines may come from a pipe. Ctrl-D ends it.
    """
    from .script import run_shell  # noqa: PLC0415  structlog and trio

    source = _source(words, overlays, overrides)
    with unheard_is_lost(), _beside(source.path):
        status = run_shell(source.resolve(_discover()), everything=everything, log_level=log_level)
    raise click.exceptions.Exit(status)


# --- check --------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("words", nargs=-1, metavar="[MANIFEST]... [-- OPTIONS OF THE SERVICE]")
@_changes
def check(words: Sequence[str], overlays: Sequence[str], overrides: Sequence[str]) -> None:
    """Check everything that can be checked without a start.

    Reads the manifest, loads the plugins and workers that it names, and proves that they fit together and that a stop
    fits into the grace period. Opens nothing. With several manifests, what each sends by a contract is held against the
    handlers of the others. Every problem is printed on a line of its own; the exit status is 2 if
    there is one.
    """
    from .source import without_collecting  # noqa: PLC0415  `--help` needs none of it

    manifests, arguments = _split(words)
    sources = [_source([path, *arguments], overlays, overrides) for path in manifests or [_path(None)]]
    with without_collecting():
        registry = _discover()
        plans = [_check(source, registry) for source in sources]
        found = [plan for plan in plans if plan is not None]
        agree = len(plans) == 1 or _check_between(found, are_all=len(found) == len(plans))
    if not agree or None in plans:
        raise click.exceptions.Exit(_INVALID)


def _check_between(plans: Sequence[Plan], *, are_all: bool) -> bool:
    """Hold what each service sends against the handlers of the others; return whether they agree."""
    from .._plan.between import between  # noqa: PLC0415  see the module docstring

    disagreements = list(between(plans, are_all=are_all))
    for text in disagreements:
        complain(text)
    return not disagreements


def _check(source: Source, registry: Registry) -> Plan | None:
    from .show import summary  # noqa: PLC0415  see the module docstring

    known = set(sys.modules)
    try:
        with _beside(source.path):
            plan = source.resolve(registry)
    except (ManifestError, PlanError) as error:
        complain(str(error))
        return None
    finally:
        _forget_modules(known, Path(source.path).parent)
    _warn(plan)
    say(summary(plan))
    return plan


def _warn(plan: Plan) -> None:
    for warning in plan.warnings:
        complain(f"warning: {warning}")


def _forget_modules(known: set[str], directory: Path) -> None:
    """Forget what was imported from beside a manifest: another one may have modules of the same names."""
    fresh = {name.partition(".")[0] for name in sys.modules.keys() - known} - known
    own = {name for name in fresh if _stands_in(name, directory)}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]


def _stands_in(module: str, directory: Path) -> bool:
    return (directory / f"{module}.py").is_file() or (directory / module).is_dir()


# --- plan ---------------------------------------------------------------------------------------------------------


@click.command()
@_manifest
@click.option("--json", "form", flag_value="json", help="Print it as JSON.")
@click.option("--mermaid", "form", flag_value="mermaid", help="Print the graph of dependencies for Mermaid.")
@click.option("--diff", is_flag=True, help="Show what `kernel reload` would do to the service that runs.")
@click.option("-s", "--service", "named", envvar="KERNEL_SERVICE", metavar="SERVICE", help="With --diff: which one.")
def plan(
    words: Sequence[str],
    overlays: Sequence[str],
    overrides: Sequence[str],
    form: str | None,
    named: str | None,
    *,
    diff: bool,
) -> None:
    """Show what the manifest means: components, order, values.

    Components stand in start order; a stop goes the other way. Every effective value is shown with where it comes
    from; secrets are not shown.

    With --diff, the service that runs reads its own manifest, as it was started with it.
    """
    if diff:
        if words or overlays or overrides:
            raise click.UsageError("--diff goes by the manifest of the service that runs: name no other")
        show_diff(named, as_json=form == "json")
        return
    from . import show  # noqa: PLC0415  see the module docstring

    registry, source = _discover(), _source(words, overlays, overrides)
    with _beside(source.path):
        resolved = source.resolve(registry)
    _warn(resolved)
    if form == "json":
        say(json.dumps(show.plan_as_json(resolved, registry), indent=2))
    elif form == "mermaid":
        say(show.plan_as_mermaid(resolved))
    else:
        say(show.plan_as_text(resolved, registry, bold=paint(bold=True), dim=paint(dim=True)))


# --- contracts ----------------------------------------------------------------------------------------------------


@click.command()
@_manifest
@click.option("--schema", "form", flag_value="schema", help="Print it as JSON Schemas.")
@click.option("--asyncapi", "form", flag_value="asyncapi", help="Print it as an AsyncAPI 3.0 document.")
def contracts(words: Sequence[str], overlays: Sequence[str], overrides: Sequence[str], form: str | None) -> None:
    """Show what the service takes and what it gives.

    Every subject that a dispatcher brings to a handler, and every one that a driver with a contract sends, with what
    is sent and what is answered.
    """
    from . import asyncapi, said  # noqa: PLC0415  see the module docstring

    source = _source(words, overlays, overrides)
    with _beside(source.path):
        plan = source.resolve(_discover())
        make = {"schema": said.contracts_as_schema, "asyncapi": asyncapi.contracts_as_asyncapi}
        text = said.contracts_as_text(plan) if form is None else json.dumps(make[form](plan), indent=2)
    say(text)


# --- plugins, schema ----------------------------------------------------------------------------------------------


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def plugins(*, as_json: bool) -> None:
    """List the plugins that are installed.

    Reads the metadata of distributions and imports nothing. A name that two distributions provide is marked.
    """
    from . import show  # noqa: PLC0415  see the module docstring

    found = _discover().plugins
    say(json.dumps(show.plugins_as_json(found), indent=2) if as_json else show.plugins_as_text(found))


@click.command()
def schema() -> None:
    """Print a JSON Schema of manifests, for editors.

    It knows the plugins that are installed; one that cannot be loaded is named on standard error and left open.
    """
    from .schema import manifest_schema  # noqa: PLC0415  see the module docstring

    made, broken = manifest_schema(_discover())
    for error in broken:
        complain(f"kernel: {error}")
    say(json.dumps(made, indent=2))


# --- new ----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("name")
def new(name: str) -> None:
    """Write a new service into a new folder NAME.

    It has a worker, a manifest and a test that passes.
    """
    from .new import write_service  # noqa: PLC0415  see the module docstring

    _written(
        write_service(name, Path.cwd()), name, [_in_venv(line) for line in ("kernel check", "pytest", "kernel run")]
    )


@click.command("new-plugin")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What the plugin provides.")
@click.option("--package", default="", help="What is imported; NAME if it is not given.")
@click.option("--distribution", default="", help="What is installed; NAME if it is not given.")
def new_plugin(name: str, kind: str, package: str, distribution: str) -> None:
    """Write a new plugin into a new folder NAME.

    It is a distribution of its own, with an entry point and tests that pass, the conformance check among them.
    """
    from .new import write_plugin  # noqa: PLC0415  see the module docstring

    files = write_plugin(name, kind, Path.cwd(), package=package, distribution=distribution)
    install = "uv pip install -e ." if _BY_UV in os.environ else "pip install -e ."
    _written(files, name, [install, _in_venv("pytest"), _in_venv("kernel plugins")])


def _in_venv(line: str) -> str:
    """Return a command as it works where this one did: uv runs it in the environment of the folder above."""
    return f"uv run --no-project {line}" if _BY_UV in os.environ else line


def _written(files: Sequence[Path], folder: str, commands: Sequence[str]) -> None:
    bold = paint(bold=True)
    for file in files:
        say(f"wrote {file}")
    say("\nNext:\n")
    for command in [f"cd {folder}", *commands]:
        say(f"    {bold(command)}")


BUILT_IN: Final[Mapping[str, click.Command]] = {
    command.name or "": command
    for command in (run, exec_, shell, check, plan, contracts, plugins, schema, new, new_plugin, *LOOKING_IN)
}
"""Name -> command, in the order of the help."""
