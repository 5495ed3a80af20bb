"""A manifest and those inside of it as one: what of a plan is put together from its parts, of which most have none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from .._convert.strict import is_table
from .._core.secret import Secret
from .._core.spec import StageSpec
from .._manifest.manifest import Manifest

if TYPE_CHECKING:
    from .inside import Part

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


def joined(mappings: Iterable[Mapping[KeyT, ValueT]]) -> dict[KeyT, ValueT]:
    """Return mappings of different keys as one."""
    return {key: value for mapping in mappings for key, value in mapping.items()}


def secrets_in(manifest: Manifest) -> Iterator[Secret]:
    """Yield every secret of a manifest and of those inside of it."""
    yield from manifest.secrets()
    for inner in manifest.services.values():
        yield from secrets_in(inner)


def with_tables_of(parts: Sequence[Part], own: Mapping[str, object]) -> Mapping[str, object]:
    """Return the tables of all components, by the names that they have in the whole."""
    tables = dict(own)
    for part in parts:
        for section, named in part.tables.items():
            known = tables.get(section)
            tables[section] = {**(known if is_table(known) else {}), **named}
    return tables


def with_stages_of(parts: Sequence[Part], own: Sequence[StageSpec]) -> tuple[StageSpec, ...]:
    """Return the stages of all: what is outside is there first and last, since what is inside may use it."""
    if not parts:
        return tuple(own)
    inner = [stage for part in parts for stage in part.stages]
    rising = [stage for stage in (*own, *inner) if stage.is_rising]
    return (*rising, *(stage for stage in (*inner, *own) if not stage.is_rising))
