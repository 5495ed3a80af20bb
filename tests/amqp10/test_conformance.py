from __future__ import annotations

import pytest
from kernel_amqp10 import Amqp10Driver, Amqp10Options

from kernel.testing import check_broker

from ._node import Amqp10Node

pytestmark = pytest.mark.slow


async def test_amqp10_keeps_every_promise_of_a_broker_that_it_claims(rabbit: Amqp10Node) -> None:
    await check_broker(rabbit.open, capabilities=Amqp10Driver.capabilities, prioritised=Amqp10Options(max_priority=9))
