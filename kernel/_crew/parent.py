"""The parent of a crew: starts its processes, starts again what ends, replaces them one by one, and stops them together.

It imports nothing of the service: that is read, and checked, by its processes.

Long, since all that it decides follows from the same few facts: who is there, who is ready, and who is to end.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import attrs
import trio

from .._core.crew import Endpoint
from .._core.policies import RestartPolicy
from .looking import Looking
from .process import Process, collect, failure, started
from .roll import Roll
from .slot import CLEAN, FAILED, INVALID, Slot, gravest, how_it_ended, signal_name, status_of
from .sockets import Key, Sockets
from .wire import Frame

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_MARGIN: Final = 0.5
"""Seconds after the grace period in which a process ends itself, before it is killed."""

Beside: TypeAlias = Callable[["Parent"], Awaitable[None]]


@final
@attrs.define(eq=False, repr=False, kw_only=True)
class Parent:
    """Has so many processes of one service."""

    given: str
    """What each runs: see `kernel._cli.member`."""
    size: int
    policy: RestartPolicy
    open_log: Callable[[Mapping[str, Any]], FilteringBoundLogger]
    """Makes the log that fits to what a process has told of its service; of nothing, before."""
    on_ready: Callable[[Parent], None]
    """Called when all processes are ready for the first time."""
    tell_manager: Callable[..., None]
    """Tells systemd lines, if it listens."""
    beside: tuple[Beside, ...] = ()
    """What runs as long as the crew does."""
    watched: Path | None = None
    """The manifest's folder, if the service is to be started again when something in it has changed."""
    planned: Mapping[str, Any]
    """What is known of the service: what the process has told that took its place last, and before that what can be seen
    of its manifest from outside."""
    slots: list[Slot] = attrs.field(init=False)
    began: float = attrs.field(factory=trio.current_time, init=False)
    is_stopping: bool = attrs.field(default=False, init=False)
    reason: str = attrs.field(default="", init=False)
    """Of the stop."""
    stopping_since: float = attrs.field(default=0.0, init=False)
    log: FilteringBoundLogger = attrs.field(init=False)
    was_ready: bool = attrs.field(default=False, init=False)
    _sockets: Sockets = attrs.field(factory=Sockets, init=False)
    _alive: dict[Process, None] = attrs.field(factory=dict[Process, None], init=False)
    _leader: Process | None = attrs.field(default=None, init=False)
    _statuses: list[int] = attrs.field(factory=list[int], init=False)
    _may_start: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when the first process has read the manifest: what is wrong with that is said once."""
    rolls: int = attrs.field(default=0, init=False)
    """How many rolls were asked for; those that were asked for together are one."""
    rolled: int = attrs.field(default=0, init=False)
    """How many are over."""
    roll_failure: str = attrs.field(default="", init=False)
    """Why the last of these did not replace all processes; empty if it did."""
    _roll_wanted: trio.Event = attrs.field(factory=trio.Event, init=False)
    _generation: int = attrs.field(default=0, init=False)
    """How often the service has changed."""
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    """Where those wait who look again when a process has come, gone or told something, or the service has changed."""
    _looking: Looking = attrs.field(init=False)
    _nursery: trio.Nursery = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.slots = [Slot.of(number, self.policy) for number in range(self.size)]
        self.log = self.open_log(self.planned)
        self._looking = Looking(self._start_again)

    @property
    def grace_period(self) -> float:
        """Seconds that a stop may take."""
        return max((process.grace_period for process in self._alive), default=0.0)

    @property
    def processes(self) -> list[Process]:
        """Those that count: of each number, the one that has it."""
        return [slot.process for slot in self.slots if slot.process is not None]

    @property
    def heard_as(self) -> str | None:
        """What the service is called at the control socket of this parent; None if that is not to be there.

        A process that is the only one answers for itself, as soon as it has read the manifest.
        """
        is_heard = self.planned["control"] and not (self.size == 1 and any(one.planned for one in self._alive))
        return str(self.planned["service"]) if is_heard else None

    async def wait_heard_otherwise(self, name: str | None) -> None:  # noqa: ASYNC910  suspends only to wait
        """Wait until the service is called otherwise than by a name, at the control socket of this parent."""
        while self.heard_as == name:
            await self._changed.park()

    async def run(self) -> int:
        """Run the crew until it is told to stop, fails, or has nothing left to do; return the exit status.

        Cancellation: Is a checkpoint. If cancelled, all processes are killed.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._hear_signals, signals)
                self._nursery.start_soon(self._roll_when_wanted)
                for beside in self.beside:
                    self._nursery.start_soon(beside, self)
                if self.watched is not None:
                    self._looking.at([self.watched], self._nursery)
                async with trio.open_nursery() as keepers:
                    for slot in self.slots:
                        keepers.start_soon(self._keep, slot)
                while self._alive:
                    await next(iter(self._alive)).gone.wait()
                self._nursery.cancel_scope.cancel()
        return gravest(self._statuses)

    # --- one place ----------------------------------------------------------------------------------------------

    async def _keep(self, slot: Slot) -> None:  # noqa: ASYNC910  suspends only to wait
        """Have a process in a place, until it is to be empty."""
        if slot.number:
            await self._may_start.wait()
        while not self.is_stopping:
            try:
                process = slot.process = self._start(slot) if slot.process is None else slot.process
            except OSError as error:  # the system has no room for one more
                self.log.warning("cannot be started", component=f"process/{slot.number}", error=str(error))
                await slot.wait(self.policy.backoff_max)
                continue
            await process.gone.wait()
            if slot.process is not process:  # another one has its place
                continue
            slot.process, slot.how = None, how_it_ended(process)
            if slot.fresh is not None:
                await slot.fresh.settled.wait()
                if self._settle(slot):
                    continue
            if not await self._goes_on(slot, process):
                return

    async def _goes_on(self, slot: Slot, process: Process) -> bool:
        """Wait until a place is to have a process again; return whether it is to."""
        if self.is_stopping:
            return False  # noqa: ASYNC910  it has waited for its end
        if self.watched is not None:
            return await self._waits_for_change(slot, process)
        ended = process.ended or {}
        told = {"component": f"process/{slot.number}", "pid": process.pid}
        if ended.get("ran_to_end"):
            self._statuses.append(int(ended["status"]))
            return False  # noqa: ASYNC910  it has waited for its end
        if not self.was_ready and ended.get("status") in {FAILED, INVALID}:
            self.stop(signal.SIGTERM, "it cannot start", int(ended["status"]))
            return False  # noqa: ASYNC910  as above
        seconds = slot.history.next_wait(healthy_for=_healthy(process))
        if seconds is None:
            self.log.error("has been started again too often", how=how_it_ended(process), **told)
            self.stop(signal.SIGTERM, f"process {slot.number} has failed", FAILED)
            return False  # noqa: ASYNC910  as above
        slot.restarts += 1
        self.log.warning(how_it_ended(process), **told, again_in=round(seconds, 2))
        await slot.wait(seconds)
        return not self.is_stopping

    async def _waits_for_change(self, slot: Slot, process: Process) -> bool:
        """Wait until the service has changed since a process was started; return whether it is to be started again."""
        told = {"component": f"process/{slot.number}", "pid": process.pid}
        was_told_to = process.ended is not None and process.status == CLEAN and not process.ended["ran_to_end"]
        if was_told_to and not process.is_asked_to_end:
            self.stop(signal.SIGTERM, f"process {slot.number} was stopped")
            return False  # noqa: ASYNC910  it has waited for its end
        if slot.generation == self._generation:
            self.log.warning("waiting for a change", how=how_it_ended(process), **told)
        while slot.generation == self._generation and not self.is_stopping:
            await self._changed.park()
        return not self.is_stopping  # noqa: ASYNC910  as above

    def _start(self, slot: Slot) -> Process:
        slot.generation = self._generation
        process = started(slot.number, self.size, self.given, self._hear, keeps_code=self.watched is None)
        self._alive[process] = None
        self._changed.unpark_all()
        self._nursery.start_soon(self._see_off, process)
        return process

    def _settle(self, slot: Slot) -> bool:
        """Have what is fresh take a place, if it is ready; return whether it has."""
        if slot.settle() and slot.process is not None:
            self._take_over(slot.process.planned)
            return True
        return False

    async def _see_off(self, process: Process) -> None:
        try:
            await process.run()
        finally:
            del self._alive[process]
            self._changed.unpark_all()
            if process.is_asked_to_end and self.is_stopping:
                self._statuses.append(status_of(process))
            if process is self._leader:
                self._leader = None
                self._choose_leader()

    # --- what processes say ---------------------------------------------------------------------------------------

    def _hear(self, process: Process, frame: Frame) -> None:
        match frame:
            case {"planned": planned}:
                self._note_planned(process, planned)
            case {"ready": _}:
                self._note_ready(process)
            case {"listen": listen, "owner": owner, "id": id_}:
                self._listen(process, (owner, Endpoint(**listen)), id_)
            case {"leave": leave, "owner": owner}:
                self._leave(process, (owner, Endpoint(**leave)))
            case {"collect": name, "id": id_}:
                self._nursery.start_soon(self._tell_collected, process, name, id_)
            case _:
                pass

    def _note_planned(self, process: Process, planned: Mapping[str, Any]) -> None:
        if self.watched is not None:
            self._looking.at(map(Path, planned["folders"]), self._nursery)
        if all(slot.fresh is not process for slot in self.slots):  # which may yet turn out to be unfit
            self._take_over(planned)
        self._may_start.set()

    def _take_over(self, planned: Mapping[str, Any]) -> None:
        """Be the parent of what a process has told: what it is called, how it logs, when it is started again."""
        if planned["processes"] not in {self.size, self.planned.get("processes", self.size)}:
            text = "how many processes there are is read at the start: stop the service and start it to have another number"
            self.log.warning(text, component="kernel", processes=self.size, manifest=planned["processes"])
        self.planned = planned
        self.log = self.open_log(planned)
        self.policy = RestartPolicy(**planned["process_restart"])
        for slot in self.slots:
            slot.history.policy = self.policy
        self._changed.unpark_all()

    def _note_ready(self, process: Process) -> None:
        self._choose_leader()
        seconds = round(trio.current_time() - process.began, 2)
        self.log.info("ready", component=f"process/{process.number}", pid=process.pid, seconds=seconds)
        if not all(slot.process is not None and slot.process.is_ready and slot.fresh is None for slot in self.slots):
            return
        self._close_unwanted(self._sockets.held)
        if not self.was_ready:
            self.was_ready = True
            self.tell_manager("READY=1", f"STATUS=ready: {self.size} processes")
            self.on_ready(self)

    def _choose_leader(self) -> None:
        if self._leader is None and (found := next((one for one in self.processes if one.is_ready), None)):
            self._leader = found
            self._nursery.start_soon(found.tell, {"lead": True})

    def _listen(self, process: Process, key: Key, id_: int) -> None:
        try:
            number = self._sockets.at(key).fileno()
        except OSError as error:
            self._nursery.start_soon(process.tell, {"id": id_, **failure(error)})
            return
        process.sockets.add(key)
        self._nursery.start_soon(process.tell, {"id": id_, "has_descriptor": True}, number)

    def _leave(self, process: Process, key: Key) -> None:
        """Note that a process listens at a socket no longer; whoever connects is refused if nobody does."""
        process.sockets.discard(key)
        self._close_unwanted([key])

    def _close_unwanted(self, keys: Iterable[Key]) -> None:
        wanted = {key for process in self._alive for key in process.sockets}
        self._sockets.drop({*keys} - wanted)

    async def _tell_collected(self, process: Process, name: str, id_: int) -> None:
        told = await collect(self.processes, name)
        try:
            await process.tell({"id": id_, "told": told})
        except ValueError as error:  # all together it is too long
            self.log.warning("cannot be told", what=name, error=str(error))

    # --- all of them ----------------------------------------------------------------------------------------------

    async def _hear_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                self.roll()
            else:
                self.stop(number, signal_name(number))

    def stop(self, number: int, reason: str, status: int = CLEAN) -> None:
        """Have all processes stop in order, as by a signal; they have the grace period for it, and no longer.

        Args:
            number: Of the signal. A second SIGINT skips the drain.
            reason: Why.
            status: What the exit status is to be, if none is graver.
        """
        self._statuses.append(status)
        if not self.is_stopping:
            self.is_stopping, self.reason, self.stopping_since = True, reason, trio.current_time()
            self.tell_manager("STOPPING=1", f"STATUS=stopping: {reason}")
            self._sockets.close()
            self._may_start.set()
            self._changed.unpark_all()
            for slot in self.slots:
                slot.hasten()
            self._nursery.start_soon(self._kill_late)
        for process in list(self._alive):
            process.send_signal(number)

    async def _kill_late(self) -> None:
        await trio.sleep(self.grace_period + _MARGIN)
        for process in list(self._alive):
            self.log.error("is killed: grace_period is over", component=f"process/{process.number}", pid=process.pid)
            process.send_signal(signal.SIGKILL)

    def roll(self) -> int:
        """Have each process replaced by a new one, one after the other. Begun once more if it is wanted meanwhile.

        Returns the number of this roll, which is over when `rolled` has reached it.

        If it is watched, all are started again instead, as by a change: nobody wants two versions at work at once.
        """
        self.rolls += not self._roll_wanted.is_set()
        self._roll_wanted.set()
        return self.rolls

    async def _start_again(self, changed: list[str]) -> None:
        """Have all processes started again; the old ones stop in order first."""
        self._generation += 1
        self.log.info("starting again", component="kernel", changed=changed)
        async with trio.open_nursery() as nursery:
            for process in self.processes:
                nursery.start_soon(self._end, process)
        self._changed.unpark_all()

    async def _end(self, process: Process) -> None:
        await process.end(within=process.grace_period + _MARGIN)

    async def _roll_when_wanted(self) -> None:
        rolling = Roll(
            slots=self.slots,
            start=self._start,
            settle=self._settle,
            end=self._end,
            is_stopping=lambda: self.is_stopping,
            log=lambda: self.log,
        )
        while True:
            await self._roll_wanted.wait()
            self._roll_wanted, number = trio.Event(), self.rolls
            if self.watched is None:
                self.roll_failure = await self._roll_over(rolling)
            else:
                await self._start_again([])
            self.rolled = number

    async def _roll_over(self, rolling: Roll) -> str:
        """Replace each process; return why that was not done, empty if it was."""
        self.log.info("each process is replaced by a new one")
        failure = await rolling.run()
        if not failure:
            self._close_unwanted(self._sockets.held)
            self.log.info("all processes have been replaced")
        return failure


def _healthy(process: Process) -> float:
    return 0.0 if process.ready_at is None else trio.current_time() - process.ready_at
