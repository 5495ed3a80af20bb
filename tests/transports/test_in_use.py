"""Whatever listens says who has its port already."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
import trio
from kernel_health import HealthConfig, HealthDispatcher
from kernel_prometheus import PrometheusConfig, PrometheusDispatcher
from kernel_web import WebConfig, WebDispatcher
from kernel_websocket import JsonRpcProtocol, WebSocketConfig, WebSocketDispatcher
from kernel_zmq import ReplyConfig, ReplyDispatcher

from kernel.abc import Dispatcher
from kernel.errors import StartupError, UnavailableError
from kernel.testing import fake_context

CONTEXT = fake_context("dispatcher/one", protocol=JsonRpcProtocol())
MADE: dict[str, Callable[[int], Dispatcher]] = {
    "health": lambda port: HealthDispatcher(config=HealthConfig(bind=f"127.0.0.1:{port}"), context=CONTEXT),
    "prometheus": lambda port: PrometheusDispatcher(config=PrometheusConfig(bind=f"127.0.0.1:{port}"), context=CONTEXT),
    "web": lambda port: WebDispatcher(config=WebConfig(bind=f"127.0.0.1:{port}"), context=CONTEXT),
    "websocket": lambda port: WebSocketDispatcher(config=WebSocketConfig(port=port), context=CONTEXT),
    "zmq": lambda port: ReplyDispatcher(config=ReplyConfig(bind=(f"tcp://127.0.0.1:{port}",)), context=CONTEXT),
}


@pytest.mark.parametrize("plugin", MADE)
async def test_who_has_the_port_is_named(plugin: str) -> None:
    intake: Any = None  # nothing gets that far
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dispatcher = MADE[plugin](taken.getsockname()[1])
        wanted = pytest.RaisesExc(
            (StartupError, UnavailableError), match=rf"address already in use \(pid {os.getpid()}, .*\): stop who"
        )
        with pytest.RaisesGroup(wanted, flatten_subgroups=True, allow_unwrapped=True):
            async with dispatcher.open():
                await dispatcher.accept(intake, task_status=trio.TASK_STATUS_IGNORED)
