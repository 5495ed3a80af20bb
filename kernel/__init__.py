"""kernel runs Python services under structured concurrency.

The way of a service, each arrow one call whose argument is one frozen value:

    kernel.toml -> _manifest.load -> Manifest -> _registry.discover -> _plan.resolve -> Plan -> _run.serve -> the tree

The way of a delivery:

    source -> Dispatcher.accept -> Envelope -> _dispatch (decode, route, convert, call, encode) -> Outcome -> settled
"""

from __future__ import annotations

from ._envelope import NO_HEADERS as NO_HEADERS
from ._envelope import Ack as Ack
from ._envelope import DeadLetter as DeadLetter
from ._envelope import Envelope as Envelope
from ._envelope import Message as Message
from ._envelope import Outcome as Outcome
from ._envelope import Retry as Retry
from ._envelope import Return as Return
from ._envelope import new_id as new_id
from ._events import Event as Event
from ._events import Listening as Listening
from ._marks import handles as handles
from ._payload import payload_converter as payload_converter
from ._router import pattern_matches as pattern_matches
from ._secret import Secret as Secret
