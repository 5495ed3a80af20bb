"""The formats of micro-framework: protocols `ufw_rpc` and `ufw_backoff`, worker `ufw_targets`."""

from __future__ import annotations

from ._backoff import BackOff as BackOff
from ._backoff import UfwBackoffProtocol as UfwBackoffProtocol
from ._config import UfwConfig as UfwConfig
from ._config import UfwRpcConfig as UfwRpcConfig
from ._errors import TargetNotFoundError as TargetNotFoundError
from ._rpc import UfwRpcProtocol as UfwRpcProtocol
from ._targets import Targets as Targets
from ._targets import TargetsConfig as TargetsConfig

__all__ = [
    "BackOff",
    "TargetNotFoundError",
    "Targets",
    "TargetsConfig",
    "UfwBackoffProtocol",
    "UfwConfig",
    "UfwRpcConfig",
    "UfwRpcProtocol",
]
