r"""AMQP 0-9-1 without I/O: bytes in, events out; frames queued, bytes out. Usable with any transport, or with none.

    connection = Connection(Settings(response="\0guest\0guest"))
    connection.start()
    send(connection.data_to_send())
    for event in connection.receive(received): ...

`_connection` and `_channel` are the state machines, their tables are in `_states`; `_reader` cuts bytes into frames,
`_assembly` makes messages of them; `_messages`, `_properties`, `_table`, `_methods` say how things look on the wire.
A connection belongs to one task at a time; nothing in it blocks.
"""

from __future__ import annotations

from ._channel import Channel as Channel
from ._connection import Connection as Connection
from ._errors import CoreError as CoreError
from ._errors import EncodingError as EncodingError
from ._errors import LocalError as LocalError
from ._events import Blocked as Blocked
from ._events import ChannelClosed as ChannelClosed
from ._events import ChannelOpened as ChannelOpened
from ._events import Closed as Closed
from ._events import Confirmed as Confirmed
from ._events import ConsumerCancelled as ConsumerCancelled
from ._events import Delivered as Delivered
from ._events import Event as Event
from ._events import Opened as Opened
from ._events import Replied as Replied
from ._events import Returned as Returned
from ._events import TooLarge as TooLarge
from ._events import Unblocked as Unblocked
from ._properties import Properties as Properties
from ._settings import Settings as Settings
from ._states import ChannelState as ChannelState
from ._states import ConnectionState as ConnectionState

__all__ = [
    "Blocked",
    "Channel",
    "ChannelClosed",
    "ChannelOpened",
    "ChannelState",
    "Closed",
    "Confirmed",
    "Connection",
    "ConnectionState",
    "ConsumerCancelled",
    "CoreError",
    "Delivered",
    "EncodingError",
    "Event",
    "LocalError",
    "Opened",
    "Properties",
    "Replied",
    "Returned",
    "Settings",
    "TooLarge",
    "Unblocked",
]
