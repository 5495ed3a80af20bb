"""What the connections of one dispatcher share: limits, the clock, routes, slots, and whether it stops."""

from __future__ import annotations

from typing import final

import attrs
import trio

from kernel.abc import Context, Intake

from .._config import WebConfig
from ..wire.clock import Clock
from .events import SlotsTaken
from .peers import Hosts, Proxies
from .routes import Routes


@final
@attrs.define(eq=False, repr=False)
class Shared:
    """The shared part. `intake` and `routes` are there once the dispatcher accepts."""

    config: WebConfig
    context: Context
    clock: Clock
    intake: Intake = attrs.field(init=False)
    routes: Routes = attrs.field(init=False)
    hosts: Hosts = attrs.field(init=False)
    proxies: Proxies = attrs.field(init=False)
    stopping: bool = attrs.field(default=False, init=False)
    websockets: int = attrs.field(default=0, init=False)
    """How many are open."""
    waiting: set[trio.CancelScope] = attrs.field(factory=set[trio.CancelScope], init=False)
    """Of requests that wait for a slot."""
    _told_full: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.hosts = Hosts(self.config.allowed_hosts)
        self.proxies = Proxies(self.config.trusted_proxies)

    def tell_full(self) -> None:
        """Say that every slot is taken: once, until a request gets one without waiting while nobody else waits."""
        if not self._told_full:
            self._told_full = True
            slots = self.intake.concurrency
            self.context.log.warning("all slots are taken: requests wait", slots=slots)
            self.context.emit(SlotsTaken(component=self.context.id, slots=slots))

    def tell_free(self) -> None:
        """Take note that a request got its slot at once."""
        if self._told_full and not self.waiting:
            self._told_full = False
