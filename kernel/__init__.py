"""kernel runs Python services under structured concurrency.

The way of a service, each arrow one call whose argument is one frozen value:

    kernel.toml -> _manifest.load -> Manifest -> _registry.discover -> _plan.resolve -> Plan -> _run.serve -> the tree

The way of a delivery:

    source -> Dispatcher.accept -> Envelope -> _dispatch (decode, route, convert, call, encode) -> Outcome -> settled
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from ._envelope import NO_HEADERS as NO_HEADERS
from ._envelope import Ack as Ack
from ._envelope import Arguments as Arguments
from ._envelope import DeadLetter as DeadLetter
from ._envelope import Envelope as Envelope
from ._envelope import Message as Message
from ._envelope import Outcome as Outcome
from ._envelope import Retry as Retry
from ._envelope import Return as Return
from ._envelope import new_id as new_id
from ._event import Event as Event
from ._lifecycle import State as State
from ._lifecycle import SwitchState as SwitchState
from ._marks import answers as answers
from ._marks import handles as handles
from ._marks import patterns_of as patterns_of
from ._router import pattern_matches as pattern_matches
from ._secret import Secret as Secret

if TYPE_CHECKING:
    from ._batch import Batch as Batch
    from ._current import current_delivery as current_delivery
    from ._error_args import error_args as error_args
    from ._events import ComponentFailed as ComponentFailed
    from ._events import DeliveryDone as DeliveryDone
    from ._events import DeliveryRevoked as DeliveryRevoked
    from ._events import DeliverySettled as DeliverySettled
    from ._events import DrainTimedOut as DrainTimedOut
    from ._events import EventHub as EventHub
    from ._events import KernelReady as KernelReady
    from ._events import KernelStopped as KernelStopped
    from ._events import KillSwitchChanged as KillSwitchChanged
    from ._events import Listening as Listening
    from ._events import LoopBlocked as LoopBlocked
    from ._events import SettleFailed as SettleFailed
    from ._events import StateChanged as StateChanged
    from ._events import StopRequested as StopRequested
    from ._events import StopTimedOut as StopTimedOut
    from ._failure import Failure as Failure
    from ._json_reading import read_json as read_json
    from ._json_writing import write_json as write_json
    from ._manifest import load as load
    from ._pace import Pace as Pace
    from ._payload import payload_converter as payload_converter
    from ._plan import resolve as resolve
    from ._process import run as run
    from ._registry import discover as discover
    from ._run import ExitStatus as ExitStatus
    from ._run import Kernel as Kernel
    from ._run import Result as Result
    from ._run import serve as serve
    from ._spec import Plan as Plan
    from ._turn import at_turn_end as at_turn_end
    from ._wake import wake as wake

_LATER: Final = {
    "Batch": "_batch",
    "ComponentFailed": "_events",
    "DeliveryRevoked": "_events",
    "DeliveryDone": "_events",
    "DeliverySettled": "_events",
    "DrainTimedOut": "_events",
    "EventHub": "_events",
    "ExitStatus": "_run",
    "Failure": "_failure",
    "Kernel": "_run",
    "KernelReady": "_events",
    "KernelStopped": "_events",
    "KillSwitchChanged": "_events",
    "Listening": "_events",
    "LoopBlocked": "_events",
    "Pace": "_pace",
    "Plan": "_spec",
    "Result": "_run",
    "SettleFailed": "_events",
    "StateChanged": "_events",
    "StopRequested": "_events",
    "StopTimedOut": "_events",
    "at_turn_end": "_turn",
    "current_delivery": "_current",
    "discover": "_registry",
    "error_args": "_error_args",
    "load": "_manifest",
    "payload_converter": "_payload",
    "read_json": "_json_reading",
    "resolve": "_plan",
    "run": "_process",
    "serve": "_run",
    "wake": "_wake",
    "write_json": "_json_writing",
}
"""Public names whose modules cost too much (trio, cattrs, structlog) for a program that only checks a manifest."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
