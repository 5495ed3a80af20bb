"""Passwords in strings that are no `Secret`: in addresses, in DSNs, and under keys that are called like one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

MASK: Final = "***"
_WORDS: Final = (
    r"(?:[\w.-]*[_.-])?(?:ssl)?(?:pass(?:word|wd|phrase)?|pwd|secret|token|credentials?|sig(?:nature)?"
    r"|(?:api|access|account|private|shared|secret|sas)[_-]?(?:access)?[_-]?key)"
)
_KEY: Final = re.compile(_WORDS, re.IGNORECASE)
_PAIR: Final = re.compile(
    rf"""(?<![\w.-])({_WORDS}\s*=\s*)('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\{{[^}}]*\}}|[^\s;&]+)""", re.IGNORECASE
)
_IN_ADDRESS: Final = re.compile(r"(://).*@", re.DOTALL)
_IN_DSN: Final = re.compile(r"\A[^\s:@/]+:[^\s@][^\s]*@(?=[\w\[(.-])")
_OF_USER: Final = re.compile(r"://([^\s/?#:@]*):([^\s]*)@")
_IN_PROSE: Final = re.compile(r"""(://)[^\s"'/?#:]*:[^\s"']*@""")


def masked(text: str) -> str:
    """Return a value without the passwords in it: what comes before the last `@`, and what follows `password=`.

    Of what may be one or not, too much is masked rather than too little.
    """
    text = _PAIR.sub(rf"\1{MASK}", text)
    return _IN_ADDRESS.sub(rf"\1{MASK}@", text) if "://" in text else _IN_DSN.sub(f"{MASK}@", text)


def passwords_in(text: str) -> Iterator[str]:
    """Yield the passwords in an address or a list of pairs, as they are written and as they are meant.

    One that is the name of its user is none: it stands everywhere.
    """
    for found in _PAIR.finditer(text):
        yield found[2].strip("\"'{}")
    for user, password in _OF_USER.findall(text):
        if password != user:
            # Who ends a password at its first `@`, as libpq does, quotes the rest as the name of a host.
            yield from {password, unquote(password), password.partition("@")[2]}


def masked_prose(text: str) -> str:
    """Return a text in which addresses have no user and password."""
    return _IN_PROSE.sub(rf"\1{MASK}@", text) if "://" in text and "@" in text else text


def names_a_password(key: str) -> bool:
    """Return whether what a key holds is to be masked, whatever it is."""
    return _KEY.fullmatch(key) is not None
