"""Driver `stomp` for kernel: a broker over STOMP 1.2, for RabbitMQ and ActiveMQ, on a native trio client."""

from __future__ import annotations

from ._config import StompConfig as StompConfig
from ._config import StompOptions as StompOptions
from ._driver import StompDriver as StompDriver
from ._errors import LoginRefusedError as LoginRefusedError
from .broker.broker import StompBroker as StompBroker
from .broker.events import MessageDropped as MessageDropped
