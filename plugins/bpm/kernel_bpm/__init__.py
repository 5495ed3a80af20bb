"""The protocol `bpm`: the routed JSON messages of Shiva (`JSON_Routed_BPM`)."""

from __future__ import annotations

from ._config import BpmConfig as BpmConfig
from ._protocol import BpmProtocol as BpmProtocol
from ._routed import Routed as Routed

__all__ = ["BpmConfig", "BpmProtocol", "Routed"]
