"""From a value to JSON text, and from a value that cannot be written to the place in it that is at fault.

What is written can be read again by `json_reading` under the same limits. orjson writes nearly everything, several times
faster than Python's encoder; what it would write otherwise than JSON can say it (NaN), or not at all (an integer of more
than 64 bits, a key that is no string), is left to Python's. The search for a fault runs only when both have failed.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, Final, cast

import attrs
import orjson

from .._core.envelope import Arguments
from .._core.secret import Secret
from ..errors import EncodeError
from .annotations import loaded
from .json_reading import is_deeper, shown
from .leaves import MAX_DIGITS, written
from .strict import is_array

_OURS: Final = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
"""What orjson leaves to us, who know how it is to be written."""


def write_json(value: object, *, sort_keys: bool = True, max_bytes: int, max_depth: int) -> bytes:
    """Return the body for a value, as compact as JSON can be.

    What a payload can be converted to is written in the form that is read again (docs/reference/types.md): classes by
    the names and aliases of their fields, an `Enum` as its value, bytes as base64. A `Secret` is refused.

    Args:
        value: What to write.
        sort_keys: Whether equal values give equal bytes; if not, keys stay in their order.
        max_bytes: The longest body.
        max_depth: How many arrays and objects may lie within each other; at most 500.

    Raises:
        EncodeError: naming the place in the value and what is wrong with it.
    """
    try:
        body = _write_fast(value, sort_keys=sort_keys) or _write(value, sort_keys=sort_keys)
    except Exception as error:  # the value's own code runs here, so it can be any (test_json_encode)
        raise EncodeError(_explain(value, error)) from error
    if len(body) > max_bytes:
        raise EncodeError(f"payload takes {len(body)} bytes, more than max_bytes = {max_bytes}")
    if is_deeper(body, max_depth):
        raise EncodeError(f"payload is nested more than max_depth = {max_depth} levels deep")
    return body


def _write_fast(value: object, *, sort_keys: bool) -> bytes:
    """Return the text as orjson writes it; empty if it cannot, or if that may not be what the value is."""
    try:
        body = orjson.dumps(value, _plainer, _OURS | orjson.OPT_SORT_KEYS if sort_keys else _OURS)
        # It writes NaN and infinity as null. Neither is equal to None, so a value that is equal has none.
        return body if b"null" not in body or orjson.loads(body) == value else b""
    except Exception:  # noqa: BLE001  the value's own code runs here; if it fails again, `_write` raises it
        return b""


def _write(value: object, *, sort_keys: bool) -> bytes:
    """Return the text as Python's encoder writes it."""
    try:
        text = _encode(value)  # always: it finds keys that would collide
    except TypeError:
        value = _tree(value)  # a key may have a text of its own
        text = _encode(value)
    return (text if sort_keys else _encode_unsorted(value)).encode()


def _tree(value: object) -> object:
    """Return a value as plain objects, arrays and scalars, with keys that JSON has."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        given = cast("dict[object, object]", value)
        made = {_key(key): _tree(part) for key, part in given.items()}
        if len(made) < len(given):
            raise TypeError("has two keys that are written alike")
        return made
    return [_tree(part) for part in value] if is_array(value) else _tree(_simpler(value))


def _key(key: object) -> object:
    """Return what a key is written as: a string, unless JSON's own writer makes one of it."""
    if key is None or isinstance(key, str | int | float):
        return key
    plain = _simpler(key)
    if isinstance(plain, str | int | float) or plain is None:
        return plain if isinstance(plain, str) else _encode(plain)
    raise TypeError(f"a key is a {type(key).__name__}; keys must be strings")


def _plainer(value: object) -> object:
    """Return what a value is written as, for those that orjson does not know."""
    if type(value) is Arguments:  # of each call
        return {"args": value.args, "kwargs": value.kwargs}
    for kind, plain in _PLAIN:
        if isinstance(value, kind):
            return plain(value)
    return _simpler(value)


def _simpler(value: object) -> object:
    """Return what a value is written as, for those that no encoder knows."""
    if (fields := _fields_of(value)) is not None:
        return fields
    for kinds, simplify in _SIMPLIFIERS:
        if isinstance(value, kinds):
            return simplify(value)
    if callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):
        return dump(mode="json")
    try:
        return written(value)
    except TypeError:
        raise TypeError(f"{type(value).__name__} cannot be written as JSON") from None


