r"""AMQP 0-9-1 without I/O: bytes in, events out; frames queued, bytes out. Usable with any transport, or with none.

    connection = Connection(Settings(response="\0guest\0guest"))
    connection.start()
    send(connection.data_to_send())
    for event in connection.receive(received): ...

`connection` and `channel` are the state machines, their tables are in `states`; `reader` cuts bytes into frames,
`assembly` makes messages of them; `messages`, `properties`, `table`, `methods` say how things look on the wire.
A connection belongs to one task at a time; nothing in it blocks.
"""

from __future__ import annotations

from .channel import Channel as Channel
from .connection import Connection as Connection
from .errors import CoreError as CoreError
from .errors import EncodingError as EncodingError
from .errors import LocalError as LocalError
from .events import Blocked as Blocked
from .events import ChannelClosed as ChannelClosed
from .events import ChannelOpened as ChannelOpened
from .events import Closed as Closed
from .events import Confirmed as Confirmed
from .events import ConsumerCancelled as ConsumerCancelled
from .events import Delivered as Delivered
from .events import Event as Event
from .events import Opened as Opened
from .events import Replied as Replied
from .events import Returned as Returned
from .events import TooLarge as TooLarge
from .events import Unblocked as Unblocked
from .methods import with_names as with_names
from .properties import Properties as Properties
from .settings import Settings as Settings
from .states import ChannelState as ChannelState
from .states import ConnectionState as ConnectionState

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
    "with_names",
]
