"""A worker whose handlers an executor calls, as the pipeline sees it: an object with async methods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, final

import attrs

from .._core.executor import Executor, PlainWorker
from .._core.spec import WorkerSpec


@final
@attrs.frozen(eq=False, repr=False)
class Elsewhere:
    """Has the methods of a worker, each of which waits for an executor to call it."""

    _executor: Executor
    _worker: PlainWorker

    def __getattr__(self, method: str) -> Callable[..., Awaitable[object]]:
        return lambda *args, **kwargs: self._executor.call(self._worker, method, args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[object]:  # noqa: ANN401  a handler's
        method = "" if self._worker.is_function else "__call__"
        return self._executor.call(self._worker, method, args, kwargs)


def employ(executor: Executor, spec: WorkerSpec, arguments: Mapping[str, object]) -> Elsewhere:
    """Return a worker whose handlers an executor calls."""
    is_here = not (executor.crosses_processes or spec.is_function)
    instance = spec.use(**arguments) if is_here else None
    worker = PlainWorker(id=spec.id, use=spec.use, is_function=spec.is_function, arguments=arguments, instance=instance)
    return Elsewhere(executor, worker)
