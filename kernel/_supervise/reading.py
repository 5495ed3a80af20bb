"""A plan that is read again while its service runs: in a thread, within a bound, with all imported that it runs with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeAlias, final

import attrs
import trio

from .._core.spec import Plan, WorkerSpec
from .._core.stacks import where_in_thread
from .._delivery.failure import describe
from ..errors import PlanError, Problem
from .files import files_of

WITHIN: Final = 60.0
"""Seconds for reading a manifest, and for importing what it names."""
Read: TypeAlias = tuple[Plan, Mapping[str, tuple[str, ...]]]
"""A plan, and what tells whether the files that its components read have changed."""


@final
@attrs.define(eq=False, repr=False)
class Reader:
    """Reads the plans of one service, one at a time: a thread that hangs cannot be ended, and is the only one."""

    _one: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1), init=False)
    _thread: int | None = attrs.field(default=None, init=False)

    async def read(self, plan_of: Callable[[], Plan], now: Plan) -> Read:
        """Return what a function returns, with all imported that it names.

        Args:
            plan_of: Reads the plan; blocks.
            now: What runs, which is imported already.

        Raises:
            InvalidError: as the function; and if that takes too long, saying where it hangs.
        """
        known = {spec.cls for spec in now.components.values() if not isinstance(spec, WorkerSpec)}
        with trio.move_on_after(WITHIN):
            return await trio.to_thread.run_sync(self._read, plan_of, known, abandon_on_cancel=True, limiter=self._one)
        where = "" if self._thread is None else f": it is at {where_in_thread(self._thread)}"
        text = f"the manifest, and what it names, was not read and imported within {WITHIN:g} s{where}"
        raise PlanError([Problem(now.path, 0, "", text)])

    def _read(self, plan_of: Callable[[], Plan], known: Collection[type[object]]) -> Read:
        self._thread = threading.get_ident()
        try:
            plan = plan_of()
            for spec in plan.components.values():
                if not isinstance(spec, WorkerSpec) and spec.cls not in known:
                    spec.cls.preload()
            return plan, files_of(plan)
        except Exception:
            raise
        except BaseException as error:  # of a module, or of a setup: it would end the service
            raise PlanError([Problem("<manifest>", 0, "", f"reading it raised {describe(error)}")]) from error
        finally:
            self._thread = None
