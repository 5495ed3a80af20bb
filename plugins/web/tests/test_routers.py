"""Workers that bring routers of FastAPI: one API with one document, and each worker for itself."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from fastapi import APIRouter, FastAPI, HTTPException, WebSocket, WebSocketDisconnect
from kernel_web import OpenApiConfig, RequestDone, ThreadsTaken, WebConfig, WebDispatcher, WebOptions
from pydantic import BaseModel
from trio_websocket import open_websocket_url

from kernel.abc import Candidate
from kernel.errors import QueueFullError, StartupError, StorageError, UnavailableError, UnknownOutcomeError


class Order(BaseModel):
    sku: str


class Orders:
    def __init__(self) -> None:
        self.router = APIRouter(prefix="/orders", tags=["orders"])
        self.router.get("/{number}")(self.read)
        self.router.post("")(self.take)

    async def read(self, number: int) -> dict[str, int]:
        await trio.lowlevel.checkpoint()
        return {"number": number}

    async def take(self, order: Order) -> Order:
        await trio.lowlevel.checkpoint()
        return order


class Stock:
    """Has a path below that of the other, and a model of the same name."""

    def __init__(self) -> None:
        class Order(BaseModel):
            count: int

        async def count() -> Order:
            await trio.lowlevel.checkpoint()
            return Order(count=3)

        async def echo(socket: WebSocket) -> None:
            await socket.accept()
            with contextlib.suppress(WebSocketDisconnect):
                while True:
                    await socket.send_text(await socket.receive_text())

        count.__annotations__["return"] = Order
        self.router = APIRouter()
        self.router.get("/orders/all/count")(count)
        self.router.websocket("/echo")(echo)


def client(service: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=service.url)


@pytest.mark.parametrize(
    ("method", "path", "worker", "status"),
    [
        ("GET", "/orders/7", "app0", 200),
        ("POST", "/orders", "app0", 200),
        ("GET", "/orders/all/count", "app1", 200),
        ("DELETE", "/orders/7", "app0", 405),
        ("GET", "/orders/x", "app0", 422),
        ("GET", "/orders/7/", "app0", 307),
        ("GET", "/nothing", "app0", 404),
        ("GET", "/", "app0", 404),
    ],
)
async def test_the_worker_whose_router_has_the_route_serves_it(
    web: Any, method: str, path: str, worker: str, status: int
) -> None:
    async with web([("/", Orders()), ("/", Stock())]) as service, client(service) as http:
        answer = await http.request(method, path, json={"sku": "tea"} if method == "POST" else None)

    assert answer.status_code == status
    assert [name for _, name in service.intake.entered] == [worker]


async def test_a_websocket_goes_to_the_router_that_has_it(web: Any) -> None:
    async with (
        web([("/", Orders()), ("/", Stock())]) as service,
        open_websocket_url(f"{service.url.replace('http', 'ws')}/echo") as socket,
    ):
        await socket.send_message("hello")
        said = await socket.get_message()

    assert said == "hello"


async def test_all_routers_have_one_document(web: Any) -> None:
    workers = [("/", Orders()), ("/", Stock()), ("/v2", Orders()), ("/old", FastAPI())]
    openapi = OpenApiConfig(title="Shop", version="7")
    async with web(workers, root_path="/api", openapi=openapi) as service, client(service) as http:
        document = (await http.get("/openapi.json")).json()
        page = (await http.get("/docs")).text
        denied = await http.post("/docs")
        kept = await http.get("/old/openapi.json")

    assert set(document["paths"]) == {
        "/orders/{number}",
        "/orders",
        "/orders/all/count",
        "/v2/orders/{number}",
        "/v2/orders",
    }
    assert document["info"] == {"title": "Shop", "version": "7"}
    assert document["servers"] == [{"url": "/api"}]
    models = [name for name in document["components"]["schemas"] if name.endswith("Order")]
    assert len(models) == 2  # of one name, and told apart
    assert "/api/openapi.json" in page
    assert denied.status_code == 405
    assert kept.json()["paths"] == {}


async def test_the_document_is_only_there_if_there_are_routers_and_a_prefix_comes_first(web: Any) -> None:
    async with web(FastAPI(docs_url="/docs", openapi_url="/openapi.json")) as service, client(service) as http:
        of_application = (await http.get("/openapi.json")).json()
    async with web([("/", Orders()), ("/docs", FastAPI(openapi_url=None))]) as service, client(service) as http:
        of_worker = await http.get("/docs")
    nothing = OpenApiConfig(path="")
    async with web(Orders(), openapi=nothing) as service, client(service) as http:
        off = [(await http.get(path)).status_code for path in ("/openapi.json", "/docs")]

    assert of_application["info"]["title"] == "FastAPI"
    assert of_worker.status_code == 404
    assert off == [404, 404]


async def test_what_a_worker_that_is_not_ready_may_serve_is_not_denied(web: Any) -> None:
    async with web([("/", Orders()), ("/", Stock())]) as service, client(service) as http:
        hosted, service.targets["app1"].app = service.targets["app1"].app, None
        unknown = [(await http.get(path)).status_code for path in ("/orders/all/count", "/orders/7")]
        service.targets["app1"].app = hosted
        known = (await http.get("/orders/all/count")).status_code
        service.targets["app1"].app = None
        away = [(await http.get(path)).status_code for path in ("/orders/all/count", "/orders/7", "/nothing")]

    assert unknown == [503, 200]
    assert known == 200
    assert away == [503, 200, 404]


async def test_a_restart_may_bring_other_routes_and_runs_the_lifespan_of_the_router(web: Any) -> None:
    steps: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        steps.append("start")
        yield
        steps.append("stop")

    class Reborn:
        def __init__(self) -> None:
            self.router = APIRouter(lifespan=lifespan)
            self.router.get(f"/life{len(steps)}", status_code=204)(lambda: None)

    async with web([("/", Reborn()), ("/", Orders())]) as service, client(service) as http:
        first = [(await http.get(path)).status_code for path in ("/life0", "/life2")]
        async with WebDispatcher.host(Reborn(), None):
            pass
        async with WebDispatcher.host(Reborn(), None) as hosted:
            service.targets["/"].app.is_over = True
            service.targets["/"].app = hosted
            second = [(await http.get(path)).status_code for path in ("/life0", "/life3")]
            document = (await http.get("/openapi.json")).json()
        service.targets["/"].app = None

    assert first == [204, 404]
    assert second == [404, 204]
    assert "/life3" in document["paths"]
    assert steps == ["start", "start", "stop", "start", "stop", "stop"]


async def test_requests_are_told_with_the_worker_of_the_router(web: Any) -> None:
    async with web([("/", Orders()), ("/", Stock())], access_log="text", access_log_file="/dev/null") as service:
        async with client(service) as http:
            await http.get("/orders/all/count")
            await http.get("/docs")
        told = [event.worker for event in service.events if isinstance(event, RequestDone)]

    assert told == ["worker/app1", ""]


# --- what an endpoint raises ------------------------------------------------------------------------------------------


class Failing:
    """Endpoints that raise an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.router = APIRouter()
        self.router.get("/async")(self.fail)
        self.router.get("/sync")(self.fail_in_thread)

    async def fail(self) -> None:
        await trio.lowlevel.checkpoint()
        raise self.error

    def fail_in_thread(self) -> None:
        raise self.error


