"""What it costs to look: a service with metrics, logs, probes and traces, in turns with the same one without.

Each measurement is a process of its own. Consuming counts the messages of the broker in memory that a handler has
acknowledged, from the first to the last, by the clock or by the CPU time of the service, which says more on a machine
that is busy with other things; web counts the requests of `wrk`; both are medians of the ratios of a turn.
`--ready` measures how long `/ready` still says 200 after SIGTERM; `--soak` the memory over 1,000,000 deliveries with
10,000 subjects; `--scrape` whether the counts of a Prometheus that scrapes a loaded service add up.

    python benchmarks/observe.py [--rounds 5] [--messages 30000] [--seconds 3] [--cpu] [--only consume|traces|web]
    python benchmarks/observe.py --ready 20
    python benchmarks/observe.py --soak 1000000
    python benchmarks/observe.py --scrape 60
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kernel.testing import free_port

WORKERS: Final = """
import os, time, trio
from kernel import handles

MESSAGES = int(os.environ["MESSAGES"])
CPU = os.environ["CPU"] == "1"
SUBJECTS = int(os.environ["SUBJECTS"])
AHEAD = 50_000

def rss():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024

class Counter:
    done = 0
    began = 0.0

    @handles("#")
    async def count(self, payload: object):
        Counter.done += 1
        if Counter.done == 1:
            Counter.began = time.process_time() if CPU else time.perf_counter()
        if Counter.done == MESSAGES // 10:
            print(f"rss {rss()}", flush=True)
        if Counter.done == MESSAGES:
            print(f"rate {(MESSAGES - 1) / ((time.process_time() if CPU else time.perf_counter()) - Counter.began):.0f} rss {rss()}", flush=True)

async def feed(events):
    async def publish(task):
        for number in range(task, MESSAGES, 20):
            await events.publish(f"order.{number % SUBJECTS}", number)
            while number - Counter.done > AHEAD:
                await trio.sleep(0.01)
    async with trio.open_nursery() as nursery:
        for task in range(20):
            nursery.start_soon(publish, task)
    await trio.sleep_forever()

async def feed_for(events):
    sent, until = 0, trio.current_time() + float(os.environ["SECONDS"])
    while trio.current_time() < until:
        await events.publish(f"order.{sent % SUBJECTS}", sent)
        sent += 1
        while sent - Counter.done > AHEAD:
            await trio.sleep(0.01)
    print(f"sent {sent}", flush=True)
    await trio.sleep_forever()

async def hello(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})
"""
CONSUME: Final = """
[kernel]
name = "bench"
grace_period = 60.0
{log}
[drivers.queue]
plugin = "memory"
[drivers.events]
plugin = "publisher"
driver = "queue"
protocol = "json"
[dispatchers.work]
plugin = "consumer"
driver = "queue"
protocol = "json"
queue = "q"
bindings = ["#"]
concurrency = 100
[workers.counter]
use = "workers:Counter"
dispatcher = "work"
[workers.feed]
use = "workers:feed"
depends = ["dispatcher/work"]
"""
WEB: Final = """
[kernel]
name = "bench"
grace_period = 60.0
[dispatchers.api]
plugin = "web"
bind = "127.0.0.1:{port}"
{access}
[workers.hello]
use = "workers:hello"
dispatcher = "api"
"""
METRICS: Final = '[dispatchers.metrics]\nplugin = "prometheus"\nbind = "127.0.0.1:0"\n'
HEALTH: Final = '[dispatchers.health]\nplugin = "health"\nbind = "unix:{at}/health.sock"\n'
TRACES: Final = '[drivers.traces]\nplugin = "otel"\nsample = 0.01\nendpoint = "{endpoint}"\n'
JSON_LOG: Final = '[logging]\nformat = "json"\nlevel = "info"\n'
PATIENCE: Final = 600.0


@contextmanager
def service(manifest: str, messages: int, subjects: int = 100) -> Generator[tuple[subprocess.Popen[str], Path]]:
    """Run a service while inside."""
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        (at / "workers.py").write_text(WORKERS, encoding="utf-8")
        (at / "kernel.toml").write_text(manifest.replace("{at}", folder), encoding="utf-8")
        environ = {"CPU": "0"} | os.environ | {"MESSAGES": str(messages), "SUBJECTS": str(subjects)}
        with open(at / "log", "wb") as log:
            command = [sys.executable, "-m", "kernel", "run"]
            process = subprocess.Popen(command, cwd=at, env=environ, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            yield process, at
        finally:
            process.terminate()
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def line_of(process: subprocess.Popen[str], pattern: str, at: Path) -> re.Match[str]:
    """Return the first line of the output that matches."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found
    raise SystemExit((at / "log").read_text(errors="replace")[-3000:])


