"""Messaging for kernel over any broker: dispatcher `consumer`, drivers `publisher` and `rpc_client`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from ._consumer import ConsumerConfig as ConsumerConfig
from ._consumer import ConsumerDispatcher as ConsumerDispatcher
from ._publisher import Publisher as Publisher
from ._publisher import PublisherConfig as PublisherConfig
from ._publisher import PublisherDriver as PublisherDriver

if TYPE_CHECKING:
    from ._rpc import RpcClient as RpcClient
    from ._rpc import RpcClientConfig as RpcClientConfig
    from ._rpc_driver import RpcClientDriver as RpcClientDriver

_LATER: Final = {"RpcClient": "._rpc", "RpcClientConfig": "._rpc", "RpcClientDriver": "._rpc_driver"}
"""Imported when asked for: who has a consumer or a publisher makes no calls."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_LATER[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
