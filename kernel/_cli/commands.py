"""The kernel's own commands, of which those stand here that read and write files and run nothing.

Each imports what it needs when it runs: see `cli`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ..errors import ManifestError, PlanError
from .collecting import without_collecting
from .console import complain, paint, say
from .given import beside, installed, path_of, source_of, split, takes_changes, takes_manifest
from .operate import LOOKING_IN, show_changes, show_diff
from .running import exec_, run, shell

if TYPE_CHECKING:
    from .._core.spec import Plan
    from .._manifest.registry import Registry
    from .source import Source

KINDS: Final = ("driver", "protocol", "dispatcher")
_INVALID: Final = 2
_OLD_AND_NEW: Final = ("OLD", "NEW")
_BY_UV: Final = "UV"
"""The variable that uv sets for what it runs."""


# --- check --------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("words", nargs=-1, metavar="[MANIFEST]... [-- OPTIONS OF THE SERVICE]")
@takes_changes
def check(words: Sequence[str], overlays: Sequence[str], overrides: Sequence[str]) -> None:
    """Check everything that can be checked without a start.

    Reads the manifest, loads the plugins and workers that it names, and proves that they fit together and that a stop
    fits into the grace period. Opens nothing. With several manifests, what each sends by a contract is held against the
    handlers of the others. Every problem is printed on a line of its own; the exit status is 2 if
    there is one.
    """
    manifests, arguments = split(words)
    with without_collecting():
        sources = [source_of([path, *arguments], overlays, overrides) for path in manifests or [path_of(None)]]
        registry = installed()
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
    from .present import missing  # noqa: PLC0415  see the module docstring
    from .show import summary  # noqa: PLC0415  as above

    known = set(sys.modules)
    try:
        with beside(source.path):
            plan = source.resolve(registry)
    except (ManifestError, PlanError) as error:
        complain(str(error))
        return None
    finally:
        _forget_modules(known, Path(source.path).parent)
    _warn(plan)
    if absent := list(missing(plan)):
        complain(str(PlanError(absent)))
        return None
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
@click.argument("words", nargs=-1, metavar="[MANIFEST | OLD NEW] [-- OPTIONS OF THE SERVICE]")
@takes_changes
@click.option("--json", "form", flag_value="json", help="Print it as JSON.")
@click.option("--mermaid", "form", flag_value="mermaid", help="Print the graph of dependencies for Mermaid.")
@click.option("--diff", is_flag=True, help="Show what a reload would do: see above.")
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

    With --diff, show what `kernel reload` would do to the service that runs: it reads its own manifest, as it was
    started with it. With --diff OLD NEW, what it would do to a service that runs by the manifest OLD and is to run by
    NEW; nothing has to run.
    """
    if diff:
        _plan_diff(words, overlays, overrides, named, as_json=form == "json")
        return
    from . import show  # noqa: PLC0415  see the module docstring

    registry, source = installed(), source_of(words, overlays, overrides)
    with beside(source.path):
        resolved = source.resolve(registry)
    _warn(resolved)
    if form == "json":
        say(json.dumps(show.plan_as_json(resolved, registry), indent=2))
    elif form == "mermaid":
        say(show.plan_as_mermaid(resolved))
    else:
        say(show.plan_as_text(resolved, registry, bold=paint(bold=True), dim=paint(dim=True)))


def _plan_diff(
    words: Sequence[str], overlays: Sequence[str], overrides: Sequence[str], named: str | None, *, as_json: bool
) -> None:
    manifests, arguments = split(words)
    if not (words or overlays or overrides):
        show_diff(named, as_json=as_json)
    elif len(manifests) == len(_OLD_AND_NEW):
        old, new = (source_of([path, *arguments], overlays, overrides) for path in manifests)
        show_changes(*_both(old, new), as_json=as_json)
    else:
        text = "--diff takes two manifests, OLD and NEW; or none, and nothing else, for the service that runs"
        raise click.UsageError(text)


def _both(old: Source, new: Source) -> tuple[Plan, Plan]:
    """Return the plans of two manifests of one service, which has the modules that stand beside either."""
    registry = installed()
    with without_collecting(), beside(old.path), beside(new.path):
        return old.resolve(registry), new.resolve(registry)


# --- contracts ----------------------------------------------------------------------------------------------------


@click.command()
@takes_manifest
@click.option("--schema", "form", flag_value="schema", help="Print it as JSON Schemas.")
@click.option("--asyncapi", "form", flag_value="asyncapi", help="Print it as an AsyncAPI 3.0 document.")
def contracts(words: Sequence[str], overlays: Sequence[str], overrides: Sequence[str], form: str | None) -> None:
    """Show what the service takes and what it gives.

    Every subject that a dispatcher brings to a handler, and every one that a driver with a contract sends, with what
    is sent and what is answered.
    """
    from . import asyncapi, said  # noqa: PLC0415  see the module docstring

    source = source_of(words, overlays, overrides)
    with beside(source.path):
        plan = source.resolve(installed())
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

    found = installed().plugins
    say(json.dumps(show.plugins_as_json(found), indent=2) if as_json else show.plugins_as_text(found))


@click.command()
def schema() -> None:
    """Print a JSON Schema of manifests, for editors.

    It knows the plugins that are installed; one that cannot be loaded is named on standard error and left open.
    """
    from .schema import manifest_schema  # noqa: PLC0415  see the module docstring

    made, broken = manifest_schema(installed())
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