def consume(extra: str, messages: int, log: str = "") -> float:
    """Return the messages a second of a service with more tables."""
    with service(CONSUME.format(log=log) + extra, messages) as (process, at):
        return float(line_of(process, r"rate (\d+)", at)[1])


def cpu_time(process: subprocess.Popen[str]) -> float:
    """Return the seconds of CPU time that a process has taken, with all of its threads. Source: proc_pid_stat(5)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def web(extra: str, access: str, seconds: int) -> float:
    """Return the requests a second, by the clock or of CPU time of the service."""
    port = free_port()
    with service(WEB.format(port=port, access=access) + extra, 1) as (process, _):
        until = time.monotonic() + 30
        while not answers(port) and time.monotonic() < until:
            time.sleep(0.05)
        command = ["wrk", "-t1", "-c32", f"-d{seconds}s", f"http://127.0.0.1:{port}/"]
        before = cpu_time(process)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        took = cpu_time(process) - before
    by_clock, count = (
        re.search(pattern, done.stdout) for pattern in (r"Requests/sec:\s+([\d.]+)", r"(\d+) requests in")
    )
    if by_clock is None or count is None:
        raise SystemExit(f"wrk said what nobody understands: {done.stdout}")
    return int(count[1]) / took if os.environ["CPU"] == "1" else float(by_clock[1])


@contextmanager
def collector() -> Generator[str]:
    """Take what is posted, and forget it."""

    class Sink(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  what it overrides calls it so

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces"
        server.shutdown()


def compare(name: str, bound: float, rounds: int, plain: Callable[[], float], looked_at: Callable[[], float]) -> None:
    """Measure both in turns, and print the median of the ratios."""
    pairs = [(plain(), looked_at()) for _ in range(rounds)]
    ratios = sorted(second / first for first, second in pairs)
    without, with_it = (statistics.median(values) for values in zip(*pairs, strict=True))
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    print(f"{name}: {without:,.0f}/s without, {with_it:,.0f}/s with, ratio {statistics.median(ratios):.3f} ({spread}), at least {bound}", flush=True)  # fmt: skip


def ready(times: int) -> None:
    """Print how long after SIGTERM `/ready` still says 200."""
    took: list[float] = []
    for _ in range(times):
        with service(CONSUME.format(log="") + HEALTH, 100) as (process, at):
            line_of(process, r"rate (\d+)", at)
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            began = time.perf_counter()
            while _is_ready(at / "health.sock"):
                pass
            took.append((time.perf_counter() - began) * 1000)
    print(f"/ready after SIGTERM: median {statistics.median(took):.1f} ms, longest {max(took):.1f} ms, at most 10 ms")


def _is_ready(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):  # it has ended; one that is cut off later is an error
            return False
        sock.sendall(b"GET /ready HTTP/1.1\r\n\r\n")
        return b" 200 " in sock.recv(64)


def soak(messages: int) -> None:
    """Print the memory after a tenth of the messages, and after all of them."""
    with service(CONSUME.format(log="") + METRICS + HEALTH, messages, 10_000) as (process, at):
        first = int(line_of(process, r"^rss (\d+)", at)[1])
        last = line_of(process, r"rate (\d+) rss (\d+)", at)
    print(f"memory over {messages:,} deliveries: {first:,} kB, {int(last[2]):,} kB, {int(last[2]) / first:.3f} of it")


SCRAPES: Final = """
scrape_configs:
  - job_name: bench
    scrape_interval: 1s
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


