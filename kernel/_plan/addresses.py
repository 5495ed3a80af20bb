"""Whether two components of a service listen at one address: the second of them could never start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias, cast

from .._core.components import Dispatcher, Driver
from .._core.crew import Endpoint
from .._core.spec import AnySpec, WorkerSpec

_LOCALHOST: Final = "127.0.0.1"
_ALL: Final = {"": "", "*": "", "0.0.0.0": "", "::": ":"}
"""Addresses that stand for all of a family, and what is in each of that family."""
_Bound: TypeAlias = tuple[str, Endpoint]


def taken_twice(components: Mapping[str, AnySpec]) -> Iterator[tuple[str, str]]:
    """Yield the id of what cannot listen since another component has its address, and the text.

    Args:
        components: By id, in start order.
    """
    bound: list[_Bound] = []
    for id_, spec in components.items():
        for endpoint in _listens(spec):
            holder = _holder(endpoint, bound)
            if holder is not None:
                yield id_, f"listens at {_shown(endpoint)}, where {_other(holder, id_)}"
            bound.append((id_, endpoint))


def _listens(spec: AnySpec) -> Iterable[Endpoint]:
    if isinstance(spec, WorkerSpec):
        return ()
    cls = cast("type[Driver[object] | Dispatcher] | None", spec.cls)  # None for one that was not found
    return () if cls is None else cls.listens(spec.config)


def _other(holder: str, id_: str) -> str:
    return "it listens already: name each address once" if holder == id_ else f"{holder} listens, too: give one another"


def _holder(endpoint: Endpoint, bound: Iterable[_Bound]) -> str | None:
    return next((id_ for id_, other in bound if _are_one(endpoint, other)), None)


def _are_one(one: Endpoint, other: Endpoint) -> bool:
    if one.path or other.path:
        return one.path == other.path
    return bool(one.port) and one.port == other.port and _overlap(_host(one), _host(other))


def _host(endpoint: Endpoint) -> str:
    return _LOCALHOST if endpoint.host == "localhost" else endpoint.host


def _overlap(one: str, other: str) -> bool:
    """Whether hosts are the same, or one of them is all of the family of the other."""
    return one == other or any(
        every in _ALL and (":" in host) is (every == "::") for every, host in ((one, other), (other, one))
    )


def _shown(endpoint: Endpoint) -> str:
    if endpoint.path:
        return endpoint.path
    return f"[{endpoint.host}]:{endpoint.port}" if ":" in endpoint.host else f"{endpoint.host}:{endpoint.port}"
