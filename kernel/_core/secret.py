"""A string that is never shown."""

from __future__ import annotations

from typing import final


@final
class Secret:
    """A password or token. `reveal()` returns it; nothing else does: not `str`, `repr`, `format` or `pickle`.

    A plugin declares a field of this type in its `Config`; the manifest gives it as `{ env = "NAME" }` or
    `{ file = "/run/secrets/name" }`.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself. Call it where the text is used, and keep no copy."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> str:
        raise TypeError("a Secret cannot be pickled")