@pytest.mark.parametrize("path", ["/async", "/sync"])
@pytest.mark.parametrize(
    "error", [UnavailableError("x"), UnknownOutcomeError("x"), QueueFullError("x"), StorageError("x")], ids=repr
)
async def test_an_endpoint_whose_broker_is_away_is_a_503(web: Any, error: Exception, path: str) -> None:
    async with web(Failing(error)) as service, client(service) as http:
        answer = await http.get(path)

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert [line["event"] for line in service.logs if line["level"] == "error"] == ["the application failed"]


@pytest.mark.parametrize(
    ("error", "status", "text", "told"),
    [
        (ValueError("secret"), 500, "500 Internal Server Error", ["the application failed"]),
        (HTTPException(409, "taken"), 409, '{"detail":"taken"}', []),
    ],
    ids=["any other", "FastAPI's own"],
)
async def test_other_errors_of_an_endpoint_are_what_they_were(
    web: Any, error: Exception, status: int, text: str, told: list[str]
) -> None:
    async with web(Failing(error)) as service, client(service) as http:
        answer = await http.get("/async")

    assert (answer.status_code, answer.text.strip()) == (status, text)
    assert [line["event"] for line in service.logs if line["level"] == "error"] == told


# --- what a worker may be --------------------------------------------------------------------------------------------


