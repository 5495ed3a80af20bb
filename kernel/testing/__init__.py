"""What services and plugins are tested with.

pytest imports this package in every test run of everybody who has it installed, for the sake of its fixtures; so each
name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._cancel import cancel_at_checkpoint as cancel_at_checkpoint
    from ._cancel import cancel_at_each_checkpoint as cancel_at_each_checkpoint
    from ._check_broker import check_broker as check_broker
    from ._check_dispatcher import Feed as Feed
    from ._check_dispatcher import check_dispatcher as check_dispatcher
    from ._check_driver import check_driver as check_driver
    from ._check_leasing import check_leasing as check_leasing
    from ._check_protocol import check_protocol as check_protocol
    from ._check_worker import check_worker as check_worker
    from ._context import fake_context as fake_context
    from ._faults import Faults as Faults
    from ._faults import Stall as Stall
    from ._faulty import faulty as faulty
    from ._intake import RecordingIntake as RecordingIntake
    from ._intake import Settled as Settled
    from ._intake import acknowledge as acknowledge
    from ._intake import open_intake as open_intake
    from ._leaks import no_leaks as no_leaks
    from ._leaks import no_task_leaks as no_task_leaks
    from ._open import OpenKernel as OpenKernel
    from ._open import open_kernel as open_kernel
    from ._patience import Patience as Patience
    from ._port import free_port as free_port
    from ._proxy import Proxy as Proxy
    from ._proxy import open_proxy as open_proxy
    from ._proxy_line import LineFaults as LineFaults
    from ._running import RunningService as RunningService
    from ._threads import hold_clock_for_threads as hold_clock_for_threads

_LATER: Final = {
    "Faults": "_faults",
    "Feed": "_check_dispatcher",
    "LineFaults": "_proxy_line",
    "OpenKernel": "_open",
    "Patience": "_patience",
    "Proxy": "_proxy",
    "RecordingIntake": "_intake",
    "RunningService": "_running",
    "Settled": "_intake",
    "Stall": "_faults",
    "acknowledge": "_intake",
    "cancel_at_checkpoint": "_cancel",
    "cancel_at_each_checkpoint": "_cancel",
    "check_broker": "_check_broker",
    "check_dispatcher": "_check_dispatcher",
    "check_driver": "_check_driver",
    "check_leasing": "_check_leasing",
    "check_protocol": "_check_protocol",
    "check_worker": "_check_worker",
    "fake_context": "_context",
    "hold_clock_for_threads": "_threads",
    "faulty": "_faulty",
    "free_port": "_port",
    "no_leaks": "_leaks",
    "no_task_leaks": "_leaks",
    "open_intake": "_intake",
    "open_kernel": "_open",
    "open_proxy": "_proxy",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
