"""What is inside of secrets, found in a text by its value and replaced by `***`.

A secret that was revealed may come back in an exception's text, an address or a header, written in another way.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final, final
from urllib.parse import quote, quote_plus

import attrs

from .passwords import MASK, masked_prose, passwords_in
from .secret import Secret

SHORTEST: Final = 5
"""Characters; what is shorter stands in every other line by chance, and is not looked for."""
_UNMISTAKABLE: Final = 12
"""Characters of a text that does not stand in a longer word by chance."""
_SHORTEST_LINE: Final = 16
"""Characters of a line of a secret that has several; of a key in PEM, each is one."""

_PARTS: Final = re.compile(r"\\+|[^\\]", re.DOTALL)
"""Runs of backslashes, and every other character."""
_UNESCAPED: Final = re.compile(r"[ !#-&(-\[\]-~]+")
_LETTERS: Final = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", "\a": "a", "\v": "v"}
_NO_WORD_BEFORE: Final = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrtbfav])|(?<=\\x[0-9a-f]{2})|(?<=\\u[0-9a-f]{4}))"


@final
@attrs.define(eq=False, repr=False)
class Masks:
    """The texts that are never written. Those who hold them see those that are learnt later as well."""

    _texts: tuple[str, ...] = ()
    _needles: tuple[str, ...] = ()
    """What each of the texts has in it however it is escaped."""
    _pattern: re.Pattern[str] | None = None
    _learning: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    """Held by whoever learns: a secret may have another text in any thread."""

    @classmethod
    def of(cls, secrets: Iterable[Secret]) -> Masks:
        """Return the masks of secrets, in all the forms that those are commonly written in."""
        masks = cls()
        masks.learn(secrets)
        return masks

    def learn(self, secrets: Iterable[Secret]) -> None:
        """Mask further secrets, too, and what they become later; what is known stays: who holds it may write it yet."""
        secrets = list(secrets)
        for secret in secrets:
            secret.tell(self._learn_text)
        self._learn([secret.reveal() for secret in secrets])

    def _learn_text(self, text: str) -> None:
        self._learn([text])

    def _learn(self, revealed: Iterable[str]) -> None:
        hidden = [inner for text in revealed for inner in (text, *passwords_in(text))]
        found = {form for text in hidden if len(text.strip()) >= SHORTEST for form in (*_forms(text), *_lines(text))}
        texts = {form for form in found if len(form) >= SHORTEST}
        with self._learning:
            longest_first = sorted({*self._texts, *texts}, key=lambda text: (-len(text), text))
            if len(longest_first) > len(self._texts):
                # The pattern first: another thread may be masking.
                self._pattern = re.compile("|".join(map(_as_pattern, longest_first)))
                self._texts = tuple(longest_first)
                self._needles = tuple({max(_UNESCAPED.findall(one), key=len, default="") for one in longest_first})

    def applied(self, text: str) -> str:
        """Return a text in which the secrets are masked, and the passwords of addresses."""
        text = masked_prose(text)
        # To look for each costs a tenth of what the pattern does, and nearly no text holds one.
        if self._pattern is None or not any(one in text for one in self._needles):
            return text
        return self._pattern.sub(MASK, text)


def _lines(text: str) -> Iterator[str]:
    lines = text.splitlines() if "\n" in text else []
    yield from (line for line in lines if len(line) >= _SHORTEST_LINE and not line.startswith("-----"))


def _forms(text: str) -> set[str]:
    data = text.encode(errors="surrogatepass")
    in_address = {
        quote(text, safe="", errors="replace"),
        quote(text, errors="replace"),
        quote_plus(text, errors="replace"),
    }
    return {text, *in_address, *_in_base64(data)}


def _in_base64(data: bytes) -> Iterator[str]:
    """Yield what base64 makes of it, alone and wherever in a longer text it begins, as in `user:password`."""
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data).decode()
        inner = whole[(before * 4 + 2) // 3 : (before + len(data)) * 4 // 3]
        for form in (inner, whole) if before == 0 else (inner,):
            if len(form) >= _UNMISTAKABLE:
                yield from (form, form.replace("+", "-").replace("/", "_"))


def _as_pattern(text: str) -> str:
    """Return what matches a text however often it was escaped, as by `repr` in JSON in `repr`.

    Each escaping doubles backslashes, puts them before quotes, and writes what is not printable in ASCII by its number:
    how many backslashes there are is left open. Where a run of them begins or is left is told apart from its middle,
    so that a text of backslashes alone is not gone through again from each of them.
    """
    parts = _PARTS.findall(text)
    pattern = _begun(parts[0]) if len(parts) > 1 else re.escape(parts[0])
    pattern += "".join(_continued(part, before[-1] == "\\") for before, part in pairwise(parts[:-1]))
    pattern += _ended(parts[-1], parts[-2][-1] == "\\") if len(parts) > 1 else ""
    return pattern if len(text) >= _UNMISTAKABLE else rf"{_NO_WORD_BEFORE}{pattern}(?![A-Za-z0-9])"


def _begun(part: str) -> str:
    if part[0] == "\\":
        return rf"(?<!\\)\\{{{len(part)},}}+"
    if part in "\"'":
        return rf"(?:(?<!\\)\\++)?{part}"
    return rf"(?:{part}|(?<!\\)\\++{_numbered(part)})" if not _UNESCAPED.fullmatch(part) else re.escape(part)


def _continued(part: str, is_after_backslash: bool) -> str:  # noqa: FBT001  two forms of one
    backslashes = "" if is_after_backslash else r"\\++"
    if part[0] == "\\":
        return rf"\\{{{len(part)},}}+"
    if part in "\"'":
        return part if is_after_backslash else rf"\\*+{part}"
    return rf"(?:{part}|{backslashes}{_numbered(part)})" if not _UNESCAPED.fullmatch(part) else re.escape(part)


def _ended(part: str, is_after_backslash: bool) -> str:  # noqa: FBT001  two forms of one
    """What escapes the next character is not part of a run at the end, which doubles with each escaping."""
    if part[0] == "\\":
        return "(?:" + "|".join(rf"\\{{{len(part) * times}}}" for times in (8, 4, 2, 1)) + ")"
    return _continued(part, is_after_backslash)


def _numbered(part: str) -> str:
    """Return a pattern of what may follow the backslashes instead of a character."""
    data, pairs = part.encode(errors="surrogatepass"), part.encode("utf-16-be", errors="surrogatepass")
    ways = [f"U{ord(part):08x}", r"\\++".join(f"x{byte:02x}" for byte in data)]
    ways.append(r"\\++".join(f"u{pairs[at : at + 2].hex()}" for at in range(0, len(pairs), 2)))
    ways += [f"x{ord(part):02x}"] if ord(part) < 0x100 else []
    ways += [_LETTERS[part]] if part in _LETTERS else []
    return f"(?i:{'|'.join(ways)})"
