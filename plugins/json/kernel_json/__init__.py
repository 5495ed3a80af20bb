"""The protocol `json`: bodies are JSON."""

from __future__ import annotations

from ._config import JsonConfig as JsonConfig
from ._protocol import JsonProtocol as JsonProtocol

__all__ = ["JsonConfig", "JsonProtocol"]
