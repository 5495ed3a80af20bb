"""`kernel exec`: the arguments of a function as those of a command, and the function as a part of the service."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from inspect import Parameter
from typing import cast, final

import attrs
import click
from typing_extensions import override

from .._core.events import EventHub
from .._core.spec import Plan
from .._plan.script import Script, ScriptArgument, read_script
from .._service.script import ScriptRun
from .._service.shell import Shell
from ..errors import ConversionError
from .console import complain
from .service import ServiceOptions, run_service


def run_script(plan: Plan, path: str, words: Sequence[str], *, deadline: float | None, log_level: str) -> int:
    """Run a function with the part of a service that it names; return the exit status.

    Args:
        plan: Of the service.
        path: `module:function`.
        words: What the command line says after it.
        deadline: Seconds until it is cancelled; None for no end.
        log_level: What is logged, to standard error.

    Raises:
        InvalidError: if there is no such function, or it asks for what there is not.
        click.UsageError: if its arguments are wrong.
    """
    script = read_script(plan, path)
    command = _command(script)
    values = command.main(list(words), prog_name=f"kernel exec {plan.path} {path}", standalone_mode=False)
    if not isinstance(values, dict):  # the help was asked for
        return 0
    run = ScriptRun.of(
        plan, script, cast("dict[str, object]", values), deadline=math.inf if deadline is None else deadline
    )
    hub = EventHub()
    run.listen(hub)
    log = attrs.evolve(plan.log, file=None)  # a service that runs may write to the file at the same time
    options = ServiceOptions(log_level=log_level)
    result = run_service(attrs.evolve(run.plan, log=log), options, hub=hub, shows=False, leash=run.leash)
    if run.overran:
        complain(f"kernel: {path} was cancelled at its deadline, after {deadline:g} s")
    return run.status(result)


def run_shell(plan: Plan, *, everything: bool, log_level: str) -> int:
    """Have a shell in a service until the end of standard input; return the exit status.

    Args:
        plan: Of the service.
        everything: Whether workers run and dispatchers accept, too.
        log_level: What is logged, to standard error.
    """
    shell = Shell(plan, everything=everything)
    plan = attrs.evolve(shell.plan, log=attrs.evolve(plan.log, file=None))  # as above
    result = run_service(plan, ServiceOptions(log_level=log_level), shows=False)
    return int(result.status) or shell.status


def _command(script: Script) -> click.Command:
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    return click.Command(
        script.path,
        params=list(_parameters(script)),
        callback=_values,
        help=script.help or None,
        context_settings=settings,
    )


def _values(**values: object) -> dict[str, object]:
    return values


def _parameters(script: Script) -> Iterator[click.Parameter]:
    for one in script.arguments:
        if one.kind is Parameter.VAR_POSITIONAL:
            yield click.Argument([one.name], type=_Typed(one), nargs=-1)
        elif one.default is Parameter.empty and one.kind is not Parameter.KEYWORD_ONLY:
            yield click.Argument([one.name], type=_Typed(one), metavar=_metavar(one))
        else:
            yield _option(one)


def _metavar(argument: ScriptArgument) -> str:
    return argument.name.upper()


def _option(argument: ScriptArgument) -> click.Option:
    name = argument.name.replace("_", "-")
    if argument.is_flag:
        declared = f"--{name}/--no-{name}"
        return click.Option([declared, argument.name], default=argument.default, help=argument.help, show_default=True)
    settings: dict[str, object] = {"required": True}
    if argument.default is not Parameter.empty:
        settings = {"default": argument.default, "show_default": argument.default is not None}
    return click.Option([f"--{name}", argument.name], type=_Typed(argument), help=argument.help, **settings)  # type: ignore[arg-type]  # as above


@final
class _Typed(click.ParamType):  # type: ignore[type-arg]  # generic in click's newest stubs alone
    """A text of the command line as the annotation of a parameter says."""

    def __init__(self, argument: ScriptArgument) -> None:
        self._argument = argument
        self.name = argument.type

    @override
    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if not isinstance(value, str):  # a default
            return value
        try:
            return self._argument.convert(value)
        except ConversionError as error:
            self.fail(f"{'; '.join(error.problems)}.", param, ctx)
