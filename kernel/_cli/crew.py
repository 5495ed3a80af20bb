"""`kernel run --processes`: a parent with its processes, a log of what becomes of them, and a line once all are ready."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio

from .._core.masks import Masks
from .._core.policies import RestartPolicy
from .._crew.answers import answer_for_all
from .._crew.notify import keep_alive, tell_systemd
from .._crew.parent import Parent
from .._log.levels import Levels
from .._log.log import Log, LogSettings
from .console import OutputError, look_of, say
from .service import ServiceOptions
from .source import Source

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


def run_crew(source: Source, options: ServiceOptions, *, size: int, restart: RestartPolicy, watches: bool) -> int:
    """Run a service in several processes until it ends; return the exit status.

    Args:
        source: The manifest.
        options: How each runs.
        size: How many there are.
        restart: When one that has ended is started again.
        watches: Whether all are started again when code or manifest have changed, and not when they have ended.
    """
    return trio.run(_run, source, options, size, restart, Path(source.path).parent if watches else None)


async def _run(source: Source, options: ServiceOptions, size: int, restart: RestartPolicy, watched: Path | None) -> int:
    name, control = source.seen()
    parent = Parent(
        given=json.dumps({"source": attrs.asdict(source), "options": attrs.asdict(options)}),
        size=size,
        policy=restart,
        planned={"service": name, "manifest": source.path, "control": control, "stop_budget": 0.0},
        open_log=partial(_log, options),
        on_ready=_show,
        tell_manager=partial(tell_systemd, os.environ),
        beside=(answer_for_all, keep_alive),
        watched=watched,
    )
    return await parent.run()


def _log(options: ServiceOptions, planned: Mapping[str, Any]) -> FilteringBoundLogger:
    """Return the log of the parent, which says it as its processes do."""
    as_json = planned.get("as_json", bool(options.as_json))
    settings = LogSettings(
        service=planned.get("service", ""),
        levels=Levels(level=planned.get("level") or options.log_level or "info"),
        as_json=as_json,
        colour=look_of(sys.stderr).colour and not as_json,
        masks=Masks(),
    )
    return Log(settings).logger()


def _show(parent: Parent) -> None:
    """Say on standard output that all are ready, unless the log says all in JSON; one process says it itself."""
    if parent.planned["as_json"] or parent.size == 1:
        return
    lines = [f"{parent.planned['service']} is ready after {trio.current_time() - parent.began:.2f} s"]
    for process in parent.processes:
        branch = "└─" if process.number == parent.size - 1 else "├─"
        lines.append(f"{branch} process {process.number}  ready  pid {process.pid}")
    with suppress(OutputError):  # a service does not end because nobody can read its output
        say("\n".join(lines))
