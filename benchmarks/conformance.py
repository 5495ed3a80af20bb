"""Asks others' suites whether the dispatcher `web` speaks websockets (Autobahn) and HTTP/2 (h2spec), and counts the answers.

    python benchmarks/conformance.py autobahn [--cases '1.*,2.*'] [--wstest wstest]
    python benchmarks/conformance.py h2spec [--h2spec h2spec]

`wstest` is what autobahntestsuite installs into a Python 2.7; all its cases take about an hour, without 9, 12 and 13 two
minutes. h2spec is written in Go (github.com/summerwind/h2spec); from its sources in GOPATH/src/github.com/summerwind/h2spec
it is built with what Debian has, `golang-go` and `golang-{github-spf13-cobra,github-fatih-color,golang-x-net}-dev`:

    GO111MODULE=off GOPATH=$GOPATH:/usr/share/gocode go build ./cmd/h2spec

Ends with 1 if a case failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import trustme
from web_faults import port_in

MANIFEST: Final = """
[kernel]
name = "conformance"
[dispatchers.web]
plugin = "web"
bind = "127.0.0.1:0"
websocket_compression = true
websocket_max_bytes = 33554432
{tls}
[workers.echo]
use = "conformance:echo"
dispatcher = "web"
"""
FINE: Final = {"OK", "NON-STRICT", "INFORMATIONAL"}


async def echo(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  an ASGI application
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["type"] == "http":
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body + message.get("body", b"") or b"hello"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        kept = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
        await send({"type": "websocket.send", **kept})


@contextlib.contextmanager
def serving(folder: Path, *, tls: bool) -> Generator[int]:
    """Run the service in a process of its own; yields its port."""
    if tls:
        issued = trustme.CA().issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(str(folder / "key"))
        (folder / "cert").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    table = f'tls = {{ cert = "{folder}/cert", key = "{folder}/key" }}' if tls else ""
    (folder / "kernel.toml").write_text(MANIFEST.format(tls=table))
    command = [sys.executable, "-m", "kernel", "run", str(folder / "kernel.toml")]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with (folder / "log").open("wb") as log, subprocess.Popen(command, env=environ, stdout=log, stderr=log) as process:
        try:
            yield port_in(folder / "log")
        finally:
            process.terminate()
    complaints = [line for line in (folder / "log").read_text().splitlines() if " error " in line]
    print(f"errors in the log: {complaints or 'none'}")


def autobahn(options: argparse.Namespace, folder: Path) -> bool:
    """Run Autobahn's cases; returns whether none failed."""
    with serving(folder, tls=False) as port:
        server = {"agent": "kernel", "url": f"ws://127.0.0.1:{port}"}
        spec = {"outdir": str(folder / "reports"), "servers": [server], "cases": options.cases.split(",")}
        (folder / "spec").write_text(json.dumps({**spec, "exclude-cases": [], "exclude-agent-cases": {}}))
        command = [options.wstest, "-m", "fuzzingclient", "-s", str(folder / "spec")]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    cases = json.loads((folder / "reports/index.json").read_text())["kernel"]
    for what in ("behavior", "behaviorClose"):
        print(what, dict(Counter(case[what] for case in cases.values())))
    failed = {name: case["behavior"] for name, case in cases.items() if case["behavior"] not in FINE}
    print(f"{len(cases)} cases, failed: {failed or 'none'}")
    return not failed


def h2spec(options: argparse.Namespace, folder: Path) -> bool:
    """Run h2spec over TLS; returns whether no case failed."""
    with serving(folder, tls=True) as port:
        command = [options.h2spec, "--tls", "--insecure", "--host", "127.0.0.1", "--port", str(port), "--timeout", "5"]
        printed = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    found = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", printed)
    print(printed[printed.find("Failures:") :] if found is None or found[4] != "0" else found[0])
    return found is not None and found[4] == "0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=["autobahn", "h2spec"])
    parser.add_argument("--cases", default="1.*,2.*,3.*,4.*,5.*,6.*,7.*,9.*,10.*,12.*,13.*")
    parser.add_argument("--wstest", default="wstest")
    parser.add_argument("--h2spec", default="h2spec")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        is_fine = {"autobahn": autobahn, "h2spec": h2spec}[options.suite](options, Path(folder))
    raise SystemExit(not is_fine)


if __name__ == "__main__":
    main()
