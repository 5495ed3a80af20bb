"""Who gets what a driver with a contract sends, and whether they agree: in one service, and between several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias, final

import attrs

from .._core.contract import Contract
from .._core.router import Router
from .._core.spec import DispatcherSpec, DriverSpec, HandlerSpec, Plan, WorkerSpec
from .._manifest.tables import DispatcherTable
from .agreement import disagreements
from .ground import Ground, Wiring
from .staff import Hired, fed_by

_Got: TypeAlias = tuple[str, HandlerSpec]
"""Id of a worker, and its handler."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Post:
    """A dispatcher with the handlers behind it."""

    driver: str | None
    """Name of the driver that it takes from."""
    fan_out: bool
    handlers: Mapping[str, Sequence[HandlerSpec]]
    """By the id of the worker."""

    def getting(self, subject: str) -> Iterator[tuple[str, HandlerSpec]]:
        """Yield who gets a subject."""
        for routes in self._tables():
            router = Router[_Got].of(routes)
            found = router.match(subject)
            if found is not None:
                yield found

    def _tables(self) -> list[list[tuple[str, _Got]]]:
        """Return the routes of each that gets its own copy: of every worker, or of all together."""
        tables = [
            [(pattern, (worker, handler)) for handler in handlers for pattern in handler.patterns]
            for worker, handlers in self.handlers.items()
        ]
        return tables if self.fan_out else [[route for table in tables for route in table]]


def check_contracts(ground: Ground, wiring: Wiring, workers: Mapping[str, Hired]) -> None:
    """Report where drivers and the handlers of the same service that get what they send do not agree."""
    posts = list(_posts(wiring, workers))
    for name, contract in wiring.contracts.items():
        driver = wiring.drivers[name].driver
        for text in problems(contract, [post for post in posts if post.driver == driver]):
            ground.report(("drivers", name, "contract"), text)


def _posts(wiring: Wiring, workers: Mapping[str, Hired]) -> Iterator[Post]:
    for name, hired in fed_by(workers.values()).items():
        wired = wiring.dispatchers[name]
        table = wired.entry.table
        fan_out = isinstance(table, DispatcherTable) and table.fan_out
        handlers = {one.entry.id: one.shape.handlers for one in hired if one.shape is not None}
        yield Post(driver=wired.driver, fan_out=fan_out, handlers=handlers)


def between(plans: Sequence[Plan], *, are_all: bool) -> Iterator[str]:
    """Yield where the drivers of services and the handlers of the others do not agree.

    Args:
        plans: Of the services.
        are_all: Whether what none of them handles is handled by nobody.
    """
    for plan in plans:
        posts = [post for other in plans for post in posts_of(other) if other is not plan]
        own = list(posts_of(plan))
        for spec in plan.components.values():
            if isinstance(spec, DriverSpec) and spec.contract is not None:
                for text in problems(spec.contract, posts, own=own, must_be_handled=are_all):
                    yield f"{spec.where}: [drivers.{spec.name}].contract: {text}"


def posts_of(plan: Plan) -> Iterator[Post]:
    """Yield the dispatchers of a service."""
    for spec in plan.components.values():
        if isinstance(spec, DispatcherSpec):
            workers = [plan.components[f"worker/{name}"] for name in spec.workers]
            handlers = {worker.id: worker.handlers for worker in workers if isinstance(worker, WorkerSpec)}
            driver = spec.driver.partition("/")[2] if spec.driver else None
            yield Post(driver=driver, fan_out=spec.fan_out, handlers=handlers)


def problems(
    contract: Contract, posts: Sequence[Post], *, own: Iterable[Post] = (), must_be_handled: bool = False
) -> Iterator[str]:
    """Yield where a contract and those who get what is sent by it do not agree.

    Args:
        contract: What is sent.
        posts: Who gets it.
        own: Who gets it too, and has been looked at.
        must_be_handled: Whether that nobody gets a call is wrong also if nobody gets any.
    """
    got = {subject: [each for post in posts for each in post.getting(subject)] for subject in contract.clauses}
    elsewhere = {subject for subject in got if any(any(post.getting(subject)) for post in own)}
    is_callee = must_be_handled or any(got.values())
    for subject, clause in contract.clauses.items():
        label = f"{contract.cls.__qualname__}.{clause.method}"
        if is_callee and not got[subject] and subject not in elsewhere and not contract.is_published:
            yield f'no worker handles "{subject}", which {label} calls'
        for worker, handler in got[subject]:
            for text in disagreements(clause, handler, is_published=contract.is_published):
                name = f"{worker}.{handler.method}" if handler.method else worker
                yield f'{label} and {name} do not agree on "{subject}": {text}'
