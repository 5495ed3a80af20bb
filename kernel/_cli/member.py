"""One process of a crew: `python -m kernel._cli.member CHANNEL NUMBER SIZE PARENT GIVEN`.

It tells its parent what it has read, when it is ready, and how it ends.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import sysconfig
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, final

import attrs

from .._convert.folder import on_path
from .._core.events import Event, EventHub, KernelReady, StateChanged, StopRequested
from .._core.lifecycle import FINAL, State
from .._core.spec import Plan
from .._crew.member import Member
from .._manifest.registry import discover
from ..errors import InvalidError
from .console import complain, flush, unheard_is_lost
from .service import ServiceOptions, run_service
from .source import Source

_INVALID = 2


def main(member: Member, given: dict[str, Any]) -> int:
    """Run a service as one of its processes; return the exit status.

    Args:
        member: This process.
        given: The fields of a `Source` and those of `ServiceOptions`.
    """
    fields = dict(given["source"])
    source = Source(path=fields.pop("path"), **{key: tuple(value) for key, value in fields.items()})
    options = ServiceOptions(**given["options"])
    hub = EventHub()
    hub.subscribe(lambda _event: member.tell(ready=True), KernelReady)
    hub.subscribe(_Leaving(member).note, StateChanged, StopRequested)
    try:
        with unheard_is_lost(), on_path(Path(source.path).parent):
            registry = discover()
            plan = source.resolve(registry)
            member.tell(planned=_told(plan, options))
            again = partial(source.resolve_again, registry)
            result = run_service(
                plan,
                options,
                hub=hub,
                shows=member.size == 1,
                crew=member,
                again=again,
                taken=lambda now: member.tell(planned=_told(now, options)),
            )
    except InvalidError as error:
        complain(str(error))
        member.tell(ended={"status": _INVALID, "ran_to_end": False})
        return _INVALID
    status = int(result.status) or result.returned
    member.tell(ended={"status": status, "ran_to_end": result.ran_to_end})
    return status


@final
@attrs.define(eq=False, repr=False)
class _Leaving:
    """Has the parent close what a component listens at no longer, since it has moved with a reload or failed for good.

    What closes with the process stays open for the one that takes its place.
    """

    _member: Member
    _is_stopping: bool = attrs.field(default=False, init=False)

    def note(self, event: Event) -> None:
        self._is_stopping |= isinstance(event, StopRequested)
        if self._is_stopping or not isinstance(event, StateChanged):
            return
        if event.new is State.READY or event.new in FINAL:
            self._member.leave(event.component, for_good=event.new in FINAL)


def _told(plan: Plan, options: ServiceOptions) -> dict[str, object]:
    return {
        "service": plan.name,
        "manifest": plan.path,
        "grace_period": plan.grace_period,
        "stop_budget": plan.budget.seconds,
        "control": plan.control,
        "processes": plan.processes,
        "process_restart": attrs.asdict(plan.process_restart, filter=lambda field, _: field.name != "policy"),
        "folders": sorted(_folders(plan)),
        "level": options.log_level or plan.log.level,
        "as_json": plan.log.format == "json" if options.as_json is None else options.as_json,
    }


def _folders(plan: Plan) -> set[str]:
    """Return where the packages are that this process has imported, and that are not installed for good."""
    installed = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values())}
    files = [getattr(module, "__file__", None) or "" for name, module in [*sys.modules.items()] if "." not in name]
    found = {os.path.dirname(os.path.realpath(file)) for file in files if os.path.basename(file) == "__init__.py"}
    known = (*installed, os.path.realpath(plan.directory))
    return {folder for folder in found if not any(os.path.commonpath([folder, one]) == one for one in known)}


def _end() -> NoReturn:
    channel, number, size, parent = map(int, sys.argv[1:5])
    os.set_inheritable(channel, False)  # noqa: FBT003
    member = Member(number, size, socket.socket(fileno=channel), parent)
    member.start()
    status = main(member, json.loads(sys.argv[5]))
    flush()
    # As the command line does: what is left over, such as threads, does not hold the process.
    os._exit(status)


if __name__ == "__main__":
    _end()
