"""Messages in MessagePack: protocols `msgpack` and `service_framework`."""

from __future__ import annotations

from ._config import MsgpackConfig as MsgpackConfig
from ._protocol import MsgpackProtocol as MsgpackProtocol
from ._service_framework import WORKFLOW_HEADER as WORKFLOW_HEADER
from ._service_framework import ServiceFrameworkProtocol as ServiceFrameworkProtocol

__all__ = ["WORKFLOW_HEADER", "MsgpackConfig", "MsgpackProtocol", "ServiceFrameworkProtocol"]
