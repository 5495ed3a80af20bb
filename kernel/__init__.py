"""kernel runs Python services under structured concurrency.

The way of a service, each arrow one call whose argument is one frozen value:

    kernel.toml -> _manifest: load -> Manifest -> _plan: resolve -> Plan -> _supervise: serve -> the tree

The way of a delivery:

    source -> Dispatcher.accept -> Envelope -> _delivery (decode, route, convert, call, encode) -> Outcome -> settled
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._cli.for_plugins import manifest_options as manifest_options
    from ._convert.json_reading import read_json as read_json
    from ._convert.json_writing import write_json as write_json
    from ._convert.payload import payload_converter as payload_converter
    from ._core.broker import Batch as Batch
    from ._core.broker import Delivery as Delivery
    from ._core.broker import current_delivery as current_delivery
    from ._core.envelope import NO_HEADERS as NO_HEADERS
    from ._core.envelope import Ack as Ack
    from ._core.envelope import Arguments as Arguments
    from ._core.envelope import DeadLetter as DeadLetter
    from ._core.envelope import Envelope as Envelope
    from ._core.envelope import Message as Message
    from ._core.envelope import Outcome as Outcome
    from ._core.envelope import Retry as Retry
    from ._core.envelope import Return as Return
    from ._core.envelope import new_id as new_id
    from ._core.event import Event as Event
    from ._core.event import Passage as Passage
    from ._core.events import ComponentFailed as ComponentFailed
    from ._core.events import DeliveryDone as DeliveryDone
    from ._core.events import DeliveryRevoked as DeliveryRevoked
    from ._core.events import DeliverySettled as DeliverySettled
    from ._core.events import DrainTimedOut as DrainTimedOut
    from ._core.events import EventHub as EventHub
    from ._core.events import GracePeriodOver as GracePeriodOver
    from ._core.events import HookFailed as HookFailed
    from ._core.events import KernelReady as KernelReady
    from ._core.events import KernelReloaded as KernelReloaded
    from ._core.events import KernelStopped as KernelStopped
    from ._core.events import KillSwitchChanged as KillSwitchChanged
    from ._core.events import Listening as Listening
    from ._core.events import LoopBlocked as LoopBlocked
    from ._core.events import ReloadFailed as ReloadFailed
    from ._core.events import SettleFailed as SettleFailed
    from ._core.events import StateChanged as StateChanged
    from ._core.events import StopRequested as StopRequested
    from ._core.events import StopTimedOut as StopTimedOut
    from ._core.interceptors import Incoming as Incoming
    from ._core.interceptors import Outgoing as Outgoing
    from ._core.lifecycle import State as State
    from ._core.lifecycle import SwitchState as SwitchState
    from ._core.loop import Pace as Pace
    from ._core.loop import at_turn_end as at_turn_end
    from ._core.loop import wake as wake
    from ._core.marks import answers as answers
    from ._core.marks import at as at
    from ._core.marks import contract as contract
    from ._core.marks import handles as handles
    from ._core.marks import patterns_of as patterns_of
    from ._core.pending import PendingCall as PendingCall
    from ._core.pending import PendingCalls as PendingCalls
    from ._core.router import pattern_matches as pattern_matches
    from ._core.secret import Secret as Secret
    from ._core.snapshot import Backlog as Backlog
    from ._core.snapshot import ComponentSnapshot as ComponentSnapshot
    from ._core.snapshot import Snapshot as Snapshot
    from ._core.snapshot import Usage as Usage
    from ._core.spans import CountsAsked as CountsAsked
    from ._core.spans import HandlerCalled as HandlerCalled
    from ._core.spans import HandlerDone as HandlerDone
    from ._core.spans import RequestBegan as RequestBegan
    from ._core.spans import RequestCounted as RequestCounted
    from ._core.spans import RequestDone as RequestDone
    from ._core.spans import RequestFailed as RequestFailed
    from ._core.spans import RequestFigures as RequestFigures
    from ._core.spans import RequestsDone as RequestsDone
    from ._core.spans import Sending as Sending
    from ._core.spans import Sent as Sent
    from ._core.spans import carried as carried
    from ._core.spans import carry as carry
    from ._core.spec import Plan as Plan
    from ._delivery.failure import Failure as Failure
    from ._manifest.manifest import load as load
    from ._manifest.registry import discover as discover
    from ._plan.plan import resolve as resolve
    from ._service.handle import Service as Service
    from ._service.part_time import open as open  # noqa: A004  `kernel.open`
    from ._supervise.kernel import ExitStatus as ExitStatus
    from ._supervise.kernel import Kernel as Kernel
    from ._supervise.kernel import Result as Result
    from ._supervise.process import run as run
    from ._supervise.run import serve as serve
    from .errors import error_args as error_args

    __version__: str

_LATER: Final = {
    "Ack": "_core.envelope",
    "Arguments": "_core.envelope",
    "Backlog": "_core.snapshot",
    "Batch": "_core.broker",
    "ComponentFailed": "_core.events",
    "ComponentSnapshot": "_core.snapshot",
    "CountsAsked": "_core.spans",
    "DeadLetter": "_core.envelope",
    "Delivery": "_core.broker",
    "DeliveryDone": "_core.events",
    "DeliveryRevoked": "_core.events",
    "DeliverySettled": "_core.events",
    "DrainTimedOut": "_core.events",
    "Envelope": "_core.envelope",
    "Event": "_core.event",
    "EventHub": "_core.events",
    "ExitStatus": "_supervise.kernel",
    "Failure": "_delivery.failure",
    "GracePeriodOver": "_core.events",
    "HandlerCalled": "_core.spans",
    "HandlerDone": "_core.spans",
    "HookFailed": "_core.events",
    "Incoming": "_core.interceptors",
    "Kernel": "_supervise.kernel",
    "KernelReady": "_core.events",
    "KernelReloaded": "_core.events",
    "KernelStopped": "_core.events",
    "KillSwitchChanged": "_core.events",
    "Listening": "_core.events",
    "LoopBlocked": "_core.events",
    "Message": "_core.envelope",
    "NO_HEADERS": "_core.envelope",
    "Outcome": "_core.envelope",
    "Outgoing": "_core.interceptors",
    "Pace": "_core.loop",
    "Passage": "_core.event",
    "PendingCall": "_core.pending",
    "PendingCalls": "_core.pending",
    "Plan": "_core.spec",
    "ReloadFailed": "_core.events",
    "RequestBegan": "_core.spans",
    "RequestCounted": "_core.spans",
    "RequestDone": "_core.spans",
    "RequestFailed": "_core.spans",
    "RequestFigures": "_core.spans",
    "RequestsDone": "_core.spans",
    "Result": "_supervise.kernel",
    "Retry": "_core.envelope",
    "Return": "_core.envelope",
    "Secret": "_core.secret",
    "Sending": "_core.spans",
    "Sent": "_core.spans",
    "Service": "_service.handle",
    "SettleFailed": "_core.events",
    "Snapshot": "_core.snapshot",
    "State": "_core.lifecycle",
    "StateChanged": "_core.events",
    "StopRequested": "_core.events",
    "StopTimedOut": "_core.events",
    "SwitchState": "_core.lifecycle",
    "Usage": "_core.snapshot",
    "answers": "_core.marks",
    "at": "_core.marks",
    "at_turn_end": "_core.loop",
    "carried": "_core.spans",
    "carry": "_core.spans",
    "contract": "_core.marks",
    "current_delivery": "_core.broker",
    "discover": "_manifest.registry",
    "error_args": "errors",
    "handles": "_core.marks",
    "load": "_manifest.manifest",
    "manifest_options": "_cli.for_plugins",
    "new_id": "_core.envelope",
    "open": "_service.part_time",
    "pattern_matches": "_core.router",
    "patterns_of": "_core.marks",
    "payload_converter": "_convert.payload",
    "read_json": "_convert.json_reading",
    "resolve": "_plan.plan",
    "run": "_supervise.process",
    "serve": "_supervise.run",
    "wake": "_core.loop",
    "write_json": "_convert.json_writing",
}
"""Public name -> its module, which is imported when the name is asked for: nobody pays for what it has no use for."""


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415  reads files, and nearly nobody asks

        return version("trio-kernel")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
