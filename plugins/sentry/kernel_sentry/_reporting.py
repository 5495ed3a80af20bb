"""Events -> scopes and reports of Sentry.

Each delivery and each request has an isolation scope of its own, set in the context in which it is handled: what a
handler adds to it, and what is logged meanwhile, is of this one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Final, cast, final

import attrs
import sentry_sdk
from sentry_sdk.integrations.atexit import AtexitIntegration
from sentry_sdk.scope import Scope

from kernel import (
    ComponentFailed,
    DeadLetter,
    DeliverySettled,
    HandlerCalled,
    RequestBegan,
    RequestFailed,
    SettleFailed,
)
from kernel.abc import hearing

from ._config import SentryConfig

if TYPE_CHECKING:
    from sentry_sdk.client import BaseClient
    from sentry_sdk.transport import HttpTransport

    from kernel.abc import Context

_REPORTED: Final = "_kernel_sentry_reported"
"""What marks an exception that was: that of a batch is told once for each of its deliveries."""


def start(config: SentryConfig, context: Context, transport: type[HttpTransport]) -> BaseClient:
    """Set up the SDK for this process, and return its client."""
    masked = _masking(context.mask)
    sentry_sdk.init(
        dsn=None if config.dsn is None else config.dsn.reveal(),
        environment=config.environment,
        release=config.release,
        sample_rate=config.sample,
        include_local_variables=False,  # they hold what is secret, under any name
        auto_enabling_integrations=config.patches,
        disabled_integrations=[AtexitIntegration()],  # the driver sends the last reports, within its time
        before_send=masked,
        before_send_transaction=masked,
        before_breadcrumb=masked,
        server_name=context.service,
        transport=transport,
    )
    return sentry_sdk.get_client()


def close(client: BaseClient, seconds: float) -> None:
    """Send what is left, for so long at most, and nothing any more after that. Waits: call it in a thread."""
    client.close(timeout=seconds)
    if sentry_sdk.get_client() is client:
        sentry_sdk.get_global_scope().set_client(None)


def _masking(mask: Callable[[str], str]) -> Callable[[Any, Any], Any]:
    def masked(value: Any) -> Any:  # noqa: ANN401  what JSON can say
        if isinstance(value, str):
            return mask(value)
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            return {masked(key): masked(one) for key, one in fields.items()}
        if isinstance(value, list | tuple):
            return [masked(one) for one in cast("Sequence[Any]", value)]
        return value

    return lambda event, _hint: masked(event)


@final
@attrs.define(eq=False, repr=False)
class Reporting:
    """Makes the scopes and reports of one life of the driver."""

    context: Context
    client: BaseClient
    retries: bool
    _base: Scope = attrs.field(factory=lambda: Scope.get_isolation_scope().fork(), init=False)

    def hearing(self) -> AbstractContextManager[None]:
        """Make scopes and reports while inside."""
        return hearing(
            self.context,
            (self._called, HandlerCalled),
            (self._settled, DeliverySettled),
            (self._unsettled, SettleFailed),
            (self._began, RequestBegan),
            (self._request_failed, RequestFailed),
            (self._component_failed, ComponentFailed),
        )

    # --- scopes ---------------------------------------------------------------------------------------------------

    def _called(self, event: HandlerCalled) -> None:
        first = event.deliveries[0]
        tags = {"worker": event.component, "subject": first.envelope.subject, "delivery_id": first.envelope.id}
        self._enter({**tags, "attempt": str(first.attempt), "batch": str(len(event.deliveries))})

    def _began(self, event: RequestBegan) -> None:
        tags = {"component": event.component, "worker": event.worker}
        self._enter({**tags, "method": event.method, "path": event.path})

    def _enter(self, tags: Mapping[str, str]) -> None:
        """Begin a scope that what follows in this context belongs to."""
        scope = self._base.fork()
        scope.set_tags(dict(tags))
        Scope.set_isolation_scope(scope)
        Scope.set_current_scope(Scope.get_current_scope().fork())

    # --- reports --------------------------------------------------------------------------------------------------

    def _settled(self, event: DeliverySettled) -> None:
        is_final = isinstance(event.outcome, DeadLetter)
        if event.error is None or not (is_final or self.retries):
            return
        tags = {
            "component": event.component,
            "worker": event.worker,
            "delivery_id": event.delivery_id,
            "subject": event.subject,
            "attempt": str(event.attempt),
            "outcome": type(event.outcome).__name__,
        }
        self._report(event.error, tags, "error" if is_final else "warning")

    def _unsettled(self, event: SettleFailed) -> None:
        self._report(event.error, {"component": event.component, "delivery_id": event.delivery_id}, "error")

    def _request_failed(self, event: RequestFailed) -> None:
        tags = {"component": event.component, "worker": event.worker, "method": event.method, "path": event.path}
        self._report(event.error, tags, "error")

    def _component_failed(self, event: ComponentFailed) -> None:
        level = "fatal" if event.restart_in is None else "error"
        self._report(event.error, {"component": event.component}, level)

    def _report(self, error: BaseException, tags: Mapping[str, str], level: str) -> None:
        if hasattr(error, _REPORTED):
            return
        with suppress(Exception):  # one that takes no attribute is reported as often as it is told
            setattr(error, _REPORTED, True)
        with sentry_sdk.new_scope() as scope:
            scope.set_tags({name: value for name, value in tags.items() if value})
            scope.set_level(cast("Any", level))
            scope.capture_exception(error)
