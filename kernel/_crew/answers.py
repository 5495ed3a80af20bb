"""What the control socket of a parent answers: orders about all processes, each of which has a socket of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

import trio

from .._control import client
from .._control.places import Place
from .._control.server import Answering, open_socket
from .._control.wire import RefusedError, Tell
from .._core.words import listed
from .parent import Parent
from .process import Process

_EACH: Final = ("reload", "restart", "pause", "resume", "log-level")
"""Orders that are passed on to each process."""
_WHOLE: Final = ("ps", "tree", "why", "stop")


async def answer_for_all(parent: Parent) -> None:  # noqa: ASYNC910  it waits for ever
    """Listen on the control socket of a crew, and answer, wherever it is to be: see `Parent.heard_as`.

    Cancellation: Is a checkpoint.
    """
    while True:
        name = parent.heard_as
        async with trio.open_nursery() as nursery:
            if name is not None:
                nursery.start_soon(_answer_as, parent, name)
            await parent.wait_heard_otherwise(name)
            nursery.cancel_scope.cancel()


async def _answer_as(parent: Parent, name: str) -> None:
    await trio.lowlevel.checkpoint()
    place = Place.of(name, os.environ)
    listener = open_socket(place, parent.log)
    if listener is None:
        return

    async def carry_out(request: Mapping[str, object], tell: Tell) -> None:
        await tell(await _answer(parent, dict(request)))

    try:
        await Answering(carry_out, str, parent.log).serve(listener)
    finally:
        place.path.unlink(missing_ok=True)


async def _answer(parent: Parent, request: dict[str, object]) -> object:
    await trio.lowlevel.checkpoint()
    order = str(request.pop("order", ""))
    if order == "restart" and not request.get("component"):
        return {"roll": parent.roll(), "restarts": [f"process {slot.number}" for slot in parent.slots]}
    if order == "stop":
        parent.stop(signal.SIGTERM, "kernel stop")
        return {"pid": os.getpid(), "grace_period": parent.grace_period}
    if order == "reload" and any(slot.fresh for slot in parent.slots):
        parent.roll()  # what is being started may have read the manifest before, and is not asked yet
    if order in _EACH:
        told = await _ask_each(parent, order, request)
        return next(filter(_is_amiss, told.values()), next(iter(told.values())))
    if order not in _WHOLE:
        one = "no process runs" if parent.size == 1 else f"such as --service {parent.planned['service']}.0"
        raise RefusedError(f"of one process only, {one}; of all: {listed(sorted({*_EACH, *_WHOLE}))}")
    told = await _ask_each(parent, order, request)
    for answer in told.values():
        answer.pop("manifest", None)  # it is said once, of the whole
    processes = [
        {"number": slot.number, **(told.get(slot.number) or _absent(parent, slot.number))} for slot in parent.slots
    ]
    return _service(parent, told) | {"processes": processes}


def _is_amiss(answer: Mapping[str, Any]) -> bool:
    """Whether a reload did not go well in a process: that is told, and not how it went in another."""
    return bool(answer.get("failed") or answer.get("refused") or answer.get("undone"))


async def _ask_each(parent: Parent, order: str, arguments: Mapping[str, object]) -> dict[int, Any]:
    """Return what each process answers, by its number.

    Raises:
        RefusedError: if one refuses, or none answers.
    """
    told: dict[int, Any] = {}
    refused: list[str] = []

    async def ask(process: Process) -> None:  # noqa: ASYNC910  the thread is waited for
        try:
            told[process.number] = await trio.to_thread.run_sync(
                lambda: client.ask(_place(process), order, **arguments)
            )
        except (RefusedError, client.UnansweredError) as error:
            refused.append(str(error))

    async with trio.open_nursery() as nursery:
        for process in parent.processes:
            if process.planned:  # else it does not listen yet
                nursery.start_soon(ask, process)
    if order in _EACH and (refused or not told):
        raise RefusedError(refused[0] if refused else "no process runs that has read the manifest: see `kernel tree`")
    return told


def _place(process: Process) -> Place:
    # Called as it has said itself, which another one, with another version of the manifest, may have said otherwise.
    return Place.of(f"{process.planned['service']}.{process.number}", os.environ, pid=process.pid)


def _service(parent: Parent, told: Mapping[int, Any]) -> dict[str, object]:
    """Return what is to be said of a crew as a whole."""
    now = trio.current_time()
    states = [one["state"] for one in told.values()]
    state = "stopping" if parent.is_stopping else "ready" if "ready" in states else "not ready"
    return {
        "service": parent.planned["service"],
        "pid": os.getpid(),
        "version": version("trio-kernel"),
        "manifest": parent.planned["manifest"],
        "state": state,
        "reason": parent.reason,
        "seconds": round(now - parent.began, 3),
        "stopping_for": round(now - parent.stopping_since, 3) if parent.is_stopping else 0.0,
        "blocked_for": 0.0,
        "blocked_at": "",
        "stop_budget": parent.planned["stop_budget"],
        "grace_period": parent.grace_period,
        "rolled": parent.rolled,
        "roll_failure": parent.roll_failure,
    }


def _absent(parent: Parent, number: int) -> dict[str, object]:
    slot = parent.slots[number]
    process = slot.fresh or slot.process
    if process is None:
        state = f"{'waiting for a change' if parent.watched else 'not running'}{f': it {slot.how}' * bool(slot.how)}"
        return {"pid": 0, "state": state, "restarts": slot.restarts}
    again = f"; the last one {slot.how}" * bool(slot.how and not process.is_ready)
    return {
        "pid": process.pid,
        "state": f"{'unanswering' if process.is_ready else 'starting'}{again}",
        "restarts": slot.restarts,
    }