def scraped(seconds: int) -> None:
    """Have a Prometheus scrape a loaded service each second, and print whether its counts add up to what was sent."""
    ports = [free_port(), free_port()]
    manifest = CONSUME.format(log="").replace("workers:feed", "workers:feed_for")
    metrics = METRICS.replace(":0", f":{ports[0]}") + "handlers = true\n"
    os.environ["SECONDS"] = str(seconds)
    with service(manifest + metrics + HEALTH, 10**9) as (process, at):
        (at / "prometheus.yml").write_text(SCRAPES.format(port=ports[0]), encoding="utf-8")
        while not answers(ports[0]):
            time.sleep(0.05)
        command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"]
        with subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{ports[1]}"], cwd=at) as prometheus:
            try:
                sent = int(line_of(process, r"sent (\d+)", at)[1])
                asked = ['sum(kernel_deliveries_total{outcome="ack"})', "sum(kernel_queue_seconds_count)"]
                asked += [f"{what}_over_time(up[{seconds}s])" for what in ("min", "count")]
                until = time.monotonic() + 60
                while ask(ports[1], asked[0]) != sent and time.monotonic() < until:
                    time.sleep(0.5)
                counted, queued, lowest, scrapes = (ask(ports[1], query) for query in asked)
            finally:
                prometheus.terminate()
    print(f"sent {sent:,}; scraped {counted:,.0f} acknowledged, {queued:,.0f} with a time in the queue;")
    print(f"up was {lowest:g} at least in {scrapes:g} scrapes of the last {seconds} s")


def answers(port: int) -> bool:
    """Whether somebody listens at a port."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def ask(port: int, query: str) -> float:
    """Return the value of an instant query; -1 if there is none."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(query)}") as answer:
        found = json.load(answer)["data"]["result"]
    return float(found[0]["value"][1]) if found else -1.0


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=30_000)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--cpu", action="store_true", help="count messages a second of CPU time of the service")
    parser.add_argument("--only", choices=["consume", "traces", "web"])
    parser.add_argument("--ready", type=int, default=0, metavar="TIMES")
    parser.add_argument("--soak", type=int, default=0, metavar="MESSAGES")
    parser.add_argument("--scrape", type=int, default=0, metavar="SECONDS")
    asked = parser.parse_args()
    os.environ["CPU"] = str(int(asked.cpu))
    if asked.ready or asked.soak or asked.scrape:
        if asked.ready:
            ready(asked.ready)
        if asked.soak:
            soak(asked.soak)
        if asked.scrape:
            scraped(asked.scrape)
        return
    count = asked.messages
    if asked.only in {None, "consume"}:
        compare(
            "consuming with metrics, JSON log and probes", 0.85, asked.rounds,
            lambda: consume("", count), lambda: consume(METRICS + HEALTH, count, JSON_LOG),
        )  # fmt: skip
    if asked.only in {None, "traces"}:
        with collector() as endpoint:
            traces = TRACES.format(endpoint=endpoint)
            compare(
                "consuming with traces of 1 %", 0.8, asked.rounds,
                lambda: consume("", count), lambda: consume(traces, count),
            )  # fmt: skip
    if asked.only in {None, "web"}:
        if shutil.which("wrk") is None:
            raise SystemExit("web needs wrk")
        access = 'access_log = "json"\naccess_log_file = "access.log"'
        compare(
            "web with metrics and access log", 0.85, asked.rounds,
            lambda: web("", "", asked.seconds), lambda: web(METRICS, access, asked.seconds),
        )  # fmt: skip


if __name__ == "__main__":
    main()
