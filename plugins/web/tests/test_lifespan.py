"""The lifespan of an application, and what counts as one."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from fastapi import FastAPI, Request
from kernel_web import WebDispatcher

from kernel.abc import Work
from kernel.errors import StartupError


class Scoped(Work):
    label = worker = ""
    task: Any = None

    def __init__(self, scope: trio.CancelScope) -> None:
        self.scope = scope

    def cut(self) -> None:
        self.scope.cancel()


class Recorded:
    def __init__(self, *, startup: str = "complete", shutdown: str = "complete") -> None:
        self.steps: list[str] = []
        self.answers = {"startup": startup, "shutdown": shutdown}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        for step in ("startup", "shutdown"):
            assert (await receive()) == {"type": f"lifespan.{step}"}
            self.steps.append(step)
            if step == "startup":
                scope["state"]["pool"] = ["shared"]
            await send({"type": f"lifespan.{step}.{self.answers[step]}", "message": "no database"})


async def test_startup_comes_before_and_shutdown_after() -> None:
    app = Recorded()
    async with WebDispatcher.host(app, None) as hosted:
        inside = list(app.steps)
        state = hosted.state  # type: ignore[attr-defined]

    assert inside == ["startup"]
    assert app.steps == ["startup", "shutdown"]
    assert state == {"pool": ["shared"]}


async def test_a_failed_startup_says_why() -> None:
    with pytest.raises(StartupError, match=r"^the application's startup failed: no database$"):
        async with WebDispatcher.host(Recorded(startup="failed"), None):
            raise AssertionError


async def test_a_failed_shutdown_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"^the application's shutdown failed: no database$"):
        async with WebDispatcher.host(Recorded(shutdown="failed"), None):
            pass


async def test_an_application_without_lifespan_is_left_alone() -> None:
    async def raises(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError(scope["type"])

    async def returns(scope: Any, receive: Any, send: Any) -> None:
        pass

    for app in (raises, returns):
        async with WebDispatcher.host(app, None) as hosted:
            assert hosted.app is app  # type: ignore[attr-defined]


@pytest.mark.parametrize("asks", [True, False])
async def test_an_application_that_raises_once_it_was_told_to_start_is_named(
    caplog: pytest.LogCaptureFixture, asks: bool
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if asks:
            await receive()
        raise ValueError("no database")

    async with WebDispatcher.host(app, None):
        messages = [record.getMessage() for record in caplog.records]

    assert len(messages) == asks
    assert all("ValueError: no database" in message and f"{__file__}:" in message for message in messages)


async def test_an_application_that_answers_whatever_it_is_asked_is_left_alone(web: Any) -> None:
    """The plainest there is: it looks at no type, as the first page of every tutorial has it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    async with web(app, lifespan=True) as service, httpx.AsyncClient(base_url=service.url) as client:
        answer = await client.get("/")

    assert (answer.status_code, answer.text) == (200, "hello")


async def test_a_lifespan_that_fails_later_fails_its_worker() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await trio.sleep(0.01)
        raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        async with WebDispatcher.host(app, None):
            await trio.sleep_forever()


async def test_the_body_s_own_error_comes_out_as_it_is() -> None:
    app = Recorded()
    with pytest.raises(LookupError, match="mine"):
        async with WebDispatcher.host(app, None):
            raise LookupError("mine")

    assert app.steps == ["startup", "shutdown"]


async def test_cancellation_gets_through() -> None:
    with trio.move_on_after(0.01) as scope:
        async with WebDispatcher.host(Recorded(), None):
            await trio.sleep_forever()

    assert scope.cancelled_caught


@pytest.mark.slow
async def test_fastapi_works_with_state_streams_and_background_tasks(web: Any) -> None:
    steps: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        steps.append("start")
        yield {"greeting": "hello"}
        steps.append("stop")

    api = FastAPI(lifespan=lifespan)

    @api.get("/greet/{name}")
    async def greet(name: str, request: Request) -> dict[str, str]:
        await trio.lowlevel.checkpoint()
        return {"text": f"{request.state.greeting} {name}", "root": request.scope["root_path"]}

    async with web({"/api": api}, lifespan=True) as service, httpx.AsyncClient(base_url=service.url) as client:
        responses = [await client.get("/api/greet/you"), await client.get("/api/none")]

    assert responses[0].json() == {"text": "hello you", "root": "/api"}
    assert responses[1].status_code == 404
    assert steps == ["start", "stop"]


async def test_requests_have_ended_before_the_shutdown_begins() -> None:
    steps: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        steps.append("shutdown")
        await send({"type": "lifespan.shutdown.complete"})

    async def work(hosted: Any) -> None:
        with trio.CancelScope() as scope:
            request = Scoped(scope)
            hosted.begin(request)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.testing.wait_all_tasks_blocked()
                steps.append("request")
                hosted.end(request)

    async with trio.open_nursery() as nursery, WebDispatcher.host(app, None) as hosted:
        nursery.start_soon(work, hosted)
        await trio.testing.wait_all_tasks_blocked()

    assert steps == ["request", "shutdown"]


async def test_a_request_that_does_not_end_does_not_hold_the_shutdown(autojump_clock: trio.testing.MockClock) -> None:
    async with WebDispatcher.host(Recorded(), None) as hosted:
        hosted.begin(Scoped(trio.CancelScope()))  # type: ignore[attr-defined]

    assert trio.current_time() == pytest.approx(1.0)


async def test_each_request_has_its_own_state(web: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["seen"] = 0
            raise NotImplementedError
        scope["state"]["seen"] += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % scope["state"]["seen"]})

    async with web(app, lifespan=True) as service, httpx.AsyncClient(base_url=service.url) as client:
        texts = [(await client.get("/")).text for _ in range(2)]

    assert texts == ["1", "1"]


# --- what counts as an application ----------------------------------------------------------------------------------


async def function(scope: Any, receive: Any, send: Any) -> None: ...


async def with_driver(scope: Any, receive: Any, send: Any, db: object) -> None: ...


def factory() -> Any:
    return function


class Callable:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class WithProperty:
    @property
    def app(self) -> Any:
        return function


class WithAttribute:
    def __init__(self) -> None:
        self.app = function


class Nothing:
    pass


class WrongCall:
    def __call__(self, one: object) -> None: ...


async def handler(payload: object) -> None: ...


def name(worker: object) -> str:
    """Return what names a worker in the same way in every process."""
    return getattr(worker, "__name__", type(worker).__name__)


@pytest.mark.parametrize(
    "worker", [function, with_driver, factory, Callable, WithProperty, WithAttribute, Callable(), FastAPI()], ids=name
)
def test_a_worker_with_an_application_is_accepted(worker: object) -> None:
    assert list(WebDispatcher.check_worker(worker, None)) == []


@pytest.mark.parametrize("worker", [Nothing, WrongCall, Nothing(), handler, None], ids=name)
def test_a_worker_without_an_application_is_refused(worker: object) -> None:
    (problem,) = WebDispatcher.check_worker(worker, None)

    assert "scope, receive, send" in problem


@pytest.mark.parametrize(
    "instance", [function, functools.partial(with_driver, db=1), Callable(), WithProperty(), WithAttribute()], ids=name
)
async def test_an_instance_with_an_application_is_hosted(instance: object) -> None:
    async with WebDispatcher.host(instance, None) as hosted:
        assert callable(hosted.app)  # type: ignore[attr-defined]


async def test_an_instance_without_an_application_cannot_start() -> None:
    with pytest.raises(StartupError, match="of the type Nothing, which is no ASGI application"):
        async with WebDispatcher.host(Nothing(), None):
            raise AssertionError
