"""The key `depends`: names of components become ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from .._core.words import did_you_mean, listed
from .ground import Ground, refer

if TYPE_CHECKING:
    from .inside import Part

_KINDS: Final = ("driver", "dispatcher", "worker")
"""Of components that are started and stopped."""


def depends_on(
    ground: Ground, table: tuple[str, ...], names: Sequence[str], parts: Sequence[Part] = ()
) -> Iterator[str]:
    """Yield the ids of what the key `depends` names; what is wrong is reported.

    Args:
        ground: Of the manifest.
        table: Where the key stands.
        names: What it says.
        parts: The services inside, as far as they are known.
    """
    for index, name in enumerate(names):
        at = (*table, "depends", str(index))
        kind, slash, short = name.rpartition("/")
        if not slash:
            yield from _depend_on_name(ground, name, at)
        elif kind == "service" and ground.tables.services:
            yield from _depend_on_service(ground, short, at, parts)
        elif kind not in _KINDS:
            ground.report(at, f'"{kind}" is no kind of component that starts; there are: {listed(_KINDS)}')
        elif refer(ground.tables, kind, short, at, ground.report):
            yield name


def _depend_on_service(ground: Ground, name: str, at: tuple[str, ...], parts: Sequence[Part]) -> Iterator[str]:
    """Yield all that a service inside is made of."""
    known = {part.name: part for part in parts}
    if name in known:
        yield from known[name].components
    elif name not in ground.tables.services:  # else it is wrong itself, which has been told
        near = did_you_mean(name, known) or f"; there are: {listed(known)}"
        ground.report(at, f'there is no service "{name}" inside{near}')


def _depend_on_name(ground: Ground, name: str, at: tuple[str, ...]) -> Iterator[str]:
    tables = ground.tables
    found = [f"{kind}/{name}" for kind in _KINDS if name in tables.of(kind)]
    disabled = [f"{kind}/{name}" for kind in _KINDS if f"{kind}/{name}" in tables.disabled]
    if len(found) > 1:
        ground.report(at, f'"{name}" may mean {listed(found, last="or")}; write one of them')
    elif not found and disabled:
        ground.report(at, f"{disabled[0]} is disabled (enabled = false)")
    elif not found:
        known = [known for kind in _KINDS for known in tables.of(kind)]
        there_are = f"; there are: {listed(dict.fromkeys(known))}"
        ground.report(at, f'there is no component "{name}"{did_you_mean(name, known) or there_are}')
    yield from found[:1]
