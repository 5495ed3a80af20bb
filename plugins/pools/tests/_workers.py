"""Workers that are called in pools."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from typing import Any

import attrs
from kernel_pools import remaining

from kernel import Envelope, Retry, handles

LET_GO = threading.Event()
"""Lets a thread end that holds."""


@attrs.frozen
class Order:
    sku: str
    quantity: int = 1


@attrs.frozen
class Scale:
    by: int = 1


class UnwritableError(Exception):
    """Cannot be pickled back."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("unwritable")


def where(payload: Any) -> list[int]:
    return [os.getpid(), threading.get_ident()]


def die(how: str) -> None:
    match how:
        case "exit":
            os._exit(3)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            raise SystemExit(4)


def leave(file: str) -> None:
    """Start a program that goes on, and die."""
    with open(file, "w") as pid:
        pid.write(str(subprocess.Popen(["sleep", "600"], close_fds=False).pid))
    os._exit(3)


def disposition() -> list[int]:
    """Return the signals that a program which a handler starts is born ignoring."""
    told = subprocess.run(["grep", "SigIgn", "/proc/self/status"], check=True, capture_output=True, text=True).stdout
    mask = int(told.split()[1], 16)
    return [number for number in range(1, 65) if mask & 1 << number - 1]


def spin(seconds: float) -> float:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return seconds


class Calls:
    """Handlers of every kind."""

    def __init__(self, config: Scale = Scale()) -> None:
        self.config = config
        self.count = 0

    @handles("scale")
    def scale(self, order: Order) -> dict[str, Any]:
        self.count += 1
        return {"quantity": order.quantity * self.config.by, "count": self.count, "pid": os.getpid()}

    @handles("where")
    def where(self, payload: Any) -> list[int]:
        return where(payload)

    @handles("raise")
    def fail(self, text: str) -> None:
        raise ZeroDivisionError(text)

    @handles("raise.unwritable")
    def fail_unwritable(self, payload: Any) -> None:
        raise UnwritableError(1, 2)

    @handles("return.unwritable")
    def lock(self, payload: Any) -> Any:
        return threading.Lock()

    @handles("retry")
    def retry(self, payload: Any, envelope: Envelope) -> Retry:
        assert envelope.subject == "retry"
        return Retry(0.0, "not yet")

    @handles("log")
    def log(self, text: str) -> None:
        logging.getLogger("shop").warning("heard %s", text)

    @handles("remaining")
    def left(self, payload: Any) -> float:
        return remaining()

    @handles("environment")
    def environment(self, name: str) -> str | None:
        return os.environ.get(name)

    @handles("die")
    def die(self, how: str) -> None:
        die(how)

    @handles("spin")
    def spin(self, seconds: float) -> float:
        return spin(seconds)

    @handles("hold")
    def hold(self, payload: Any) -> bool:
        return LET_GO.wait(20.0)

    @handles("sleep")
    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds


class Asking(Calls):
    """Wants what cannot leave the process."""

    def __init__(self, queue: Any) -> None:
        super().__init__()
        self.queue = queue
