"""The contracts a plugin author implements, and what the kernel hands in return.

Four kinds of component (`Driver`, `Protocol`, `Dispatcher`, and the user's workers, which need no base class) and
one more contract for drivers that carry messages (`Broker`, with its `Delivery`). A component class is called with
`config=` (an instance of its `Config`) and `context=` (a `Context`) once for each life: after a restart there is a
new object. Constructors only store; connections are made in `open()`.

Three scopes nest in a dispatcher: `open` > what is in flight > `accept`. To stop is to cancel `accept`, to put the
drain deadline on what is in flight and to leave `open`; no plugin writes drain logic of its own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from ._core.broker import MAX_DEATHS as MAX_DEATHS
from ._core.broker import Binding as Binding
from ._core.broker import Broker as Broker
from ._core.broker import Capability as Capability
from ._core.broker import Delivery as Delivery
from ._core.broker import Exchange as Exchange
from ._core.broker import Queue as Queue
from ._core.broker import Subscription as Subscription
from ._core.broker import Topology as Topology
from ._core.broker import check_partition_by as check_partition_by
from ._core.broker import check_window as check_window
from ._core.broker import death_headers as death_headers
from ._core.broker import partition_key as partition_key
from ._core.caller import Caller as Caller
from ._core.caller import RemoteFunction as RemoteFunction
from ._core.caller import Sender as Sender
from ._core.components import Candidate as Candidate
from ._core.components import Component as Component
from ._core.components import Dispatcher as Dispatcher
from ._core.components import Driver as Driver
from ._core.components import NoConfig as NoConfig
from ._core.components import Protocol as Protocol
from ._core.components import Renews as Renews
from ._core.context import Context as Context
from ._core.context import hearing as hearing
from ._core.contract import Contract as Contract
from ._core.crew import Crew as Crew
from ._core.crew import Endpoint as Endpoint
from ._core.envelope import DEADLINE_HEADER as DEADLINE_HEADER
from ._core.envelope import read_deadline as read_deadline
from ._core.envelope import read_sent as read_sent
from ._core.envelope import write_deadline as write_deadline
from ._core.fields import ByFields as ByFields
from ._core.intake import Drains as Drains
from ._core.intake import Intake as Intake
from ._core.intake import Target as Target
from ._core.intake import Work as Work
from ._core.intake import current_work as current_work
from ._core.interceptors import Intercept as Intercept

if TYPE_CHECKING:
    from ._core.carried import check_envelope as check_envelope
    from ._core.carried import check_headers as check_headers
    from ._core.complaints import Complaints as Complaints
    from ._core.crashes import COMINGS_HEADER as COMINGS_HEADER
    from ._core.crashes import CRASHES_HEADER as CRASHES_HEADER
    from ._core.crashes import CrashNote as CrashNote
    from ._core.crashes import Spared as Spared
    from ._core.executor import Executor as Executor
    from ._core.executor import PlainWorker as PlainWorker
    from ._core.executor import untimed as untimed
    from ._core.holder import why_not_listening as why_not_listening
    from ._core.interrupt import is_from_terminal as is_from_terminal
    from ._core.lease import Lease as Lease
    from ._core.lease import LeaseState as LeaseState
    from ._core.lease import Leasing as Leasing
    from ._core.lease import check_lease_name as check_lease_name
    from ._core.losses import Losses as Losses
    from ._core.outside import check_http_headers as check_http_headers
    from ._core.outside import check_http_url as check_http_url
    from ._core.outside import parse_host as parse_host
    from ._core.outside import parse_url as parse_url
    from ._core.regular import read_regular as read_regular
    from ._core.seldom import Seldom as Seldom
    from ._core.sending import continued as continued
    from ._core.sending import telling as telling
    from ._core.sending import untold as untold
    from ._core.settlements import Settlement as Settlement
    from ._core.settlements import Settlements as Settlements
    from ._core.settling import Settler as Settler
    from ._core.settling import Settling as Settling
    from ._core.showing import shown_body as shown_body
    from ._core.showing import shown_headers as shown_headers
    from ._core.topologies import topologies as topologies
    from ._core.transaction import Transaction as Transaction
    from ._core.transaction import Transactional as Transactional

_LATER: Final = {
    "COMINGS_HEADER": "_core.crashes",
    "CRASHES_HEADER": "_core.crashes",
    "Complaints": "_core.complaints",
    "CrashNote": "_core.crashes",
    "Executor": "_core.executor",
    "Lease": "_core.lease",
    "LeaseState": "_core.lease",
    "Leasing": "_core.lease",
    "Losses": "_core.losses",
    "PlainWorker": "_core.executor",
    "Seldom": "_core.seldom",
    "Settlement": "_core.settlements",
    "Settlements": "_core.settlements",
    "Settler": "_core.settling",
    "Settling": "_core.settling",
    "Spared": "_core.crashes",
    "Transaction": "_core.transaction",
    "Transactional": "_core.transaction",
    "check_envelope": "_core.carried",
    "check_headers": "_core.carried",
    "check_http_headers": "_core.outside",
    "check_http_url": "_core.outside",
    "check_lease_name": "_core.lease",
    "continued": "_core.sending",
    "is_from_terminal": "_core.interrupt",
    "parse_host": "_core.outside",
    "parse_url": "_core.outside",
    "read_regular": "_core.regular",
    "shown_body": "_core.showing",
    "shown_headers": "_core.showing",
    "telling": "_core.sending",
    "topologies": "_core.topologies",
    "untimed": "_core.executor",
    "untold": "_core.sending",
    "why_not_listening": "_core.holder",
}
"""Public names of which a plugin needs a few: their modules are imported when they are asked for."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f".{_LATER[name]}", __package__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
