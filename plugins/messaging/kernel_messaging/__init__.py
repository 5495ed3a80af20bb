"""Messaging for kernel over any broker: dispatcher `consumer`, drivers `publisher` and `rpc_client`."""

from __future__ import annotations

from ._consumer import ConsumerConfig as ConsumerConfig
from ._consumer import ConsumerDispatcher as ConsumerDispatcher
from ._publisher import Publisher as Publisher
from ._publisher import PublisherConfig as PublisherConfig
from ._publisher import PublisherDriver as PublisherDriver
from ._rpc import RpcClient as RpcClient
from ._rpc import RpcClientConfig as RpcClientConfig
from ._rpc_driver import RpcClientDriver as RpcClientDriver
