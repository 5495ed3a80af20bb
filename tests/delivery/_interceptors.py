"""Interceptors of every form and temper, and a service to put them into; for the tests of what they do."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import attrs
import pytest
import trio
from structlog.typing import FilteringBoundLogger

from kernel import (
    Incoming,
    Outgoing,
    Retry,
    StateChanged,
    current_delivery,
    handles,
)
from kernel._manifest.registry import Registry, discover
from kernel.abc import Context
from kernel.testing import RunningService

session: ContextVar[str] = ContextVar("session", default="nobody")
seen: list[Any] = []


# --- interceptors -----------------------------------------------------------------------------------------------------


class Session:
    """A session id from a context variable on one side to the other, in the usual form."""

    @asynccontextmanager
    async def sending(self, outgoing: Outgoing) -> AsyncGenerator[None]:
        outgoing.headers["session"] = session.get()
        yield

    @asynccontextmanager
    async def handling(self, incoming: Incoming) -> AsyncGenerator[None]:
        session.set(str(incoming.headers["session"]))
        yield


class Bare:
    """The same without a decorator."""

    async def sending(self, outgoing: Outgoing) -> AsyncGenerator[None]:
        outgoing.headers["session"] = session.get()
        yield

    async def handling(self, incoming: Incoming) -> AsyncGenerator[None]:
        session.set(str(incoming.headers["session"]))
        yield


class Static:
    """The same with nothing of its own."""

    @staticmethod
    @asynccontextmanager
    async def sending(outgoing: Outgoing) -> AsyncGenerator[None]:
        outgoing.headers["session"] = session.get()
        yield

    @classmethod
    async def handling(cls, incoming: Incoming) -> AsyncGenerator[None]:
        session.set(str(incoming.headers["session"]))
        yield


@attrs.frozen
class _Writing:
    outgoing: Outgoing

    async def __aenter__(self) -> None:
        self.outgoing.headers["session"] = session.get()

    async def __aexit__(self, *error: object) -> None:
        pass


@attrs.frozen
class _Reading:
    incoming: Incoming

    async def __aenter__(self) -> None:
        session.set(str(self.incoming.headers["session"]))

    async def __aexit__(self, *error: object) -> None:
        pass


class Written:
    """The same with context managers that are classes."""

    def sending(self, outgoing: Outgoing) -> _Writing:
        return _Writing(outgoing)

    def handling(self, incoming: Incoming) -> _Reading:
        return _Reading(incoming)


class Plain:
    """The same where nothing is waited for."""

    @contextmanager
    def sending(self, outgoing: Outgoing) -> Generator[None]:
        outgoing.headers["session"] = session.get()
        yield

    @contextmanager
    def handling(self, incoming: Incoming) -> Generator[None]:
        session.set(str(incoming.headers["session"]))
        yield


class PlainBare:
    """The same without a decorator."""

    def sending(self, outgoing: Outgoing) -> Generator[None]:
        outgoing.headers["session"] = session.get()
        yield

    def handling(self, incoming: Incoming) -> Generator[None]:
        session.set(str(incoming.headers["session"]))
        yield


FORMS = [Session, Bare, Static, Written, Plain, PlainBare]


class Watch:
    """Notes when it begins and ends, and with what."""

    name = "watch"

    async def sending(self, outgoing: Outgoing) -> AsyncGenerator[None]:
        async with self._noted(outgoing):
            yield

    async def handling(self, incoming: Incoming) -> AsyncGenerator[None]:
        async with self._noted(incoming):
            yield

    @asynccontextmanager
    async def _noted(self, what: object) -> AsyncGenerator[None]:
        seen.append((self.name, "begins"))
        try:
            yield
        except BaseException as error:
            seen.append((self.name, type(error).__name__))
            raise
        seen.append((self.name, "ends"))


class Inner(Watch):
    name = "inner"


class Breaks:
    """Raises where the test says."""

    before: BaseException | None = None
    after: BaseException | None = None

    async def sending(self, outgoing: object) -> AsyncGenerator[None]:
        if self.before:
            raise self.before
        yield
        if self.after:
            raise self.after

    handling = sending


class Hangs:
    """Waits for ever where the test says."""

    where = "before"

    async def sending(self, outgoing: object) -> AsyncGenerator[None]:
        try:
            if self.where == "before":
                await trio.sleep_forever()
            yield
            if self.where == "after":
                await trio.sleep_forever()
        except trio.Cancelled:
            seen.append("cancelled")
            raise

    handling = sending


class Keeps:
    """Keeps to itself what is raised inside of it."""

    async def sending(self, outgoing: object) -> AsyncGenerator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  it is what the test is about
            seen.append(type(error).__name__)

    handling = sending


class NeverYields:
    async def sending(self, outgoing: object) -> AsyncGenerator[None]:
        if session.get() == "never":
            yield

    handling = sending


class YieldsTwice:
    async def sending(self, outgoing: object) -> AsyncGenerator[None]:
        yield
        yield

    handling = sending


class PlainBreaks:
    """`Breaks` that waits for nothing."""

    def sending(self, outgoing: object) -> Generator[None]:
        if Breaks.before:
            raise Breaks.before
        yield
        if Breaks.after:
            raise Breaks.after

    handling = sending


class PlainKeeps:
    """`Keeps` that waits for nothing."""

    def sending(self, outgoing: object) -> Generator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  as there
            seen.append(type(error).__name__)

    handling = sending


@attrs.frozen
class _Keeping:
    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> bool:
        seen.append("" if kind is None else kind.__name__)
        return True


class WrittenKeeps:
    """`Keeps` with a class."""

    def sending(self, outgoing: object) -> _Keeping:
        return _Keeping()

    handling = sending


class Swallows:
    """Keeps to itself what nobody may keep."""

    async def sending(self, outgoing: object) -> AsyncGenerator[None]:
        try:
            yield
        except BaseException as error:  # noqa: BLE001, ASYNC103  it is what the test is about
            seen.append(type(error).__name__)

    handling = sending


class PlainSwallows:
    """`Swallows` that waits for nothing."""

    def sending(self, outgoing: object) -> Generator[None]:
        try:
            yield
        except BaseException as error:  # noqa: BLE001  as there
            seen.append(type(error).__name__)

    handling = sending


class OwnScope:
    """Ends what takes longer than a second, and does not mind."""

    def sending(self, outgoing: object) -> Generator[None]:
        with trio.move_on_after(1.0):
            yield

    handling = sending


class NoManager:
    """Has forgotten the `yield`."""

    def sending(self, outgoing: object) -> Any:
        seen.append("called")

    handling = sending


class PlainNever:
    def sending(self, outgoing: object) -> Generator[None]:
        if session.get() == "never":
            yield

    handling = sending


class PlainTwice:
    def sending(self, outgoing: object) -> Generator[None]:
        yield
        yield

    handling = sending


class Looks:
    """Looks at all that there is to see."""

    async def sending(self, outgoing: Outgoing) -> AsyncGenerator[None]:
        seen.append((outgoing.subject, outgoing.payload, dict(outgoing.headers), outgoing.is_call, repr(outgoing)))
        try:
            yield
        finally:
            seen.append((outgoing.answer and outgoing.answer.body, outgoing.result))

    async def handling(self, incoming: Incoming) -> AsyncGenerator[None]:
        seen.append((incoming.worker, incoming.method, incoming.payload, len(incoming.deliveries), repr(incoming)))
        seen.append(incoming.delivery is current_delivery())
        yield
        seen.append(incoming.result)


class Wants:
    """Asks for what a worker may ask for, and is open for a life."""

    def __init__(self, log: FilteringBoundLogger, logger: logging.Logger, context: Context, out: Any = None) -> None:
        seen.append((logger.name, context.id, out))

    async def __aenter__(self) -> None:
        seen.append("opened")

    async def __aexit__(self, *error: object) -> None:
        seen.append("closed")

    async def sending(self, outgoing: object) -> AsyncGenerator[None]:
        yield

    handling = sending


class Hears:
    """Asks for events."""

    def __init__(self, events: trio.MemoryReceiveChannel[StateChanged]) -> None:
        self.events = events

    async def handling(self, incoming: Incoming) -> AsyncGenerator[None]:
        seen.append(type(self.events.receive_nowait()).__name__)
        yield


@pytest.fixture(autouse=True)
def stands(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a module `stands`, whose classes a manifest can name: these here, and those of the tests."""
    seen.clear()
    module = ModuleType("stands")
    own = {__name__, request.module.__name__}
    for value in [*globals().values(), *vars(request.module).values()]:
        if isinstance(value, type) and value.__module__ in own:
            setattr(module, value.__name__, value)
    monkeypatch.setitem(sys.modules, "stands", module)
    for cls, name in ((Breaks, "before"), (Breaks, "after"), (Hangs, "where")):
        monkeypatch.setattr(cls, name, getattr(cls, name))


