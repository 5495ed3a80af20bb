"""The service over real servers: PostgreSQL and Redis of the tests' own, and the RabbitMQ of the machine."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from kernel import Listening

MANIFEST = Path(__file__).with_name("kernel.toml")
PLUGINS = Path(__file__).parents[2] / "plugins"
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")]


def of_plugin(path: str) -> ModuleType:
    """Load what the tests of a plugin start servers with."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, PLUGINS / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def servers() -> Generator[dict[str, str]]:
    postgres, redis = of_plugin("postgres/tests/_cluster.py"), of_plugin("redis/tests/_server.py")
    binaries, program = postgres.programs(), redis.program()
    if binaries is None or program is None:
        pytest.skip("needs PostgreSQL and Redis: apt-get install postgresql redis-server")
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as two,
        postgres.open_cluster(Path(one), binaries) as cluster,
        redis.open_server(Path(two), program) as server,
    ):
        yield {
            "POSTGRES_DSN": f"{cluster.dsn}?password={quote(cluster.password)}",
            "REDIS_DSN": f"redis://:{redis.PASSWORD}@127.0.0.1:{server.port}",
            "BIND": "127.0.0.1:0",
            "METRICS": "127.0.0.1:0",
        }


async def test_everything_of_the_readme_works_together(
    servers: dict[str, str], open_example: Any, own_name: Any, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {**servers, "ESB": own_name("esb"), "QUEUE": own_name("bench")}
    publisher = {"drivers.esb.plugin": "publisher", "drivers.esb.driver": "rabbit", "drivers.esb.protocol": "bpm"}
    with caplog.at_level(logging.WARNING):
        async with open_example(
            MANIFEST, environ, set={**publisher, "drivers.esb.exchange": environ["ESB"]}
        ) as service:
            for number in range(5):
                await service.publish("esb", "shiva.bench", {"number": number})
            await service.wait_settled(5)
            addresses = {event.component: event.address for event in service.events if isinstance(event, Listening)}
            async with httpx.AsyncClient(trust_env=False) as client:
                health = (await client.get(f"{addresses['dispatcher/web']}/healthcheck")).json()
                metrics = (await client.get(f"{addresses['dispatcher/metrics']}/metrics")).text

    assert health == {"rows": 5, "counted": 5}
    assert 'kernel_component_state{component="driver/postgres"' in metrics
    assert "I'm alive!" in [record.getMessage() for record in caplog.records]
