"""Driver `amqp10` for kernel: a broker over AMQP 1.0, on the engine of qpid-proton, driven by trio."""

from __future__ import annotations

from ._config import Amqp10Config as Amqp10Config
from ._driver import Amqp10Driver as Amqp10Driver
from ._errors import LoginRefusedError as LoginRefusedError
from ._options import Amqp10Options as Amqp10Options
from .broker.broker import Amqp10Broker as Amqp10Broker
from .broker.events import Amqp10MessageDropped as Amqp10MessageDropped
