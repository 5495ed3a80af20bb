"""The protocols `nameko_events` and `nameko_rpc`: the formats of Nameko."""

from __future__ import annotations

from ._config import NamekoConfig as NamekoConfig
from ._config import NamekoRpcConfig as NamekoRpcConfig
from ._protocols import NamekoEventsProtocol as NamekoEventsProtocol
from ._protocols import NamekoRpcProtocol as NamekoRpcProtocol

__all__ = ["NamekoConfig", "NamekoEventsProtocol", "NamekoRpcConfig", "NamekoRpcProtocol"]
