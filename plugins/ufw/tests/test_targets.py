"""What the worker `ufw_targets` tells, in a service on the broker `memory`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from kernel_ufw import Targets, TargetsConfig

from kernel import Envelope, answers
from kernel.abc import Delivery
from kernel.errors import RemoteError


@answers("my_service.amqp_rpc_task")
async def amqp_rpc_task(arg1: object, arg2: int = 2, *args: object, by_name: str, **kwargs: object) -> object:
    """Say what it was called with.

    In full.
    """
    await trio.lowlevel.checkpoint()
    return [arg1, arg2, *args, by_name, kwargs]


class Class:
    @answers("my_service.Class.class_method")
    async def class_method(self, payload: object, envelope: Envelope, delivery: Delivery) -> object:
        await trio.lowlevel.checkpoint()
        return payload

    async def unmarked(self, payload: object) -> None: ...


def plain(payload: object) -> None:
    """Is not marked."""


CLASS_METHOD = {"target": "Class.class_method", "args": ["payload"], "kwargs": [], "docstring": None}
TASK = {
    "target": "amqp_rpc_task",
    "args": ["arg1", "args"],
    "kwargs": ["arg2", "by_name", "kwargs"],
    "docstring": "Say what it was called with.\n\nIn full.",
}
BY_NAME = {"target": "plain", "args": ["payload"], "kwargs": [], "docstring": "Is not marked."}


class Caller:
    """Keeps the client that it is given."""

    def __init__(self, rpc: Any) -> None:
        CLIENTS.append(rpc)

    async def run(self) -> None:
        await trio.sleep_forever()


CLIENTS: list[Any] = []
MANIFEST = {
    "kernel": {"name": "my_service"},
    "drivers": {
        "queue": {"plugin": "memory"},
        "rpc": {
            "plugin": "rpc_client",
            "driver": "queue",
            "protocol": "ufw_rpc",
            "exchange": "ufw-rpc",
            "bind_replies": True,
        },
    },
    "dispatchers": {
        "calls": {
            "plugin": "consumer",
            "driver": "queue",
            "protocol": "ufw_rpc",
            "exchange": "ufw-rpc",
            "reply_exchange": "ufw-rpc",
            "queue": "rpc-my_service",
            "bindings": ["my_service.#"],
        }
    },
    "workers": {
        "task": {"use": f"{__name__}:amqp_rpc_task", "dispatcher": "calls"},
        "class": {"use": f"{__name__}:Class", "dispatcher": "calls"},
        "targets": {
            "use": "ufw_targets",
            "dispatcher": "calls",
            "config": {"targets": [f"{__name__}:amqp_rpc_task", f"{__name__}:Class"]},
        },
        "caller": {"use": f"{__name__}:Caller"},
    },
}


@asynccontextmanager
async def service(open_kernel: Any) -> AsyncGenerator[Any]:
    """Run the service; yields the client of its caller."""
    async with open_kernel(MANIFEST):
        yield CLIENTS.pop()


@pytest.mark.parametrize(
    ("target", "told"),
    [(amqp_rpc_task, TASK), (Class, CLASS_METHOD), (Class.class_method, CLASS_METHOD), (plain, BY_NAME)],
    ids=["function", "class", "method", "unmarked"],
)
async def test_a_target_is_told_with_the_arguments_that_a_caller_gives(target: Any, told: object) -> None:
    assert await Targets(TargetsConfig(targets=(target,))).list_targets() == [told]


async def test_all_targets_of_a_service_are_listed_and_can_be_called(open_kernel: Any) -> None:
    async with service(open_kernel) as rpc:
        told = await rpc["my_service.__list_targets__"]()
        one = await rpc["my_service.__get_target__"]("Class.class_method")
        of_task = await rpc.my_service.amqp_rpc_task("argument1", 3, "more", by_name="x", and_kwargs="too")
        of_method = await rpc.my_service.Class.class_method({"a": 1})

    assert told == [TASK, CLASS_METHOD]
    assert one == CLASS_METHOD
    assert of_task == ["argument1", 3, "more", "x", {"and_kwargs": "too"}]
    assert of_method == {"a": 1}


@pytest.mark.parametrize(
    ("subject", "arguments", "error"),
    [
        ("my_service.__get_target__", ["none"], "RPCTargetDoesNotExist: none does not exist"),
        ("my_service.Class.other", [], r"RPCTargetDoesNotExist: Class\.other does not exist"),
        ("my_service.amqp_rpc_task", [], "TypeError: .*arg1"),
    ],
    ids=["unknown", "no-worker", "arguments"],
)
async def test_what_is_wrong_with_a_call_is_told(
    open_kernel: Any, subject: str, arguments: list[object], error: str
) -> None:
    async with service(open_kernel) as rpc:
        with pytest.raises(RemoteError, match=error):
            await rpc[subject](*arguments)
