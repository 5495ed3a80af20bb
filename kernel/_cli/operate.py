"""The commands that look into a service which runs, and steer it, by its control socket."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, cast

import click

from ..errors import PlanError
from . import status
from .console import complain, look_of, paint, say

if TYPE_CHECKING:
    from .._control.places import Place
    from .._core.spec import Plan

CommandT = TypeVar("CommandT", bound=Callable[..., object])

FAILED: Final = 1
"""The service refused, or did not answer."""
NOBODY: Final = 2
"""There is no such service, or several that may be meant."""
LEVELS: Final = ("debug", "info", "warning", "error")
_LISTED_WITHIN: Final = 5.0
"""Seconds in which each service has to answer that is listed."""
_LOOK: Final = 0.2
"""Seconds between two looks whether all processes have been replaced."""
_LATE: Final = 2.0
"""Seconds after the grace period in which a process must be gone."""
_COLOURS: Final = {"ready": "green", "degraded": "yellow", "backoff": "yellow", "failed": "red"}
_HOME: Final = "\x1b[H\x1b[2J"


def _service(command: CommandT) -> CommandT:
    """Add --service and --json."""
    named = click.option(
        "-s",
        "--service",
        "named",
        envvar="KERNEL_SERVICE",
        metavar="SERVICE",
        help="Its name, process id, or the path of its socket; needed where several run. Also $KERNEL_SERVICE.",
    )
    return named(_json(command))


def _json(command: CommandT) -> CommandT:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, one value a line.")(command)


def _found(named: str | None) -> Place:
    """Return the service that is meant; end the command if that is nobody, or not certain."""
    from .._control.places import at, listed  # noqa: PLC0415  see `cli`

    if named and "/" in named:
        if (place := at(Path(named))) is None:
            _end(NOBODY, f"{named} is not called like a control socket")
        return place
    running = listed(os.environ)
    meant = [place for place in running if not place.is_one_of_several] or running
    found = [place for place in running if named in {place.service, str(place.pid)}] if named else meant
    are = ", ".join(f"{place.service} (pid {place.pid})" for place in running) or "none"
    if not found:
        _end(NOBODY, f"no service {named or ''}{' ' * bool(named)}runs here that listens; there are: {are}")
    if len(found) > 1:
        _end(NOBODY, f"several services run here: {are}; say which with --service")
    return found[0]


def _end(code: int, text: str) -> NoReturn:
    complain(f"kernel: {text}")
    raise click.exceptions.Exit(code)


def _follow(place: Place, order: str, arguments: Mapping[str, object], *, within: float | None = 30.0) -> Iterator[Any]:
    """Yield the answers of a service; end the command if it refuses, or there is none."""
    from .._control.client import RefusedError, UnansweredError, follow  # noqa: PLC0415  as above

    try:
        yield from follow(place, order, arguments, within=within)
    except (RefusedError, UnansweredError) as error:
        _end(FAILED, status.printable(str(error)))


def _ask(place: Place, order: str, **arguments: object) -> Any:  # noqa: ANN401  what JSON can say
    """Return the one answer of a service; end the command if there is none."""
    return _only(place, _follow(place, order, arguments))


def _only(place: Place, answers: Iterator[Any]) -> Any:  # noqa: ANN401  as above
    for answer in answers:
        return answer
    _end(FAILED, f"{place.service} (pid {place.pid}) has closed the connection")


def _show(answer: object, text: Callable[[Any], str], *, as_json: bool) -> None:
    say(json.dumps(answer) if as_json else text(_printable(answer)))


# --- looking ------------------------------------------------------------------------------------------------------


@click.command()
@_json
def ps(*, as_json: bool) -> None:
    """List the services that run here.

    That are those of this user which listen on a control socket. One that does not answer is listed as such, and why
    is told on standard error.
    """
    from .._control.client import RefusedError, UnansweredError, ask_briefly  # noqa: PLC0415  see `cli`
    from .._control.places import listed  # noqa: PLC0415  as above

    found: list[Mapping[str, Any]] = []
    for place in listed(os.environ):
        try:
            found.append({**ask_briefly(place, "ps", within=_LISTED_WITHIN), "service": place.service})
        except (RefusedError, UnansweredError) as error:
            if place.is_stale or not place.path.exists():
                continue  # it has ended meanwhile
            found.append(status.silent(place.service, place.pid))
            complain(f"kernel: {status.printable(str(error))}")
    if as_json:
        say(json.dumps(found))
    else:
        say(status.services_text(_printable(found)) if found else "no service runs here that listens")


@click.command()
@_service
def tree(named: str | None, *, as_json: bool) -> None:
    """Show the components of a service.

    Each with its state and for how long it has it, what a dispatcher has in flight and takes in a second, restarts,
    deadlines that run, and what it waits for.
    """
    answer = _ask(_found(named), "tree")
    say(json.dumps(answer) if as_json else status.tree_text(_printable(answer), _painted))


@click.command()
@_service
@click.option("--every", type=click.FloatRange(0.5, 3600), default=1.0, show_default=True, help="Seconds.")
@click.option("-n", "times", type=click.IntRange(1), help="How often; until Ctrl-C if it is not given.")
def top(named: str | None, every: float, times: int | None, *, as_json: bool) -> None:
    """Show the components of a service again and again.

    On a terminal each time in the same place, elsewhere one after the other. Ctrl-C ends it.
    """
    shown = 0
    live = look_of(sys.stdout).live and not as_json
    while times is None or shown < times:
        if shown:
            time.sleep(every)
        answer = _ask(_found(named), "tree")
        text = json.dumps(answer) if as_json else status.tree_text(_printable(answer), _painted)
        say(f"{_HOME}{text}" if live else text)
        shown += 1


@click.command()
@_service
def why(named: str | None, *, as_json: bool) -> None:
    """Say what a service waits for.

    To be ready, to go on, or to have stopped: each component that is on its way somewhere, what it waits for and until
    when, and the line of code that it is at; and handlers that take long. It answers also while the event loop is
    blocked, with the line that blocks it.
    """
    _show(_ask(_found(named), "why"), status.causes_text, as_json=as_json)


@click.command()
@_service
@click.argument("dispatcher")
@click.option("-n", "times", type=click.IntRange(1), help="How many messages; until Ctrl-C if it is not given.")
@click.option(
    "--per-second", type=click.IntRange(1, 100), default=10, show_default=True, help="At most; more are counted."
)
@click.option("--characters", type=click.IntRange(0, 10_000), default=200, show_default=True, help="Of a body.")
def tap(
    named: str | None, dispatcher: str, times: int | None, per_second: int, characters: int, *, as_json: bool
) -> None:
    """Show the messages of a dispatcher as they are settled.

    Bodies are cut. Secrets of the manifest, passwords in addresses, and what stands under keys that are called like a
    password are masked; the rest is shown as it is, and may be confidential.
    """
    place, shown = _found(named), 0
    options = {"dispatcher": dispatcher, "per_second": per_second, "characters": characters}
    for message in _follow(place, "tap", options, within=None):  # a message may be long in coming
        if "tapped" not in message:
            _show(message, status.message_text, as_json=as_json)
            shown += "missed" not in message
        if shown == times:
            return
    _end(FAILED, f"{place.service} (pid {place.pid}) has ended")


def _printable(value: object) -> Any:  # noqa: ANN401  what JSON can say
    """Return JSON whose texts no terminal obeys, and none of which makes a line of its own."""
    match value:
        case str():
            return status.one_line(value)
        case list():
            return [_printable(item) for item in cast("list[object]", value)]
        case dict():
            return {key: _printable(item) for key, item in cast("dict[str, object]", value).items()}
        case _:
            return value


def _painted(state: str, text: str) -> str:
    return paint(fg=_COLOURS.get(state, "bright_black"))(text)


# --- steering -----------------------------------------------------------------------------------------------------


@click.command()
@_service
@click.argument("component", required=False)
@click.option("--no-wait", is_flag=True, help="Return before all processes are replaced.")
def restart(named: str | None, component: str | None, *, no_wait: bool, as_json: bool) -> None:
    """Restart a component, and those that restart with it.

    Without one, a service of several processes has each replaced by a new one, one after the other. Returns when all
    are; the exit status is 1 if one does not become ready, and the old processes go on.

    A dispatcher may finish what it has begun, within drain_timeout. What waits to be started again is started at once.
    """
    place = _found(named)
    answer = _ask(place, "restart", component=component or "")
    is_over = "roll" in answer and not no_wait
    if is_over:
        _wait_rolled(place, answer["roll"])
    answer.pop("roll", None)
    _show(answer, lambda said: f"restart{'ed' if is_over else 'ing'}: {', '.join(said['restarts'])}", as_json=as_json)


def _wait_rolled(place: Place, number: int) -> None:
    """Wait until the processes of a service have been replaced; end the command if they are not.

    The service may be called otherwise by then, as its manifest says: it is known by its process.
    """
    from .._control.client import UnansweredError, ask_briefly  # noqa: PLC0415  see `cli`
    from .._control.places import listed  # noqa: PLC0415  as above

    while not place.is_stale:
        time.sleep(_LOOK)
        for found in (place, *listed(os.environ)):
            if found.pid != place.pid or found.is_one_of_several or not found.path.exists():
                continue
            with suppress(UnansweredError):  # it is just becoming called otherwise
                answer = ask_briefly(found, "ps", within=_LISTED_WITHIN)
                if answer["rolled"] >= number:
                    return _check_rolled(answer["roll_failure"])
    _end(FAILED, f"process {place.pid} has ended meanwhile")


def _check_rolled(failure: str) -> None:
    if failure:
        _end(FAILED, f"not all were replaced: {failure}")


@click.command()
@_service
def reload(named: str | None, *, as_json: bool) -> None:
    """Have a service read its manifest again, and become what that says.

    What has changed is stopped and started, with what restarts with it; everything else goes on. Returns when all is up
    again. If the manifest is wrong, every problem is printed and nothing changes. `kernel plan --diff` shows beforehand
    what it would do. As SIGHUP does.

    The exit status is 1 if it is not reloaded, something is not up, or something that was read again is no good, such as
    a certificate, so that what goes on has what it had.
    """
    place = _found(named)
    answer = _only(place, _follow(place, "reload", {}, within=None))  # it lasts as long as what is in flight may
    _show(answer, status.reload_text, as_json=as_json)
    if answer["failed"] or answer["refused"]:
        raise click.exceptions.Exit(FAILED)


def show_diff(named: str | None, *, as_json: bool) -> None:
    """Show what a reload of a service would do: `kernel plan --diff`."""
    place = _found(named)
    answer = _only(place, _follow(place, "reload", {"dry": True}, within=None))  # as long as imports may take
    _show(answer, status.diff_text, as_json=as_json)


def show_changes(old: Plan, new: Plan, *, as_json: bool) -> None:
    """Show what a reload would do that leads from one plan to another.

    Raises:
        PlanError: if a service that runs could not take it over.
    """
    from .._control.changes import changes_as_json  # noqa: PLC0415  see `cli`
    from .._core.changes import changes, fixed  # noqa: PLC0415  as above

    if problems := fixed(old, new):
        raise PlanError(problems)
    _show(changes_as_json(old, new, changes(old, new)), status.diff_text, as_json=as_json)


@click.command()
@_service
@click.argument("dispatcher")
def pause(named: str | None, dispatcher: str, *, as_json: bool) -> None:
    """Have a dispatcher take nothing new.

    What it has begun is finished. It is degraded until `kernel resume`, or the end of the service.
    """
    answer = _ask(_found(named), "pause", component=dispatcher)
    _show(answer, lambda said: f"paused: {said['paused']}", as_json=as_json)


@click.command()
@_service
@click.argument("dispatcher")
def resume(named: str | None, dispatcher: str, *, as_json: bool) -> None:
    """Have a paused dispatcher go on."""
    answer = _ask(_found(named), "resume", component=dispatcher)
    _show(answer, lambda said: f"resumed: {said['resumed']}", as_json=as_json)


@click.command("log-level")
@_service
@click.argument("level", required=False, metavar="[[NAME=]LEVEL]")
def log_level(named: str | None, level: str | None, *, as_json: bool) -> None:
    """Set what a service logs, until it ends: debug, info, warning or error.

    With NAME=, for one logger or component. Without an argument, says what holds.
    """
    name, _, value = (level or "").rpartition("=")
    if level is not None and value not in LEVELS:
        raise click.BadParameter(f"{value!r} is not one of {', '.join(LEVELS)}.")
    answer = _ask(_found(named), "log-level", **({} if level is None else {"level": value, "name": name}))
    _show(answer, _levels, as_json=as_json)


def _levels(said: Mapping[str, Any]) -> str:
    return "\n".join([said["level"], *(f"{name}={level}" for name, level in said["levels"].items())])


@click.command()
@_service
@click.option("--no-wait", is_flag=True, help="Return at once.")
def stop(named: str | None, *, no_wait: bool, as_json: bool) -> None:
    """Stop a service in order, and wait until its process has ended.

    As SIGTERM does: what has been accepted is finished first. The exit status is 1 if it runs on after its grace
    period.
    """
    import select  # noqa: PLC0415  see `cli`

    place = _found(named)
    process = os.pidfd_open(place.pid)  # first, so that it is no later process of the same number
    answer = _ask(place, "stop")
    if not no_wait and not select.select([process], [], [], answer["grace_period"] + _LATE)[0]:
        _end(FAILED, f"process {place.pid} still runs: see `kernel why`")
    _show(answer, lambda said: f"{'stopping' if no_wait else 'stopped'}: process {said['pid']}", as_json=as_json)


LOOKING_IN: Final = (ps, tree, top, why, tap, reload, restart, pause, resume, log_level, stop)