def _fields_of(value: object) -> object:
    """Return an instance of a class with fields by what these are called outside; None if it is none."""
    kind: Any = type(value)
    if attrs.has(kind):
        return {field.alias: getattr(value, field.name) for field in attrs.fields(kind)}
    if kind is not Secret and _is_of_pydantic(kind):
        return loaded("pydantic_core").to_jsonable_python(value, by_alias=True)
    if hasattr(kind, "__struct_config__"):
        return loaded("msgspec").to_builtins(value, str_keys=True)
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
    return None


def _is_of_pydantic(kind: object) -> bool:
    return hasattr(kind, "__pydantic_serializer__") or hasattr(kind, "__get_pydantic_core_schema__")


def _refuse(_value: object) -> None:
    raise TypeError("a Secret is never written; call reveal() if it has to be")


def _sorted_items(value: object) -> list[object]:
    """Return the items of a set in an order that is the same in every process."""
    return sorted(cast("AbstractSet[object]", value), key=_encode)


_PLAIN: Final[Sequence[tuple[type, Callable[[Any], object]]]] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (dict, lambda value: dict(value.items())),
    (list, list[object].copy),
)
"""What Python's encoder takes from an instance of a subclass of these."""
_SIMPLIFIERS: Final[Sequence[tuple[type | tuple[type, ...], Callable[[Any], object]]]] = (
    (Secret, _refuse),
    (enum.Enum, lambda value: value.value),
    (Mapping, dict),
    (AbstractSet, _sorted_items),
    ((bytes, bytearray, memoryview), written),
    (Sequence, list),
)


# What contains itself is found when it is too deep: to look for it in each value would cost more.
_encoder: Final = partial(
    json.JSONEncoder,
    ensure_ascii=False,
    allow_nan=False,
    check_circular=False,
    separators=(",", ":"),
    default=_simpler,
)
_encode: Final = _encoder(sort_keys=True).encode
_encode_unsorted: Final = _encoder(sort_keys=False).encode


# --- only after a failure -------------------------------------------------------------------------------------------


def _explain(value: object, error: Exception) -> str:
    """Return a sentence that names the first place in a value that cannot be written."""
    try:
        path, text = next(_faults(value, "payload", ()))
    except Exception:  # noqa: BLE001  the value's own code may fail in new ways; then the first failure has to do
        path, text = "payload", f"{type(error).__name__}: {_text(error)}"
    return f"{path}: {shown(text)}"


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  see test_an_error_without_text_is_written
        return ""


def _faults(value: object, path: str, above: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    if id(value) in above:
        yield path, "contains itself"
    elif len(above) > _DEEPEST:
        yield path[:_DEEPEST], "is nested too deep"
    elif isinstance(value, str | int | float) or value is None:
        yield from ((path, text) for text in _scalar_faults(value))
    elif isinstance(value, dict):
        yield from _object_faults(cast("dict[object, object]", value), path, above)
    elif isinstance(value, list | tuple):
        yield from _array_faults(cast("Sequence[object]", value), path, above)
    else:
        yield from _simplified_faults(value, path, above)


def _object_faults(value: dict[object, object], path: str, above: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    yield from _key_faults(value, path)
    for key, item in value.items():
        yield from _faults(item, f"{path}.{shown(str(key))}", (*above, id(value)))


def _array_faults(value: Sequence[object], path: str, above: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    for index, item in enumerate(value):
        yield from _faults(item, f"{path}[{index}]", (*above, id(value)))


def _simplified_faults(value: object, path: str, above: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    try:
        simpler = _simpler(value)
    except Exception as error:  # noqa: BLE001  whatever it is, it is why the value cannot be written
        yield path, str(error) if isinstance(error, TypeError) else f"{type(error).__name__}: {_text(error)}"
    else:
        yield from _faults(simpler, path, (*above, id(value)))


def _key_faults(value: dict[object, object], path: str) -> Iterator[tuple[str, str]]:
    keys: list[object] = []
    for key in value:
        try:
            keys.append(_key(key))
        except Exception as error:  # noqa: BLE001  a key's own code
            yield path, str(error) if isinstance(error, TypeError) else f"{type(error).__name__}: {_text(error)}"
        else:
            yield from ((path, f"a key {text}") for text in _scalar_faults(keys[-1]))
    if len({isinstance(key, str) for key in keys}) > 1:
        yield path, "has keys that are strings and keys that are not, which could collide"
    elif len(set(keys)) < len(value):
        yield path, "has two keys that are written alike"


def _scalar_faults(value: object) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"is {value}, which is not a number of JSON"
    elif isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
        yield f"is an integer of more than {MAX_DIGITS} digits"
    elif isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
        yield "holds a lone surrogate, which is not text"


_DEEPEST: Final = 500
