"""What the tests of the examples share: the real broker, and names on it that are nobody else's."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from kernel_amqp._errors import ChannelClosedError  # noqa: PLC2701  as above
from kernel_amqp.core import Settings
from kernel_amqp.link.connect import LinkSettings
from kernel_amqp.link.link import open_link
from pamqp import base, commands

from kernel import new_id

RABBITMQ: Final = ("127.0.0.1", 5672)


@pytest.fixture(scope="session")
def rabbitmq() -> tuple[str, int]:
    """Host and port of RabbitMQ; the guard of the repository makes the skip a failure where `CI` is set."""
    try:
        socket.create_connection(RABBITMQ, timeout=2.0).close()
    except OSError:
        pytest.skip(f"needs RabbitMQ on {RABBITMQ[0]}:{RABBITMQ[1]}")
    return RABBITMQ


@pytest.fixture
def open_browser(tmp_path: Path) -> Callable[[], AbstractContextManager[Any]]:
    """Runs a Chromium with one page: that of the tests of the plugin `health`, which are no package."""
    spec = spec_from_file_location("_browser", Path(__file__).parents[1] / "plugins/health/tests/_browser.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.CHROMIUM is None:
        pytest.skip("needs chromium")
    return lambda: module.browser(tmp_path)  # type: ignore[no-any-return]


@pytest.fixture
def own_name(rabbitmq: tuple[str, int]) -> Callable[[str], str]:
    """Makes names for what a test declares on the broker."""
    return lambda word: f"{word}-{new_id()}"


@pytest.fixture
def open_example(
    open_kernel: Any,  # noqa: ANN401  the fixture of `kernel.testing`
    rabbitmq: tuple[str, int],
) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """Runs a manifest whose broker is the driver `rabbit`, or another one; what was declared is deleted when it has ended."""

    @asynccontextmanager
    async def opened(
        manifest: Path, environ: Mapping[str, str], *, broker: str = "driver/rabbit", **options: object
    ) -> AsyncGenerator[Any]:
        queues: list[str] = []
        exchanges: list[str] = []
        try:
            async with open_kernel(manifest, environ=environ, **options) as service:
                catalog = service.resource(broker)._catalog  # noqa: SLF001  knows what was declared
                try:
                    yield service
                finally:
                    queues += catalog._queues  # noqa: SLF001  as above
                    exchanges += catalog._exchanges  # noqa: SLF001  as above
        finally:
            with trio.move_on_after(10.0, shield=True):
                await _delete(queues, exchanges)

    return opened


async def _delete(queues: Iterable[str], exchanges: Iterable[str]) -> None:
    """Delete on a channel each: the broker closes it when there is no such thing."""
    methods: list[base.Frame] = [commands.Queue.Delete(queue=name) for name in queues]
    methods += [commands.Exchange.Delete(exchange=name) for name in exchanges]
    settings = LinkSettings(hosts=(RABBITMQ,), core=Settings(response="\0guest\0guest"))
    async with open_link(settings) as link:
        for method in methods:
            try:
                async with link.open_channel() as channel:
                    await channel.call(method)
            except ChannelClosedError:
                continue
