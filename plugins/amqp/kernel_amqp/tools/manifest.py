"""The `amqp` driver of a manifest, as the commands need it: how to connect, and what its service declares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

import attrs
import click
import structlog

from kernel import Plan
from kernel.abc import Queue, topologies

from .._config import AmqpConfig
from .._settings import link_settings
from ..broker.catalog import Catalog
from ..broker.naming import Names
from ..broker.streams import is_stream
from ..broker.topology import Bound, binding_of, bindings_of
from ..link.connect import LinkSettings

_CLOSE_TIMEOUT = 2.0


@final
@attrs.frozen(kw_only=True, repr=False)
class Service:
    """What the commands work on."""

    settings: LinkSettings
    queues: Sequence[Queue]
    """As the service declares them, in the order of the manifest."""
    bindings: Sequence[Bound]
    """Of these queues."""
    names: Names

    def queue(self, name: str) -> Queue:
        """Return a queue of the service.

        Raises:
            click.UsageError: if it has none of that name.
        """
        full = self.name(name)
        found = next((queue for queue in self.queues if queue.name == full), None)
        if found is None:
            known = ", ".join(queue.name for queue in self.queues) or "none"
            raise click.UsageError(f'the manifest declares no queue "{name}"; it declares: {known}')
        return found

    def name(self, name: str) -> str:
        """Return the name on the broker of a queue that is named as in the manifest, or as there."""
        return name if name in {queue.name for queue in self.queues} else self.names.of(name)

    def is_stream(self, name: str) -> bool:
        """Return whether a queue, by its name on the broker, is a stream of the service."""
        return any(is_stream(queue) for queue in self.queues if queue.name == name)

    def emptied(self, name: str) -> str:
        """Return the name on the broker of a queue from which messages are to be taken.

        Raises:
            click.UsageError: if it is a stream, which keeps what is consumed.
        """
        full = self.name(name)
        if self.is_stream(full):
            raise click.UsageError(f'"{full}" is a stream, which keeps what is in it: `delete` it, or bound it')
        return full

    def bindings_of(self, name: str) -> list[Bound]:
        """Return what a queue is bound to."""
        return [bound for bound in self.bindings if bound.destination == name and not bound.is_exchange]


def read_service(plan: Plan, driver: str | None, driver_class: type[object]) -> Service:
    """Return what a plan says of its only `amqp` driver, or of the one of that name.

    Raises:
        click.UsageError: if it has no such driver, or several and none is named.
    """
    there = [spec for spec in plan.components.values() if getattr(spec, "cls", None) is driver_class]
    found = [spec for spec in there if driver in {None, spec.name}]
    if len(found) != 1:
        names = ", ".join(sorted(spec.name for spec in there)) or "none"
        wrong = "has several `amqp` drivers, name one with --driver" if found else f'has no `amqp` driver "{driver}"'
        raise click.UsageError(f"{plan.path} {wrong if there else 'has no `amqp` driver'}; it has: {names}")
    (spec,) = found
    config: object = getattr(spec, "config", None)
    assert isinstance(config, AmqpConfig)
    return _service(plan, spec.id, config)


def _service(plan: Plan, driver: str, config: AmqpConfig) -> Service:
    names = Names(config.prefix)
    settings = link_settings(
        config,
        name=f"{plan.name} kernel rabbitmq",
        path=lambda text: Path(plan.directory) / text,
        close_timeout=_CLOSE_TIMEOUT,
    )
    config = names.of_config(config)
    catalog = Catalog(config, driver, structlog.get_logger())
    declared = [names.of_topology(topology) for topology in topologies(plan, driver)]
    bindings = [binding_of(binding) for topology in declared for binding in topology.bindings]
    for name, table in config.queues.items():
        bindings += bindings_of(name, table.bindings, is_exchange=False)
    return Service(
        settings=settings,
        queues=catalog.meant(declared),
        bindings=list(dict.fromkeys(bindings)),
        names=names,
    )
