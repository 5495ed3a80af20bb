"""A string that is never shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, final


@final
class Secret:
    """A password or token. `reveal()` returns it; nothing else does: not `str`, `repr`, `format` or `pickle`.

    A plugin declares a field of this type in its `Config`; the manifest gives it as `{ env = "NAME" }` or
    `{ file = "/run/secrets/name" }`.
    """

    __slots__ = ("_again", "_heard", "_text")

    def __init__(self, text: str, *, again: Callable[[], str] | None = None) -> None:
        """Make one of a text.

        Args:
            text: What it hides.
            again: Returns the text as it is later, or raises OSError or ValueError; None for one that stays.
        """
        self._text = text
        self._again = again
        self._heard: list[Callable[[str], None]] = []

    def reveal(self) -> str:
        """Return the text itself. Call it where the text is used, and keep no copy."""
        return self._text

    def fresh(self) -> str:
        """Return the text as its file has it now; as it was at the start, where that cannot be read.

        For whoever connects again after a password has changed. Who was told of this secret is told of the new text
        before it is returned, so that the log masks both. Reads a small file.
        """
        if self._again is None:
            return self._text
        try:
            text = self._again() or self._text
        except (OSError, ValueError):
            return self._text
        if text != self._text:
            for hear in self._heard:
                hear(text)
        return text

    def tell(self, hear: Callable[[str], None]) -> None:
        """Have a function called with each other text that this secret comes to have, before anybody gets it.

        It is called in whichever thread asks for the text.
        """
        if hear not in self._heard:
            self._heard.append(hear)

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> Any:  # noqa: ANN401  pydantic's
        """Let a model of pydantic have a field of this type; it takes a `SecretStr` as well."""

        def read(value: object) -> Secret:
            if isinstance(value, cls):
                return value
            reveal = getattr(value, "get_secret_value", None)
            if not callable(reveal):
                raise ValueError("must be a secret")  # noqa: TRY004  pydantic catches this one
            return cls(str(reveal()))

        return sys.modules["pydantic_core.core_schema"].no_info_plain_validator_function(read)

    def __reduce__(self) -> str:
        raise TypeError("a Secret cannot be pickled")
