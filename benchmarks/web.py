"""Requests per second, latency, CPU and memory of the dispatcher `web`, in turns with other ASGI servers.

Each server is a process of its own with the loop that it would have in service, one worker each, and the same
application; `web_load.py` drives them in turns, A B A B, so that a machine that gets slower meets all. Prints the median
of each server's rate and of its 99th percentile (HTTP/2: of the slowest), the lower quartile of its CPU time for a
request, and the medians of their ratios to the first server.

    python benchmarks/web.py                                  hello, uvicorn and the kernel
    python benchmarks/web.py --app echo|tls|websocket|h2|idle|logging [--rounds 6] [--seconds 5] [--connections 32]
    python benchmarks/web.py --app all [--short]              all of them, with 1, 32 and 256 connections where it matters

uvicorn (httptools, uvloop, websockets), granian and hypercorn are brought by `uv run --with`, or by the interpreter of
`--python`. A machine that does something else at the time shows nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kernel.testing import free_port

if TYPE_CHECKING:
    from web_load import Running

BODY: Final = b'{"hello": "world"}'
HEADERS: Final = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
ECHO: Final = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"name": "tea", "quantity": 2, "note": "' .. string.rep("x", 980) .. '"}'
"""
RIVALS: Final = {
    "uvicorn": ["uvicorn", "httptools", "uvloop", "websockets"],
    "granian": ["granian", "uvloop"],
    "hypercorn": ["hypercorn[trio]"],
}


