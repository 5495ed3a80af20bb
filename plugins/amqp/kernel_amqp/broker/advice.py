"""What `kernel check` says of queues and of the way to the broker, and a reload of what stays there. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence

from kernel.abc import Queue, Topology
from kernel.errors import ConflictError

from .._config import AmqpConfig, is_loopback
from .naming import Names
from .topology import graves_of, options_of, queue_method, queue_of


def problems_of(config: AmqpConfig, topology: Topology) -> Iterator[str]:
    """Yield what of a topology cannot be declared."""
    try:
        topology = Names(config.prefix).of_topology(topology)
    except ConflictError as error:
        yield str(error)
        return
    for queue in topology.queues:
        try:
            queue_method(queue)
        except ConflictError as error:
            yield str(error)


def advice(config: AmqpConfig, topologies: Sequence[Topology]) -> Iterator[str]:
    """Yield what is allowed and may not be meant."""
    yield from _of_the_way(config.without_url())
    own = [queue_of(name, table) for name, table in config.queues.items()]
    wanted = [queue for topology in topologies for queue in _said(topology) if queue.name not in config.queues]
    if names := list(dict.fromkeys(queue.name for queue in [*own, *wanted] if _leaves_type_open(queue))):
        yield (
            f"{_listed(names)}: `type` is not said, so the virtual host decides, and nobody can change it later; say"
            ' `options.type = "quorum"` or "classic". Such queues of earlier versions have `max_priority = 9`: say so,'
            " or move what is in them with `kernel rabbitmq renew`"
        )


def remains(config: AmqpConfig, topology: Topology) -> Iterator[str]:
    """Return what stays on the broker once no manifest asks for it, with how to end it."""
    return topology.staying(
        delete=lambda name: f"`kernel rabbitmq delete {shlex.quote(name)}` ends it",
        unbind=lambda _binding: "unbind it at the broker",
        called=Names(config.prefix).of,
    )


def _said(topology: Topology) -> list[Queue]:
    """Return the queues of which more is said than that dead letters of another one go there."""
    graves = graves_of(topology.queues)
    return [queue for queue in topology.queues if queue.name not in graves]


def _of_the_way(config: AmqpConfig) -> Iterator[str]:
    if config.tls is not None and not config.tls.verify:
        yield "`tls.verify` is false: whoever is between can be the broker, and read and change everything"
    foreign = [host for host, _ in config.addresses if not is_loopback(host)]
    if config.tls is None and config.mechanism == "PLAIN" and foreign:
        yield f"the password goes in the clear to {', '.join(foreign)}: give the table `tls`"


def _leaves_type_open(queue: Queue) -> bool:
    options = options_of(queue)
    is_fleeting = queue.exclusive or options.exclusive or not queue.durable
    return not (options.type or options.max_priority is not None or options.passive or options.adopt or is_fleeting)


def _listed(names: Iterable[str]) -> str:
    quoted = [f'"{name}"' for name in names]
    return f"queue{'s' * (len(quoted) > 1)} {', '.join(quoted)}"
