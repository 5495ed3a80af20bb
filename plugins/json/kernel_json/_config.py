"""The table of a protocol with `plugin = "json"`."""

from __future__ import annotations

import re
from typing import Final, final

import attrs

from kernel.abc import ByFields

MIB: Final = 1024 * 1024
_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)


def _check_types(_: object, attribute: attrs.Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    for name in value:
        if not _TYPE.fullmatch(name):
            raise ValueError(
                f"'{attribute.name}' must be content types without parameters, such as \"text/plain\", got {name!r}"
            )


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class JsonConfig(ByFields):
    """What bodies may be, in both directions."""

    max_bytes: int = attrs.field(default=16 * MIB, validator=attrs.validators.ge(1))
    """Bytes of a body."""
    max_depth: int = attrs.field(
        default=64, validator=attrs.validators.and_(attrs.validators.ge(1), attrs.validators.le(500))
    )
    """How many arrays and objects may lie within each other. The limit is below what would exhaust the stack."""
    content_types: tuple[str, ...] = attrs.field(default=(), validator=_check_types)
    """Content types under which peers send JSON, besides those of JSON itself."""