async def hello(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  an ASGI application
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


def echo() -> Any:  # noqa: ANN401  an ASGI application
    from fastapi import FastAPI  # noqa: PLC0415  the driving process needs none of it
    from pydantic import BaseModel  # noqa: PLC0415

    class Order(BaseModel):
        name: str
        quantity: int
        note: str

    app = FastAPI()

    async def answer(order: Any) -> Any:  # noqa: ANN401  annotated below, where the class is
        return order  # noqa: ASYNC910  an endpoint as users write it

    answer.__annotations__.update(order=Order, **{"return": Order})
    app.post("/")(answer)
    return app


def application(name: str) -> Any:  # noqa: ANN401  an ASGI application
    return echo() if name == "echo" else hello


def tell(place: tuple[str, int], app: str) -> None:
    scheme = "https" if app == "tls" else "http"
    print(f"{scheme}://{place[0]}:{place[1]}", os.getpid(), flush=True)


MANIFEST: Final = """
[kernel]
name = "benchmark"
[dispatchers.web]
plugin = "web"
bind = "127.0.0.1:{port}"
{more}
[workers.app]
use = "web:{app}"
dispatcher = "web"
"""
TABLES: Final = {
    "h2": "h2c = true",
    "tls": 'tls = {{ cert = "{folder}/cert", key = "{folder}/key" }}',
    "idle": "max_connections = 20000\nkeep_alive_timeout = 3600",
}
LOGGING: Final = 'access_log = "text"\naccess_log_file = "/dev/null"'


def serve_kernel(app: str, folder: str, more: str = "") -> None:
    """Become `kernel run`, as it is in service."""
    free = free_port()
    manifest = Path(tempfile.mkdtemp()) / "kernel.toml"
    table = TABLES.get(app, "").format(folder=folder)
    manifest.write_text(MANIFEST.format(port=free, app="echo" if app == "echo" else "hello", more=f"{table}\n{more}"))
    tell(("127.0.0.1", free), app)
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execve(sys.executable, [sys.executable, "-m", "kernel", "run", str(manifest)], environ)


def serve_kernel_logging(app: str, folder: str) -> None:
    """The same with an access log, which nobody keeps."""
    serve_kernel(app, folder, LOGGING)


def serve_uvicorn(app: str, folder: str) -> None:
    import uvicorn  # noqa: PLC0415

    free = free_port()
    tell(("127.0.0.1", free), app)
    files: dict[str, Any] = {"ssl_certfile": f"{folder}/cert", "ssl_keyfile": f"{folder}/key"} if app == "tls" else {}
    if app == "idle":
        files["timeout_keep_alive"] = 3600
    how = {"http": "httptools", "loop": "uvloop", "ws": "websockets", "ws_per_message_deflate": False}
    uvicorn.run(application(app), port=free, log_level="critical", access_log=False, **how, **files)  # type: ignore[arg-type]


def serve_granian(app: str, folder: str) -> None:
    from granian import Granian  # noqa: PLC0415
    from granian.constants import Interfaces  # noqa: PLC0415

    free = free_port()
    tell(("127.0.0.1", free), app)
    files = {"ssl_cert": Path(folder, "cert"), "ssl_key": Path(folder, "key")} if app == "tls" else {}
    target = "web:echo" if app == "echo" else "web:hello"
    Granian(target, port=free, interface=Interfaces.ASGI, log_enabled=False, factory=app == "echo", **files).serve()


def serve_hypercorn(app: str, folder: str) -> None:
    import trio  # noqa: PLC0415
    from hypercorn.config import Config  # noqa: PLC0415
    from hypercorn.trio import serve  # noqa: PLC0415

    free, config = free_port(), Config()
    config.bind = [f"127.0.0.1:{free}"]
    config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = 3600 if app == "idle" else 5
    if app == "tls":
        config.certfile, config.keyfile = f"{folder}/cert", f"{folder}/key"
    outlive_clients()
    tell(("127.0.0.1", free), app)
    trio.run(serve, application(app), config)


def outlive_clients() -> None:
    """Let hypercorn go on when a client leaves in the middle of an answer: it does not expect trio's error, and ends."""
    import trio  # noqa: PLC0415
    from hypercorn.events import Closed  # noqa: PLC0415
    from hypercorn.trio.tcp_server import TCPServer  # noqa: PLC0415

    send = TCPServer.protocol_send

    async def protocol_send(self: TCPServer, event: Any) -> None:  # noqa: ANN401, ASYNC910  as hypercorn has it
        try:
            await send(self, event)
        except trio.BusyResourceError:
            await self.protocol.handle(Closed())

    TCPServer.protocol_send = protocol_send


SERVERS = {
    "kernel": serve_kernel,
    "kernel_logging": serve_kernel_logging,
    "uvicorn": serve_uvicorn,
    "granian": serve_granian,
    "hypercorn": serve_hypercorn,
}


@contextlib.contextmanager
def running(name: str, app: str, python: str, folder: str) -> Generator[Running]:
    """Run a server in a process of its own."""
    from web_load import Running  # noqa: PLC0415  the servers' interpreters need not have what it imports

    with_rivals = ["uv", "run", *(f"--with={package}" for package in (*RIVALS.get(name, ()), "fastapi")), "python"]
    interpreter = [sys.executable] if name.startswith("kernel") else [python] if python else with_rivals
    command = [*interpreter, __file__, "--serve", name, "--app", app, "--folder", folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise SystemExit(f"the server {name} did not start")
            url, pid = line.split()
            yield Running(url, int(pid))
        finally:
            process.terminate()


class Race(NamedTuple):
    """What is run, by whom, and what is asked of the kernel."""

    servers: str
    connections: tuple[int, ...]
    bound: str


RACES: Final = {
    "hello": Race("uvicorn,granian,hypercorn,kernel", (1, 32, 256), "rate 0.85, CPU 1.25, p99 1.5 times uvicorn's"),
    "echo": Race("uvicorn,granian,hypercorn,kernel", (1, 32, 256), "rate 0.85 of uvicorn's"),
    "tls": Race("uvicorn,granian,kernel", (32,), "CPU above that of hello no more than uvicorn's"),
    "websocket": Race("uvicorn,granian,hypercorn,kernel", (32,), "rate 0.7 of uvicorn's"),
    "h2": Race("hypercorn,granian,kernel", (8,), "rate 3 times hypercorn's"),
    "logging": Race("kernel,kernel_logging", (32,), "rate 0.85 of that without"),
    "idle": Race("uvicorn,hypercorn,kernel", (10_000,), "8 kB for each connection"),
}


def compare(app: str, connections: int, options: argparse.Namespace, folder: str) -> None:
    """Print what each server did, and how it compares with the first."""
    import web_load  # noqa: PLC0415  as above

    names = (options.servers or RACES[app].servers).split(",")
    script = str(Path(folder, "echo.lua")) if app == "echo" else ""
    drives: dict[str, Callable[..., web_load.Round]] = {"websocket": web_load.websocket, "h2": web_load.h2load}
    drive = drives.get(app, web_load.wrk)
    rounds: dict[str, list[web_load.Round]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(running(name, app, options.python, folder)) for name in names}
        for server in servers.values():
            web_load.wait_open(server)
            drive(server, seconds=1, connections=connections, script=script)
        for _ in range(options.rounds):
            for name, server in servers.items():
                rounds[name].append(drive(server, seconds=options.seconds, connections=connections, script=script))
    for name in names:
        own, first = rounds[name], rounds[names[0]]
        rate, late = statistics.median(r.rate for r in own), statistics.median(r.p99 for r in own)
        cpu = statistics.quantiles([r.cpu for r in own], n=4)[0] if len(own) > 1 else own[0].cpu
        ratios = [statistics.median(a[i] / b[i] for a, b in zip(own, first, strict=True)) for i in range(3)]
        print(
            f"{name:14} {rate:8.0f}/s ({ratios[0]:.2f})  p99 {late:7.1f} ms ({ratios[1]:.2f})"
            f"  CPU {cpu:6.1f} us ({ratios[2]:.2f})",
            flush=True,
        )


def compare_tls(connections: int, options: argparse.Namespace, folder: str) -> None:
    """Print what TLS adds to a request in each server: the same load with it and without, in turns."""
    import web_load  # noqa: PLC0415  as above

    names = (options.servers or RACES["tls"].servers).split(",")
    spent: dict[tuple[str, str], list[float]] = {(name, app): [] for name in names for app in ("hello", "tls")}
    with contextlib.ExitStack() as stack:
        servers = {key: stack.enter_context(running(*key, options.python, folder)) for key in spent}
        for server in servers.values():
            web_load.wait_open(server)
            web_load.wrk(server, seconds=1, connections=connections, script="")
        for _ in range(options.rounds):
            for key, server in servers.items():
                done = web_load.wrk(server, seconds=options.seconds, connections=connections, script="")
                spent[key].append(done.cpu)
    for name in names:
        plain, tls = (statistics.median(spent[name, app]) for app in ("hello", "tls"))
        added = statistics.median(b - a for a, b in zip(spent[name, "hello"], spent[name, "tls"], strict=True))
        print(f"{name:14} CPU {plain:6.1f} us plain, {tls:6.1f} us with TLS, which adds {added:.1f} us", flush=True)


def compare_idle(count: int, options: argparse.Namespace, folder: str) -> None:
    """Print what an idle connection occupies in each server."""
    import web_load  # noqa: PLC0415  as above

    for name in (options.servers or RACES["idle"].servers).split(","):
        with running(name, "idle", options.python, folder) as server:
            web_load.wait_open(server)
            print(f"{name:14} {web_load.idle(server, count=count):8.0f} bytes for each idle connection", flush=True)


def race(app: str, options: argparse.Namespace, folder: str) -> None:
    known = RACES[app]
    for connections in (options.connections,) if options.connections else known.connections:
        print(f"\n{app}, {connections} connections; asked for: {known.bound}", flush=True)
        if app == "idle":
            compare_idle(connections, options, folder)
        else:
            compare(app, connections, options, folder)
        if app == "tls":
            compare_tls(connections, options, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default="", help=f"of {', '.join(SERVERS)}; the first is what others are held to")
    parser.add_argument("--app", choices=[*RACES, "all"], default="hello")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="one round of a second, to see that it works")
    parser.add_argument("--python", default="", help="an interpreter that has the other servers, and fastapi")
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        SERVERS[options.serve](options.app, options.folder)
        return
    if options.short:
        options.rounds, options.seconds = 1, 1.0
    with tempfile.TemporaryDirectory() as folder:
        from web_load import make_certificate  # noqa: PLC0415  as above

        make_certificate(Path(folder))
        Path(folder, "echo.lua").write_text(ECHO)
        for app in RACES if options.app == "all" else [options.app]:
            race(app, options, folder)


if __name__ == "__main__":
    main()
