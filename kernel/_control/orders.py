"""What can be asked of a running service: one table of orders. To add one is to add its arguments, and a line.

An order runs in the control thread. It reads the tree from there, and changes it in the event loop of the service, by
`Desk.bridge`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any, Final, Literal, final

import attrs
import trio

from .._convert.structure import structure
from .._core.masks import Masks
from .._core.words import did_you_mean, listed
from .._log.log import Log
from .._supervise.kernel import Kernel
from .._supervise.why import Cause
from ..errors import KernelError
from .bridge import Bridge
from .changes import changes_as_json, reload_as_json
from .picture import Rates, cause_as_json, service_as_json, tree_as_json
from .tap import Tap
from .wire import RefusedError, Tell

LOCATED: Final = 20
"""Tasks of which the line of code is looked for, at most: that holds the loop."""


_LEAVING: Final = 1.0
"""Seconds in which one who has gone is noticed, however busy the machine."""


@final
@attrs.define(eq=False, repr=False)
class Desk:
    """What orders work with."""

    kernel: Kernel
    log: Log
    bridge: Bridge
    rates: Rates = attrs.field(factory=Rates, init=False)
    tapped: dict[str, trio.Event] = attrs.field(factory=dict[str, trio.Event], init=False)
    """Dispatchers that are, and what is set when one is no more."""

    @property
    def masks(self) -> Masks:
        """What no answer shows."""
        return self.log.settings.masks


@final
@attrs.frozen(repr=False)
class Order:
    """One thing that can be asked for."""

    arguments: type[object]
    """An attrs class: what the request says besides `order`."""
    carry_out: Callable[[Desk, Any, Tell], Awaitable[None]]
    """Answers; raises `RefusedError` if it does not do it."""


async def carry_out(desk: Desk, request: Mapping[str, object], tell: Tell) -> None:
    """Do what a request asks for.

    Raises:
        RefusedError: if it is not done.

    Cancellation: Is a checkpoint. If cancelled, what was begun in the event loop of the service goes on.
    """
    name = request.get("order")
    order = ORDERS.get(name) if isinstance(name, str) else None
    if order is None:
        raise RefusedError(f"no such order; there are: {listed(ORDERS)}")
    wrong: list[str] = []
    given = {key: value for key, value in request.items() if key != "order"}
    arguments = structure(given, order.arguments, report=lambda at, text: wrong.append(f"{'.'.join(at)}: {text}"))
    if arguments is None:
        raise RefusedError("; ".join(wrong))
    await order.carry_out(desk, arguments, tell)


# --- looking ------------------------------------------------------------------------------------------------------


@final
@attrs.frozen
class Nothing:
    """An order without arguments."""


async def _ps(desk: Desk, _: Nothing, tell: Tell) -> None:
    await tell(service_as_json(desk.kernel.snapshot(), _process(desk)))


async def _tree(desk: Desk, _: Nothing, tell: Tell) -> None:
    rates = await desk.rates.measure(desk.kernel.taken)
    kernel = desk.kernel
    await tell(
        service_as_json(kernel.snapshot(), _process(desk))
        | tree_as_json(kernel.snapshot(), rates=rates, deadlines=kernel.deadlines(), paused=kernel.paused)
        | {"log_records_lost": desk.log.lost}
    )


async def _why(desk: Desk, _: Nothing, tell: Tell) -> None:
    kernel = desk.kernel
    causes = await _located(desk, kernel.why())
    said = [cause_as_json(cause, now=kernel.now()) for cause in causes]
    await tell(service_as_json(kernel.snapshot(), _process(desk)) | {"causes": said})


async def _located(desk: Desk, causes: list[Cause]) -> list[Cause]:
    """Return causes with the lines of code at which their tasks are; without, if the event loop cannot be asked."""
    try:
        return await desk.bridge.ask(lambda: [one.located() for one in causes[:LOCATED]]) + causes[LOCATED:]
    except RefusedError:
        return desk.kernel.why()  # noqa: ASYNC910  it has waited; it is blocked, which was not seen before


def _process(desk: Desk) -> Mapping[str, object]:
    return {"pid": os.getpid(), "version": version("trio-kernel"), "manifest": desk.kernel.plan.path}


@final
@attrs.frozen
class TapArguments:
    """What `tap` is asked for."""

    dispatcher: str
    per_second: int = attrs.field(default=10, validator=[attrs.validators.ge(1), attrs.validators.le(100)])
    """Messages that are shown; more are counted."""
    characters: int = attrs.field(default=200, validator=[attrs.validators.ge(0), attrs.validators.le(10_000)])
    """Of a body."""


async def _tap(desk: Desk, arguments: TapArguments, tell: Tell) -> None:
    id_ = _component(desk, arguments.dispatcher, kind="dispatcher")
    await _wait_untapped(desk, id_)
    left = desk.tapped[id_] = trio.Event()
    tap = Tap(per_second=arguments.per_second, characters=arguments.characters)
    try:
        await desk.bridge.ask(_refusing(desk.kernel.tap), id_, tap.take)
        await tell({"tapped": id_})
        await tap.tell_all(tell)
    finally:
        try:
            with trio.CancelScope(shield=True):  # bounded by what the bridge waits
                await desk.bridge.ask(desk.kernel.tap, id_, None)
        finally:
            del desk.tapped[id_]
            left.set()


async def _wait_untapped(desk: Desk, id_: str) -> None:  # noqa: ASYNC910  suspends only to wait
    """Wait for one who is leaving, as a `kernel tap` that ended a moment ago; refuse beside one who stays."""
    with trio.move_on_after(_LEAVING):
        while (left := desk.tapped.get(id_)) is not None:
            await left.wait()
    if id_ in desk.tapped:
        raise RefusedError(f"{id_} is tapped already")


# --- steering -----------------------------------------------------------------------------------------------------


@final
@attrs.frozen
class Named:
    """What is about one component."""

    component: str


@final
@attrs.frozen
class Restarted:
    """What is to be restarted."""

    component: str = ""
    """Empty for each process as a whole, which only their parent can do."""


async def _restart(desk: Desk, arguments: Restarted, tell: Tell) -> None:
    if not arguments.component:
        raise RefusedError("only a service of several processes can be restarted as a whole; name a component")
    id_ = _component(desk, arguments.component)
    await tell({"restarts": await desk.bridge.ask(_refusing(desk.kernel.restart), id_)})


@final
@attrs.frozen
class Reload:
    """Whether a reload is done, or only what it would do is to be said."""

    dry: bool = False


async def _reload(desk: Desk, arguments: Reload, tell: Tell) -> None:
    try:
        if arguments.dry:
            old = desk.kernel.plan
            new, changes = await desk.bridge.run(desk.kernel.preview)
            await tell(changes_as_json(old, new, changes))
        else:
            await tell(reload_as_json(await desk.bridge.run(desk.kernel.reload)))
    except (KernelError, ValueError) as error:
        raise RefusedError(str(error)) from error


async def _pause(desk: Desk, arguments: Named, tell: Tell) -> None:
    id_ = _component(desk, arguments.component, kind="dispatcher")
    await desk.bridge.ask(_refusing(desk.kernel.pause), id_)
    await tell({"paused": id_})


async def _resume(desk: Desk, arguments: Named, tell: Tell) -> None:
    id_ = _component(desk, arguments.component, kind="dispatcher")
    await desk.bridge.ask(desk.kernel.resume, id_)
    await tell({"resumed": id_})


@final
@attrs.frozen
class LogLevel:
    """Which level is set, and of what."""

    level: Literal["debug", "info", "warning", "error"] | None = None
    """None changes nothing."""
    name: str = attrs.field(default="", validator=attrs.validators.max_len(200))
    """Of a logger or component; that of the service if it is empty."""


async def _log_level(desk: Desk, arguments: LogLevel, tell: Tell) -> None:
    levels = desk.log.settings.levels
    if arguments.level is not None:
        await desk.bridge.ask(partial(levels.change, arguments.level, name=arguments.name))
    await tell({"level": levels.level, "levels": dict(levels.named)})


async def _stop(desk: Desk, _: Nothing, tell: Tell) -> None:
    await tell({"pid": os.getpid(), "grace_period": desk.kernel.plan.grace_period})
    with trio.CancelScope(shield=True):  # who has its answer goes; bounded by what the bridge waits
        try:
            await desk.bridge.ask(desk.kernel.request_stop, "kernel stop")
        except RefusedError:
            os.kill(os.getpid(), signal.SIGTERM)  # which begins the grace period, although the loop is blocked


# --- names --------------------------------------------------------------------------------------------------------


def _component(desk: Desk, name: str, *, kind: str = "") -> str:
    """Return the id of what a name means: `kind/name`, or the name alone where one component has it."""
    ids = [child for child in desk.kernel.states if not kind or child.startswith(f"{kind}/")]
    ids += [] if kind else [f"service/{inner}" for inner in desk.kernel.plan.services]
    plain = {id_.partition("[")[0] for id_ in ids}
    found = [id_ for id_ in sorted({*ids, *plain}) if name in {id_, id_.partition("/")[2]}]
    if len(found) == 1:
        return found[0]
    if found:
        raise RefusedError(f"{name!r} may mean {listed(found, last='or')}")
    raise RefusedError(
        f"there is no {kind or 'component'} {name!r}{did_you_mean(name, [*ids, *(id_.partition('/')[2] for id_ in ids)])}; there are: {listed(ids)}"
    )


def _refusing(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that says as a refusal what it says as an error of its arguments."""

    def refusing(*arguments: object) -> object:
        try:
            return call(*arguments)
        except ValueError as error:
            raise RefusedError(str(error)) from error

    return refusing


ORDERS: Final[Mapping[str, Order]] = {
    "ps": Order(Nothing, _ps),
    "tree": Order(Nothing, _tree),
    "why": Order(Nothing, _why),
    "tap": Order(TapArguments, _tap),
    "reload": Order(Reload, _reload),
    "restart": Order(Restarted, _restart),
    "pause": Order(Named, _pause),
    "resume": Order(Named, _resume),
    "log-level": Order(LogLevel, _log_level),
    "stop": Order(Nothing, _stop),
}
