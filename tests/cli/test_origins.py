"""Where an error comes from is known for the last one of each component, however many there were."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

from kernel._cli.service import _keep_origins
from kernel._core.events import ComponentFailed, EventHub
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry
from kernel._plan.plan import resolve


async def loop() -> None: ...


class NoisyError(Exception):
    pass


def test_what_failed_before_is_forgotten() -> None:
    tables = {"kernel": {"name": "test"}, "workers": {"w": {"use": "loop"}}}
    plan, hub = resolve(from_mapping(tables), Registry.of({"workers": {"loop": loop}})), EventHub()
    origin_of = _keep_origins(SimpleNamespace(plan=plan), hub)  # type: ignore[arg-type]
    errors = [NoisyError(number) for number in range(100)]
    alive = [weakref.ref(error) for error in errors]
    for error in errors:
        hub.emit(ComponentFailed(component="worker/w", error=error, restart_in=1.0))
    last = errors[-1]
    del errors, error
    gc.collect()

    assert [one() for one in alive if one() is not None] == [last]
    assert origin_of(last).startswith("worker/w, ")
    assert origin_of(NoisyError()) == ""