# --- a service --------------------------------------------------------------------------------------------------------


class Worker:
    @handles("order.created")
    async def take(self, order: Any) -> Any:
        await trio.lowlevel.checkpoint()
        seen.append(("handled", order, session.get()))
        if order == "fails":
            raise ValueError("no boxes")
        if order == "hangs":
            await trio.sleep_forever()
        if order == "again":
            return Retry(1.0)
        return "done"


def paths(*classes: type[object]) -> list[str]:
    return [f"stands:{cls.__name__}" for cls in classes]


def service(
    *, out: Any = (), call: Any = (), take: Any = (), worker: type[object] = Worker, tables: Any = None, **more: Any
) -> dict[str, Any]:
    tables, wired = tables or {}, {"driver": "queue", "protocol": "json"}
    manifest = {
        "kernel": {"name": "shop"},
        "drivers": {
            "queue": {"plugin": "memory"},
            "out": {"plugin": "publisher", **wired, "interceptors": paths(*out), **tables.get("out", {})},
            "call": {"plugin": "rpc_client", **wired, "interceptors": paths(*call), **tables.get("call", {})},
            **tables.get("drivers", {}),
        },
        "dispatchers": {
            "take": {
                "plugin": "consumer",
                **wired,
                "queue": "orders",
                "bindings": ["order.*"],
                "interceptors": paths(*take),
                **tables.get("take", {}),
            }
        },
        "workers": {
            "packer": {
                "use": "packer",
                "dispatcher": "take",
                "retry": {"attempts": 2, "backoff_initial": 0.5, "jitter": 0.0},
                **tables.get("packer", {}),
            },
            **tables.get("workers", {}),
        },
    }
    own = Registry.of({"workers": {"packer": worker, "last": Last, "second": Worker}})
    return {"manifest": manifest, "registry": Registry((*discover().plugins, *own.plugins)), **more}


class Last:
    @handles("#")
    async def bury(self, failure: Any) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(("buried", session.get()))


async def publish(kernel: RunningService, payload: object, **more: Any) -> None:
    await kernel.publish("out", "order.created", payload, **more)
