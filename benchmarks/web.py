"""Requests per second, latency and CPU of the dispatcher `web`, in turns with other ASGI servers and the same application.

Each server is a process of its own with the loop that it would have in service, one worker each; `wrk` drives them in
turns, A B A B, so that a machine that gets slower meets all. Prints the median of each server's rate and of its 99th
percentile, the lower quartile of its CPU time for a request, and the medians of their ratios to the first server.

    python benchmarks/web.py [--servers uvicorn,kernel] [--app hello|echo] [--rounds 6] [--seconds 5] [--connections 32]

uvicorn (httptools, uvloop), granian and hypercorn are brought by `uv run --with`, or by the interpreter of `--python`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

BODY: Final = b'{"hello": "world"}'
HEADERS: Final = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
ECHO: Final = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"name": "tea", "quantity": 2, "note": "' .. string.rep("x", 980) .. '"}'
"""
RIVALS: Final = {
    "uvicorn": ["uvicorn", "httptools", "uvloop"],
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
    return hello if name == "hello" else echo()


def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def tell(url: str) -> None:
    print(url, os.getpid(), flush=True)


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


def serve_kernel(app: str, more: str = "") -> None:
    """Become `kernel run`, as it is in service."""
    free, folder = port(), Path(tempfile.mkdtemp())
    manifest = folder / "kernel.toml"
    manifest.write_text(MANIFEST.format(port=free, app=app, more=more))
    tell(f"http://127.0.0.1:{free}")
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execve(sys.executable, [sys.executable, "-m", "kernel", "run", str(manifest)], environ)


def serve_kernel_logging(app: str) -> None:
    """The same with an access log, which nobody keeps."""
    serve_kernel(app, 'access_log = "text"\naccess_log_file = "/dev/null"')


def serve_uvicorn(app: str) -> None:
    import uvicorn  # noqa: PLC0415

    free = port()
    tell(f"http://127.0.0.1:{free}")
    uvicorn.run(application(app), port=free, log_level="critical", access_log=False, http="httptools", loop="uvloop")


def serve_granian(app: str) -> None:
    from granian import Granian  # noqa: PLC0415
    from granian.constants import Interfaces  # noqa: PLC0415

    free = port()
    tell(f"http://127.0.0.1:{free}")
    target = "web:hello" if app == "hello" else "web:echo"
    Granian(target, port=free, interface=Interfaces.ASGI, log_enabled=False, factory=app == "echo").serve()


def serve_hypercorn(app: str) -> None:
    import trio  # noqa: PLC0415
    from hypercorn.config import Config  # noqa: PLC0415
    from hypercorn.trio import serve  # noqa: PLC0415

    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.include_server_header = False

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            (url,) = await nursery.start(lambda task_status: serve(application(app), config, task_status=task_status))
            tell(url)

    trio.run(main)


SERVERS = {
    "kernel": serve_kernel,
    "kernel_logging": serve_kernel_logging,
    "uvicorn": serve_uvicorn,
    "granian": serve_granian,
    "hypercorn": serve_hypercorn,
}


class Running(NamedTuple):
    """A server: where it listens, and its process."""

    url: str
    pid: int

    def cpu(self) -> float:
        """Return the seconds of CPU that it and its children have taken."""
        ticks = 0
        for pid in [self.pid, *_children(self.pid)]:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def running(name: str, app: str, python: str) -> Iterator[Running]:
    """Run a server in a process of its own."""
    with_rivals = ["uv", "run", *(f"--with={package}" for package in (*RIVALS.get(name, ()), "fastapi")), "python"]
    interpreter = [sys.executable] if name.startswith("kernel") else [python] if python else with_rivals
    command = [*interpreter, __file__, "--serve", name, "--app", app]
    folder = Path(__file__).parent
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise SystemExit(f"the server {name} did not start")
            url, pid = line.split()
            yield Running(url, int(pid))
        finally:
            process.terminate()


class Round(NamedTuple):
    """What one run of wrk showed."""

    rate: float
    p99: float
    cpu: float


def measure(server: Running, *, seconds: float, connections: int, script: str) -> Round:
    """Return what a server did; any answer that is not 200 is an error."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", *(["-s", script] if script else [])]
    before = server.cpu()
    text = subprocess.run([*command, server.url], check=True, capture_output=True, text=True).stdout
    spent = server.cpu() - before
    rate, total = re.search(r"Requests/sec:\s+([\d.]+)", text), re.search(r"(\d+) requests in", text)
    late = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    if "Non-2xx" in text or "Socket errors" in text or rate is None or total is None or late is None:
        raise SystemExit(text)
    return Round(float(rate[1]), float(late[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[late[2]], spent / int(total[1]) * 1e6)


def wait_open(url: str) -> None:
    """Wait until a server takes connections: some say their address before they do."""
    host, _, number = url.removeprefix("http://").partition(":")
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection((host, int(number)), timeout=1):
            return
        time.sleep(0.1)
    raise SystemExit(f"nobody listens at {url}")


def compare(options: argparse.Namespace, script: str) -> None:
    """Print what each server did, and how it compares with the first."""
    names = options.servers.split(",")
    rounds: dict[str, list[Round]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(running(name, options.app, options.python)) for name in names}
        for server in servers.values():
            wait_open(server.url)
            measure(server, seconds=1, connections=options.connections, script=script)
        for _ in range(options.rounds):
            for name, server in servers.items():
                how = {"seconds": options.seconds, "connections": options.connections, "script": script}
                rounds[name].append(measure(server, **how))
    for name in names:
        own, first = rounds[name], rounds[names[0]]
        rate, late = statistics.median(r.rate for r in own), statistics.median(r.p99 for r in own)
        cpu = statistics.quantiles([r.cpu for r in own], n=4)[0] if len(own) > 1 else own[0].cpu
        ratios = [statistics.median(a[i] / b[i] for a, b in zip(own, first, strict=True)) for i in range(3)]
        print(
            f"{name:10} {rate:8.0f}/s ({ratios[0]:.2f})  p99 {late:7.1f} ms ({ratios[1]:.2f})"
            f"  CPU {cpu:6.1f} us ({ratios[2]:.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default="uvicorn,kernel", help=f"of {', '.join(SERVERS)}")
    parser.add_argument("--app", choices=["hello", "echo"], default="hello")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--python", default="", help="an interpreter that has the other servers, and fastapi")
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        SERVERS[options.serve](options.app)
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not on PATH: install it (Debian: apt-get install wrk)")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(ECHO if options.app == "echo" else "")
        script.flush()
        compare(options, script.name if options.app == "echo" else "")


if __name__ == "__main__":
    main()
