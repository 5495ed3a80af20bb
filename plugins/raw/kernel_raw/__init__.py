"""The protocol `raw`: the bytes as they are."""

from __future__ import annotations

from ._protocol import RawConfig as RawConfig
from ._protocol import RawProtocol as RawProtocol

__all__ = ["RawConfig", "RawProtocol"]
