"""A service to run, and how to run the command."""

from __future__ import annotations

import os
import subprocess
import sys

PATIENCE = 30.0
"""Seconds after which a test that waits for a process has failed."""

SERVICE = """
[kernel]
name = "shop"
grace_period = 5.0
drain_timeout = 1.0
[drivers.queue]
plugin = "memory"
stop_timeout = 0.5
[workers.loop]
use = "tea:run"
stop_timeout = 0.5
"""
CODE = """
import threading, time
import trio
async def run():
    await trio.sleep_forever()
async def fail_together():
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(fail)
async def fail():
    raise OSError("no tea")
async def leave_a_thread():
    threading.Thread(target=time.sleep, args=(60,), name="tea-thread").start()
"""


def kernel(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kernel", *arguments],
        env={**os.environ, **environ},
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
