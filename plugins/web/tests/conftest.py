"""A dispatcher over a loopback socket, with an intake that drains and cuts as the kernel does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs
import pytest
import structlog
import trio
from kernel_web import WebConfig, WebDispatcher, WebOptions

from kernel import Listening
from kernel.abc import Delivery, Intake, Target, Work
from kernel.errors import UnavailableError
from kernel.testing import fake_context

PATIENCE = 20.0
"""Seconds after which a test that waits for something has failed."""


class FakeTarget(Target):
    name = ""
    options: object = None

    def __init__(self, name: str, options: object, app: object) -> None:
        self.name = name
        self.options = options
        self.app = app

    def hosted(self) -> object:
        if self.app is None:
            raise UnavailableError(f"worker/{self.name} is not ready")
        return self.app


class FakeIntake(Intake):
    concurrency = 1
    targets: Sequence[Target] = ()
    is_paused = False

    def __init__(self, concurrency: int, targets: Sequence[Target]) -> None:
        self.concurrency = concurrency
        self.targets = targets
        self.entered: list[tuple[str, str]] = []
        self.active: dict[Work, bool] = {}
        self.changed = trio.Event()
        self.free = trio.Semaphore(concurrency)
        self.is_cut = False

    async def submit(self, delivery: Delivery, *, revocable_as: str = "") -> None:
        raise NotImplementedError

    def revoke(self, name: str) -> bool:
        raise NotImplementedError

    async def handle(self, delivery: Delivery) -> Any:
        raise NotImplementedError

    def enter_nowait(self, work: Work, *, counts: bool = True) -> None:
        if counts and self.is_paused:
            raise trio.WouldBlock
        if counts:
            self.free.acquire_nowait()
        self._begin(work, counts)

    async def enter(self, work: Work) -> None:
        await self.free.acquire()
        self._begin(work, True)

    def _begin(self, work: Work, counts: bool) -> None:
        self.active[work] = counts
        self.entered.append((work.label, work.worker))
        self._tell()
        if self.is_cut:
            work.cut()

    def give_up_slot(self, work: Work) -> bool:
        had_one = self.active.get(work, False)
        if had_one:
            self.active[work] = False
            self.free.release()
        return had_one

    def leave(self, work: Work) -> None:
        if self.active.pop(work):
            self.free.release()
        self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def wait(self, condition: Callable[[FakeIntake], bool]) -> None:
        with trio.fail_after(PATIENCE):
            while not condition(self):
                await self.changed.wait()

    async def drain(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            while self.active:
                await self.changed.wait()
        self.is_cut = True
        for work in list(self.active):
            work.cut()
        with trio.fail_after(PATIENCE):
            while self.active:
                await self.changed.wait()


@attrs.define(eq=False)
class Service:
    dispatcher: WebDispatcher
    intake: FakeIntake
    targets: dict[str, FakeTarget]
    accepting: trio.CancelScope
    addresses: list[str]
    logs: list[dict[str, Any]]
    events: list[Any]
    at_return: int = 0
    """Requests in flight when `accept` returned: those that a drain waits for."""
    accepted: trio.Event = attrs.field(factory=trio.Event)
    leaving: trio.Event = attrs.field(factory=trio.Event)
    left: trio.Event = attrs.field(factory=trio.Event)

    @property
    def url(self) -> str:
        return self.addresses[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def connections(self) -> int:
        server = self.dispatcher._server
        assert server is not None
        return len(server.connections)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def ask(self, *parts: bytes) -> bytes:
        """Send bytes and return everything that comes back until the server closes."""
        with trio.fail_after(PATIENCE):
            async with await self.connect() as stream:
                for part in parts:
                    await stream.send_all(part)
                return await read_all(stream)

    async def stop_accepting(self) -> None:
        self.accepting.cancel()
        with trio.fail_after(PATIENCE):
            await self.accepted.wait()

    async def stop(self, *, drain: float = 0.0) -> float:
        """Do what the kernel does, and return how long it took."""
        began = trio.current_time()
        await self.stop_accepting()
        await self.intake.drain(drain)
        await self.leave()
        return trio.current_time() - began

    async def leave(self) -> float:
        """Leave `open`, and return how long it took."""
        began = trio.current_time()
        self.leaving.set()
        with trio.fail_after(PATIENCE):
            await self.left.wait()
        return trio.current_time() - began

    async def serve(self, task_status: trio.TaskStatus[None]) -> None:
        async with self.dispatcher.open():
            with self.accepting:
                await self.dispatcher.accept(self.intake, task_status=task_status)
            self.at_return = len(self.intake.active)
            self.accepted.set()
            await self.leaving.wait()
        self.left.set()

    async def wait_connections(self, count: int) -> None:
        """Wait until so many connections are open; polls, because nothing tells about a closed socket."""
        with trio.fail_after(PATIENCE):
            while self.connections != count:  # noqa: ASYNC110  see above
                await trio.sleep(0.005)


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    received = b""
    try:
        async for chunk in stream:
            received += chunk
    except trio.BrokenResourceError:
        pass
    return received


@asynccontextmanager
async def open_web(
    app: object,
    *,
    concurrency: int = 10,
    stop_timeout: float = 0.4,
    lifespan: bool = False,
    options: Mapping[str, Mapping[str, Any]] = {},
    **config: Any,
) -> AsyncIterator[Service]:
    """Serve one application, several by prefix, or pairs of a prefix and an application."""
    pairs = list(app.items()) if isinstance(app, Mapping) else app if isinstance(app, list) else [("/", app)]
    events: list[Any] = []
    logs: list[dict[str, Any]] = []
    context = attrs.evolve(
        fake_context("dispatcher/web", events=events, stop_timeout=stop_timeout), log=_recorder(logs)
    )
    config.setdefault("bind", "127.0.0.1:0")
    dispatcher = WebDispatcher(config=WebConfig(**config), context=context)
    async with AsyncExitStack() as hosts:
        targets = {}
        for number, (prefix, each) in enumerate(pairs):
            chosen = WebOptions(prefix=prefix, **options.get(prefix, {}))
            hosted = await hosts.enter_async_context(
                WebDispatcher.host(each if lifespan or hasattr(each, "router") else _without_lifespan(each), chosen)
            )
            target = FakeTarget(name=f"app{number}", options=chosen, app=hosted)
            targets[prefix if prefix not in targets else target.name] = target
        intake = FakeIntake(concurrency=concurrency, targets=list(targets.values()))
        service = Service(dispatcher, intake, targets, trio.CancelScope(), [], logs, events)
        async with trio.open_nursery() as nursery:
            await nursery.start(service.serve)
            service.addresses = [event.address for event in events if isinstance(event, Listening)]
            yield service
            await service.stop()


def _without_lifespan(app: Any) -> Any:
    async def requests_only(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await app(scope, receive, send)

    return requests_only


def _recorder(logs: list[dict[str, Any]]) -> Any:
    def record(_logger: object, method: str, event: Any) -> str:
        logs.append({"level": method, **event})
        raise structlog.DropEvent

    return structlog.wrap_logger(None, processors=[record], wrapper_class=structlog.make_filtering_bound_logger(0))


@pytest.fixture
def web() -> Callable[..., Any]:
    return open_web
