"""Values <-> MessagePack, within limits. What JSON can say and bytes come back as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias, cast

import msgpack  # pyright: ignore[reportMissingTypeStubs]  it has none

from kernel import Arguments, read_json, write_json
from kernel.errors import DecodeError, EncodeError, error_text

Table: TypeAlias = dict[str, object]
Default: TypeAlias = Callable[[object], object]
Pairs: TypeAlias = list[tuple[object, object]]
Hook: TypeAlias = Callable[[Table], object]

_library: Final[Any] = msgpack
_CONTAINERS: Final = (dict, list, set)
_TIMESTAMP_AS_DATETIME: Final = 3


def plainer(value: object) -> object:
    """Return what MessagePack has no type for as what it has: as JSON writes it, and a datetime as text too.

    Raises:
        EncodeError: if JSON cannot say it either.
    """
    if isinstance(value, Arguments):
        return {"args": value.args, "kwargs": dict(value.kwargs)}
    limit = 2**31
    return read_json(write_json(value, max_bytes=limit, max_depth=500), max_bytes=limit, max_depth=500)


def pack(value: object, *, default: Default = plainer, max_bytes: int, max_depth: int) -> bytes:
    """Return the body for a value.

    Args:
        value: What to write.
        default: Makes something plainer of what MessagePack has no type for.
        max_bytes: The longest body.
        max_depth: How many arrays and maps may lie within each other.

    Raises:
        EncodeError: if it cannot be written.
    """
    try:
        body = cast("bytes", _library.packb(value, default=default, use_bin_type=True))
    except EncodeError:
        raise
    except Exception as error:  # the value's own code runs here, so it can be any
        raise EncodeError(f"payload cannot be written: {type(error).__name__}: {error_text(error)}") from error
    if len(body) > max_bytes:
        raise EncodeError(f"payload takes {len(body)} bytes, more than max_bytes = {max_bytes}")
    if len(body) > max_depth and is_deeper(unpack(body, max_bytes=max_bytes, max_depth=None), max_depth):
        raise EncodeError(f"payload is nested more than max_depth = {max_depth} levels deep")
    return body


def unpack(body: bytes, *, hook: Hook | None = None, max_bytes: int, max_depth: int | None) -> object:
    """Return the value that a body holds.

    Args:
        body: One value in MessagePack, and nothing after it.
        hook: Makes of a map what it stands for.
        max_bytes: The longest body.
        max_depth: How many arrays and maps may lie within each other; None looks at what the library allows alone.

    Raises:
        DecodeError: if it is none.
    """
    if len(body) > max_bytes:
        raise DecodeError(f"body takes {len(body)} bytes, more than max_bytes = {max_bytes}")
    try:
        value = cast(
            "object",
            _library.unpackb(
                body,
                raw=False,
                strict_map_key=False,  # numbers may be keys; what cannot be one is an error all the same
                timestamp=_TIMESTAMP_AS_DATETIME,
                object_pairs_hook=_map_hook(hook),
                ext_hook=_refuse,
            ),
        )
    except Exception as error:  # of the library, and of what the hook makes
        raise DecodeError(f"body is not MessagePack: {type(error).__name__}: {error_text(error)}") from error
    if max_depth is not None and len(body) > max_depth and is_deeper(value, max_depth):
        raise DecodeError(f"body is nested more than max_depth = {max_depth} levels deep")
    return value


def _map_hook(hook: Hook | None) -> Callable[[Pairs], object]:
    if hook is None:
        return _map
    make = hook
    return lambda pairs: make(_map(pairs))


def _map(pairs: Pairs) -> Table:
    """Two readers would understand a key that is there twice differently, so that a check of one is none of the other."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a map has a key twice")
    return cast("Table", table)


def _refuse(code: int, _data: bytes) -> object:
    raise ValueError(f"there is no extension type {code}")


def is_deeper(value: object, limit: int) -> bool:
    """Return whether more arrays and maps lie within each other than the limit allows."""
    level = _containers([value])
    for _ in range(limit):
        level = [inner for outer in level for inner in _containers(_parts(outer))]
        if not level:
            return False
    return bool(level)


def _containers(values: Iterable[object]) -> list[object]:
    return [value for value in values if type(value) in _CONTAINERS]


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("Table", value).values()
    return cast("Iterable[object]", value)
