"""ZeroMQ for kernel: dispatchers `zmq_reply` and `zmq_subscribe`, drivers `zmq_request`, `zmq_publish`, `zmq_proxy`."""

from __future__ import annotations

from ._config import CurveConfig as CurveConfig
from ._config import ProxyConfig as ProxyConfig
from ._config import PublishConfig as PublishConfig
from ._config import ReplyConfig as ReplyConfig
from ._config import RequestConfig as RequestConfig
from ._config import SubscribeConfig as SubscribeConfig
from ._events import MessageLost as MessageLost
from ._proxy import ProxyDriver as ProxyDriver
from ._proxy import ZmqProxy as ZmqProxy
from ._publish import PublishDriver as PublishDriver
from ._publish import ZmqPublisher as ZmqPublisher
from ._reply import ReplyDispatcher as ReplyDispatcher
from ._request import ZmqClient as ZmqClient
from ._request_driver import RequestDriver as RequestDriver
from ._subscribe import SubscribeDispatcher as SubscribeDispatcher

__all__ = [
    "CurveConfig",
    "MessageLost",
    "ProxyConfig",
    "ProxyDriver",
    "PublishConfig",
    "PublishDriver",
    "ReplyConfig",
    "ReplyDispatcher",
    "RequestConfig",
    "RequestDriver",
    "SubscribeConfig",
    "SubscribeDispatcher",
    "ZmqClient",
    "ZmqProxy",
    "ZmqPublisher",
]