class Both:
    router = APIRouter()

    def __init__(self) -> None:
        self.app = FastAPI()


class Annotated:
    router: APIRouter


class Neither:
    router = "a string"


ROUTED = APIRouter()


def build() -> FastAPI:
    return FastAPI()


@pytest.mark.parametrize(
    ("first", "second", "is_allowed"),
    [
        (Orders, Stock, True),
        (Orders, ROUTED, True),
        (Annotated, Orders, True),
        (Orders, Both, False),
        (FastAPI(), Orders, False),
        (build, Orders, False),
        (None, Orders, False),
    ],
    ids=["classes", "an object", "by annotation", "an app as well", "an application", "a function", "not imported"],
)
def test_only_routers_may_share_a_prefix(first: object, second: object, is_allowed: bool) -> None:
    workers = {"one": Candidate(worker=first, options=WebOptions()), "two": Candidate(worker=second, options=None)}

    assert (list(WebDispatcher.check_workers(WebConfig(), workers)) == []) is is_allowed


@pytest.mark.parametrize("worker", [Orders, Both, Annotated, ROUTED], ids=["set", "both", "annotated", "object"])
def test_a_router_is_enough(worker: object) -> None:
    assert list(WebDispatcher.check_worker(worker, None)) == []


async def test_what_looks_like_a_router_and_is_none_does_not_start() -> None:
    with pytest.raises(StartupError, match=r"an object of the type Neither, which is no ASGI application"):
        async with WebDispatcher.host(Neither(), None):
            raise AssertionError


async def test_a_router_that_fastapi_does_not_take_is_a_startup_error() -> None:
    router = APIRouter()
    router.get("")(lambda: None)
    with pytest.raises(StartupError, match=r"^FastAPI does not take the router: Prefix and path cannot be both empty"):
        async with WebDispatcher.host(router, None):
            raise AssertionError


# --- threads ---------------------------------------------------------------------------------------------------------


