"""Requests per second through the dispatcher `web`, beside bare `hypercorn.trio.serve` with the same application.

Each server runs in a process of its own with the loop it would have in service; `wrk` drives them in turns, A B A B, so
that a machine that gets slower meets both. Prints each round and the median of the ratios; takes about two minutes.

    python benchmarks/web.py [--rounds 6] [--seconds 8] [--connections 32]
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

BODY = b'{"hello": "world"}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
CONCURRENCY = 256


async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  an ASGI application
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


async def serve_bare() -> None:
    import trio  # noqa: PLC0415  the driving process needs none of it
    from hypercorn.config import Config  # noqa: PLC0415
    from hypercorn.trio import serve  # noqa: PLC0415

    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.include_server_header = False
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(lambda task_status: serve(app, config, task_status=task_status))
        print(url, flush=True)


async def serve_kernel() -> None:
    import trio  # noqa: PLC0415  the driving process needs none of it

    from kernel import Listening  # noqa: PLC0415
    from kernel.testing import open_kernel  # noqa: PLC0415

    manifest = {
        "kernel": {"name": "benchmark"},
        "dispatchers": {"web": {"plugin": "web", "bind": "127.0.0.1:0", "concurrency": CONCURRENCY}},
        "workers": {"app": {"use": "web:app", "dispatcher": "web"}},
    }
    async with open_kernel(manifest) as service:
        print((await service.wait_event(Listening)).address, flush=True)
        await trio.sleep_forever()


SERVERS = {"kernel": serve_kernel, "hypercorn": serve_bare}


@contextlib.contextmanager
def running(name: str) -> Iterator[str]:
    """Run a server in a process of its own and yield its URL."""
    with subprocess.Popen([sys.executable, __file__, "--serve", name], stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise SystemExit(f"the server {name} did not start")
            yield line.strip()
        finally:
            process.kill()


def measure(url: str, *, seconds: float, connections: int) -> float:
    """Return requests per second; any answer that is not 200 is an error."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", url]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(text)
    found = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if found is None:
        raise SystemExit(text)
    return float(found[1])


def compare(*, rounds: int, seconds: float, connections: int) -> float:
    """Print every round and return the median ratio."""
    ratios = []
    with running("kernel") as kernel, running("hypercorn") as hypercorn:
        for url in (kernel, hypercorn):
            measure(url, seconds=1, connections=connections)
        for number in range(rounds):
            ours = measure(kernel, seconds=seconds, connections=connections)
            bare = measure(hypercorn, seconds=seconds, connections=connections)
            ratios.append(ours / bare)
            print(f"round {number + 1}: kernel {ours:8.0f} req/s   hypercorn {bare:8.0f} req/s   {ours / bare:.3f}")
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        import trio  # noqa: PLC0415

        trio.run(SERVERS[options.serve])
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not on PATH: install it (Debian: apt-get install wrk)")
    median = compare(rounds=options.rounds, seconds=options.seconds, connections=options.connections)
    print(f"median ratio {median:.3f} (1 is as fast as bare hypercorn)")


if __name__ == "__main__":
    main()
