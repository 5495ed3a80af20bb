"""A function of somebody else's as a worker calls it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast, final

import attrs
import trio

from kernel.errors import CallTimeoutError, UnavailableError

from ._contract import Contract


@final
@attrs.frozen(kw_only=True)
class ExternalConfig:
    """The table of a driver `external`."""

    target: Callable[..., object]
    """What is called: `module:function`, or `module:object.method`."""
    contract: Callable[..., object] | None = None
    """A function whose annotations say what is taken and given; it is never called. None takes those of `target`."""
    threads: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    """Calls at a time that run in threads, those included that nobody waits for any more; more wait."""
    timeout: float = attrs.field(default=30.0, validator=attrs.validators.gt(0.0))
    """Seconds that an attempt may take, if the caller's own deadline is not sooner."""
    attempts: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    """How often a call is tried; with more than 1 it may happen more than once."""
    backoff: float = attrs.field(default=0.1, validator=attrs.validators.ge(0.0))
    """Seconds before the second attempt; doubled each time."""
    retry_on: tuple[type[Exception], ...] = (Exception,)
    """What is tried again."""
    max_failures: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    """Failures in a row after which calls are refused for a while; 0 refuses none."""
    pause: float = attrs.field(default=30.0, validator=attrs.validators.gt(0.0))
    """Seconds for which they are refused; then one is tried."""


@final
@attrs.define(eq=False, repr=False)
class External:
    """Calls a function of a library. Safe to share between tasks."""

    _config: ExternalConfig
    _contract: Contract
    _name: str
    _report: Callable[[str], None]
    """Told why calls are refused; empty when they are not any more."""
    _limiter: trio.CapacityLimiter = attrs.field(init=False)
    _failures: int = attrs.field(default=0, init=False)
    _closed_until: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._limiter = trio.CapacityLimiter(self._config.threads)

    def __repr__(self) -> str:
        return f"<External {self._name}>"

    async def __call__(self, /, *args: object, **kwargs: object) -> object:
        """Call it, and return what it returns.

        Raises:
            ArgumentsError: if the arguments are not what the contract takes; nothing was called.
            ConversionError: if the result is not what it gives.
            CallTimeoutError: if no attempt ended in its time.
            UnavailableError: if too many calls have failed, for `pause` seconds.
            Exception: what the function raised in the last attempt.

        Cancellation: Is a checkpoint. A call in a thread goes on, and keeps its place until it ends.
        """
        await trio.lowlevel.checkpoint()
        bound = self._contract.bound(args, kwargs)
        call = partial(self._config.target, *bound.args, **bound.kwargs)
        wait = self._config.backoff
        failures: tuple[type[Exception], ...] = (CallTimeoutError, *self._config.retry_on)
        for left in reversed(range(self._config.attempts)):
            self._check_open()
            try:
                result = await self._attempt(call)
            except failures:
                self._failed()
                if not left:
                    raise
            else:
                self._succeeded()
                return self._contract.result(result)
            await trio.sleep(wait)
            wait *= 2
        raise AssertionError("there is at least one attempt")

    async def _attempt(self, call: Callable[[], object]) -> object:
        with trio.move_on_after(self._config.timeout):
            if inspect.iscoroutinefunction(self._config.target):
                return await cast("Callable[[], Awaitable[object]]", call)()
            return await trio.to_thread.run_sync(call, limiter=self._limiter, abandon_on_cancel=True)
        raise CallTimeoutError(self._name, seconds=self._config.timeout)

    # --- the kill switch ----------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if not self._is_tripped:
            return
        if trio.current_time() < self._closed_until:
            raise UnavailableError(f"{self._name} has failed {self._failures} times in a row, and is left alone")
        self._closed_until = trio.current_time() + self._config.pause  # for all others, while this one tries

    @property
    def _is_tripped(self) -> bool:
        return 0 < self._config.max_failures <= self._failures

    def _failed(self) -> None:
        self._failures += 1
        if self._is_tripped:
            self._closed_until = trio.current_time() + self._config.pause
            self._report(f"{self._name} has failed {self._failures} times in a row")

    def _succeeded(self) -> None:
        if self._is_tripped:
            self._report("")
        self._failures = 0
