"""Calls over websockets for kernel: dispatcher `websocket`, drivers `websocket` and `websocket_client`, and what they speak."""

from __future__ import annotations

from ._client import WebSocketClient as WebSocketClient
from ._client import WebSocketClientDriver as WebSocketClientDriver
from ._config import FormatConfig as FormatConfig
from ._config import WebSocketClientConfig as WebSocketClientConfig
from ._config import WebSocketConfig as WebSocketConfig
from ._dispatcher import WebSocketDispatcher as WebSocketDispatcher
from ._door import WebSocketApp as WebSocketApp
from ._door import WebSocketDoor as WebSocketDoor
from ._door import WebSocketDoorDriver as WebSocketDoorDriver
from ._handshake import Handshake as Handshake
from ._jsonrpc import JsonRpcProtocol as JsonRpcProtocol
from ._line import Line as Line
from ._session import RequestDelivery as RequestDelivery
from ._ufw import UfwWebSocketProtocol as UfwWebSocketProtocol

__all__ = [
    "FormatConfig",
    "Handshake",
    "JsonRpcProtocol",
    "Line",
    "RequestDelivery",
    "UfwWebSocketProtocol",
    "WebSocketApp",
    "WebSocketClient",
    "WebSocketClientConfig",
    "WebSocketClientDriver",
    "WebSocketConfig",
    "WebSocketDispatcher",
    "WebSocketDoor",
    "WebSocketDoorDriver",
]
