"""Messages as people are shown them, without what is called like a secret; public through `kernel.abc`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, cast

from .passwords import MASK, masked, names_a_password

_NAMES: Final = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
"""Headers that carry one."""
_DEEP: Final = 50


def shown_headers(headers: Mapping[str, object]) -> dict[str, str]:
    """Return headers as text, `***` for the values of those that carry or are called like a secret."""
    return {str(key): MASK if _is_secret(str(key)) else masked(str(value)) for key, value in headers.items()}


def shown_body(body: bytes) -> str:
    """Return a body as text: JSON without what stands under keys that are called like a secret, or what it says."""
    try:
        return json.dumps(_masked(json.loads(body), _DEEP), ensure_ascii=False)
    except (ValueError, RecursionError):
        return masked(body.decode(errors="backslashreplace"))


def _is_secret(key: str) -> bool:
    return names_a_password(key) or key.lower() in _NAMES


def _masked(value: object, deep: int) -> object:
    if deep == 0:
        return "..."
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {key: MASK if _is_secret(key) else _masked(item, deep - 1) for key, item in items}
    if isinstance(value, list):
        return [_masked(item, deep - 1) for item in cast("list[object]", value)]
    return masked(value) if isinstance(value, str) else value