class Blocking:
    """A sync endpoint that ends when the test says so."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.running = 0
        self.most = 0
        self.lock = threading.Lock()
        self.router = APIRouter()
        self.router.get("/block")(self.block)
        self.router.get("/free")(self.free)

    def block(self) -> str:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.go.wait(10)
        with self.lock:
            self.running -= 1
        return "done"

    async def free(self) -> str:
        await trio.lowlevel.checkpoint()
        return "free"


@pytest.mark.slow
async def test_threads_of_sync_endpoints_are_bounded_and_counted(web: Any) -> None:
    trio.to_thread.current_default_thread_limiter().total_tokens = 3  # of this test's loop
    app, answers = Blocking(), []
    async with web(app, header_timeout=0.5, access_log="text", access_log_file="/dev/null") as service:

        async def ask(path: bytes) -> None:
            answers.append(await service.ask(b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(ask, b"/block")
            await service.intake.wait(lambda intake: len(intake.active) == 8)
            with trio.fail_after(4):
                while app.most < 3 or not any(isinstance(event, ThreadsTaken) for event in service.events):  # noqa: ASYNC110  nothing tells
                    await trio.sleep(0.01)
            await ask(b"/free")
            app.go.set()
        told = [event for event in service.events if isinstance(event, ThreadsTaken)]

    assert answers[0].endswith(b'"free"')
    assert [answer.rpartition(b"\r\n")[2] for answer in answers[1:]] == [b'"done"'] * 8
    assert app.most == 3
    assert [event.threads for event in told] == [3]


async def test_a_thread_keeps_its_slot_after_its_client_has_gone(web: Any) -> None:
    app = Blocking()
    async with web(app, concurrency=1) as service:
        async with await service.connect() as stream:
            await stream.send_all(b"GET /block HTTP/1.1\r\nHost: a\r\n\r\n")
            with trio.fail_after(4):
                while not app.running:  # noqa: ASYNC110  a thread cannot tell
                    await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked(0.01)
        while_it_runs = len(service.intake.active)
        app.go.set()
        await service.intake.wait(lambda intake: not intake.active)

    assert while_it_runs == 1


# --- asyncio ---------------------------------------------------------------------------------------------------------


class Foreign:
    """Endpoints that need asyncio, each in another way."""

    def __init__(self) -> None:
        self.router = APIRouter()
        for endpoint in (self.sleeps, self.waits, self.looks):
            self.router.get(f"/{endpoint.__name__}")(endpoint)

    async def sleeps(self) -> None:
        await asyncio.sleep(0.01)

    async def waits(self) -> None:
        loop = asyncio.SelectorEventLoop()  # whatever a library has made of `new_event_loop`
        try:
            await loop.create_future()
        finally:
            loop.close()

    def looks(self) -> None:
        asyncio.get_event_loop()


@pytest.mark.parametrize("endpoint", ["sleeps", "waits", "looks"])
async def test_an_endpoint_that_needs_asyncio_is_named(web: Any, endpoint: str) -> None:
    async with web(Foreign()) as service, client(service) as http:
        answer = await http.get(f"/{endpoint}")
    (told,) = [line for line in service.logs if line["level"] == "error"]

    assert answer.status_code == 500
    assert told["event"].startswith("an endpoint needs asyncio, and endpoints run on trio")
    assert told["endpoint"].endswith(f"Foreign.{endpoint}")


class FakeEntryPoint:
    """A bridge as another plugin would bring it."""

    name, group, value = "asyncio", "kernel.bridges", "bridge:bridged"
    steps: list[str]

    def __init__(self) -> None:
        self.steps = []

    def load(self) -> Any:
        return self.bridge

    @contextlib.asynccontextmanager
    async def bridge(self, app: Any) -> AsyncIterator[Any]:
        async def bridged(scope: Any, receive: Any, send: Any) -> None:
            self.steps.append(scope["type"])
            await app(scope, receive, send)

        self.steps.append("opened")
        yield bridged
        self.steps.append("closed")


@pytest.mark.parametrize("worker", [Orders(), FastAPI()], ids=["router", "application"])
async def test_an_application_for_asyncio_runs_over_the_bridge_that_is_installed(
    web: Any, monkeypatch: pytest.MonkeyPatch, worker: object
) -> None:
    bridge = FakeEntryPoint()
    monkeypatch.setattr("kernel_web.asgi.bridge.entry_points", lambda **_: [bridge])
    problems = list(WebDispatcher.check_worker(Orders, WebOptions(asyncio=True)))
    async with web({"/": worker}, lifespan=True, options={"/": {"asyncio": True}}) as service, client(service) as http:
        await http.get("/orders/7")

    assert problems == []
    assert bridge.steps == ["opened", "lifespan", "http", "closed"]


async def test_without_a_bridge_the_plan_and_the_start_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel_web.asgi.bridge.entry_points", lambda **_: [])
    problems = list(WebDispatcher.check_worker(Orders, WebOptions(asyncio=True)))
    with pytest.raises(StartupError) as caught:
        async with WebDispatcher.host(Orders(), WebOptions(asyncio=True)):
            raise AssertionError

    assert problems == [str(caught.value)]
    assert "install the plugin asyncio" in problems[0]


async def test_a_bridge_that_cannot_be_imported_is_a_startup_error(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = FakeEntryPoint()
    monkeypatch.setattr(bridge, "load", lambda: __import__("no_such_module"))
    monkeypatch.setattr("kernel_web.asgi.bridge.entry_points", lambda **_: [bridge])
    with pytest.raises(StartupError, match=r"^the bridge bridge:bridged cannot be imported: No module"):
        async with WebDispatcher.host(Orders(), WebOptions(asyncio=True)):
            raise AssertionError
