"""What the connections of one dispatcher share: limits, the clock, routes, slots, and whether it stops."""

from __future__ import annotations

from typing import Any, Final, final

import attrs
import trio

from kernel.abc import Context, Intake

from .._config import WebConfig
from ..wire.clock import Clock
from ..wire.turns import Turns
from .ended import Ended
from .events import SlotsTaken, ThreadsTaken
from .peers import Hosts, Proxies
from .routes import Routes

_TAKEN: Final = "all slots are taken: requests wait"
_PAUSED: Final = "the dispatcher is paused: requests wait, and websockets are refused"


@final
@attrs.define(eq=False, repr=False)
class Shared:
    """The shared part. `intake` and `routes` are there once the dispatcher accepts."""

    config: WebConfig
    context: Context
    clock: Clock
    turns: Turns = attrs.field(factory=Turns, init=False)
    """Of those who take much of what their clients sent."""
    intake: Intake = attrs.field(init=False)
    routes: Routes = attrs.field(init=False)
    hosts: Hosts = attrs.field(init=False)
    proxies: Proxies = attrs.field(init=False)
    ended: Ended = attrs.field(init=False)
    """What is told of requests."""
    stopping: bool = attrs.field(default=False, init=False)
    leaving: bool = attrs.field(default=False, init=False)
    """Whether each connection ends with its next answer, since other processes serve those who come."""
    websockets: int = attrs.field(default=0, init=False)
    """How many are open."""
    apart: int = attrs.field(default=0, init=False)
    """Requests that have given their slot up, since they wait for their clients."""
    waiting: set[trio.CancelScope] = attrs.field(factory=set[trio.CancelScope], init=False)
    """Of requests that wait for a slot."""
    _told_full: str = attrs.field(default="", init=False)
    """Why requests wait, as it was told."""
    _threads: trio.CapacityLimiter = attrs.field(factory=trio.to_thread.current_default_thread_limiter, init=False)
    """What frameworks run sync endpoints with."""
    _told_threads: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.ended = Ended(self.context, self.clock)
        self.hosts = Hosts(self.config.allowed_hosts)
        self.proxies = Proxies(self.config.trusted_proxies, self.config.proxy_headers)

    def tell_full(self) -> None:
        """Say why a request waits: once, until one gets a slot without waiting while nobody else waits."""
        why = _PAUSED if self.intake.is_paused else _TAKEN
        if self._told_full == why:
            return
        self._told_full, slots = why, self.intake.concurrency
        self.context.log.warning(why, slots=slots)
        if why == _TAKEN:
            self.context.emit(SlotsTaken(component=self.context.id, slots=slots))

    def tell_free(self) -> None:
        """Take note that a request got its slot at once."""
        if self._told_full and not self.waiting:
            self._told_full = ""

    def look_at_threads(self) -> None:
        """Say that every thread is taken and somebody waits for one: once, until one is free."""
        limiter = self._threads
        if limiter.borrowed_tokens < limiter.total_tokens:
            self._told_threads = False
        elif not self._told_threads and limiter.statistics().tasks_waiting:
            self._told_threads = True
            threads = int(limiter.total_tokens)
            self.context.log.warning("all threads are taken: sync endpoints wait", threads=threads)
            self.context.emit(ThreadsTaken(component=self.context.id, threads=threads))

    def note(self, scope: dict[str, Any], worker: str, began: float, status: int, sent: int) -> None:
        """Tell those who want to know of a request without a body that has ended; see `Ended.add`."""
        if self.ended.is_watched:
            self.ended.add(scope, worker, began, status, sent=sent)
