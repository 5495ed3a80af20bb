"""What is inside of secrets, found in a text by its value and replaced by `***`.

A secret that was revealed may come back in an exception's text, an address or a header, written in another way.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final, final
from urllib.parse import quote, quote_plus

import attrs

from .passwords import MASK, masked_prose
from .secret import Secret

SHORTEST: Final = 5
"""Characters; what is shorter stands in every other line by chance, and is not looked for."""
_UNMISTAKABLE: Final = 12
"""Characters of a text that does not stand in a longer word by chance."""
_SHORTEST_LINE: Final = 16
"""Characters of a line of a secret that has several; of a key in PEM, each is one."""


@final
@attrs.define(eq=False, repr=False)
class Masks:
    """The texts that are never written. Those who hold them see those that are learnt later as well."""

    _texts: tuple[str, ...] = ()
    _pattern: re.Pattern[str] | None = None

    @classmethod
    def of(cls, secrets: Iterable[Secret]) -> Masks:
        """Return the masks of secrets, in all the forms that those are commonly written in."""
        masks = cls()
        masks.learn(secrets)
        return masks

    def learn(self, secrets: Iterable[Secret]) -> None:
        """Mask further secrets, too. Those that were known still are: what holds them may write them yet."""
        revealed = [secret.reveal() for secret in secrets]
        found = {form for text in revealed if len(text.strip()) >= SHORTEST for form in (*_forms(text), *_lines(text))}
        texts = {form for form in found if len(form) >= SHORTEST}
        longest_first = sorted({*self._texts, *texts}, key=lambda text: (-len(text), text))
        if len(longest_first) > len(self._texts):
            # The pattern first: another thread may be masking.
            self._pattern = re.compile("|".join(map(_as_pattern, longest_first)))
            self._texts = tuple(longest_first)

    def applied(self, text: str) -> str:
        """Return a text in which the secrets are masked, and the passwords of addresses."""
        text = masked_prose(text)
        # To look for each costs a tenth of what the pattern does, and nearly no text holds one.
        if self._pattern is None or not any(one in text for one in self._texts):
            return text
        return self._pattern.sub(MASK, text)


def _lines(text: str) -> Iterator[str]:
    lines = text.splitlines() if "\n" in text else []
    yield from (line for line in lines if len(line) >= _SHORTEST_LINE and not line.startswith("-----"))


def _forms(text: str) -> set[str]:
    data = text.encode(errors="surrogatepass")
    plain = {
        text,
        repr(text)[1:-1],
        repr(json.dumps(text))[2:-2],
        repr(data)[2:-1],
        text.replace("\\", "\\\\").replace('"', '\\"'),
    }
    in_address = {
        quote(text, safe="", errors="replace"),
        quote(text, errors="replace"),
        quote_plus(text, errors="replace"),
    }
    return {*plain, *(json.dumps(form)[1:-1] for form in plain), *in_address, *_in_base64(data)}


def _in_base64(data: bytes) -> Iterator[str]:
    """Yield what base64 makes of it, alone and wherever in a longer text it begins, as in `user:password`."""
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data).decode()
        inner = whole[(before * 4 + 2) // 3 : (before + len(data)) * 4 // 3]
        for form in (inner, whole) if before == 0 else (inner,):
            if len(form) >= _UNMISTAKABLE:
                yield from (form, form.replace("+", "-").replace("/", "_"))


def _as_pattern(text: str) -> str:
    pattern = re.escape(text)
    return pattern if len(text) >= _UNMISTAKABLE else rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])"
