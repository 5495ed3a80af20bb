"""Driver `amqp` for kernel: a broker over RabbitMQ, on a native trio client for AMQP 0-9-1."""

from __future__ import annotations

from ._config import AmqpConfig as AmqpConfig
from ._driver import AmqpDriver as AmqpDriver
from ._errors import ConsumerCancelledError as ConsumerCancelledError
from ._errors import LoginRefusedError as LoginRefusedError
from ._tables import AmqpOptions as AmqpOptions
from .broker.broker import AmqpBroker as AmqpBroker
from .broker.events import MessageDropped as MessageDropped
