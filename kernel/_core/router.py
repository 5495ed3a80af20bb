"""Which target a subject goes to; pure.

Patterns are words joined by dots: `*` stands for one word, `#` for any number of them, none included.
Source: AMQP 0-9-1, topic exchanges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, Generic, TypeVar, final

import attrs

T = TypeVar("T")

CACHE_SIZE: Final = 1024
"""Subjects whose wildcard match is remembered; the least recently seen one is forgotten first."""

_RANKS: Final = {"*": 1, "#": 2}


def check_pattern(pattern: str) -> str | None:
    """Return what is wrong with a pattern, or None."""
    if not pattern:
        return 'a pattern cannot be empty; "#" matches every subject'
    if pattern != pattern.strip():
        return f'pattern "{pattern}" begins or ends with white space'
    return next((text for word in pattern.split(".") if (text := _check_word(word, pattern))), None)


def _check_word(word: str, pattern: str) -> str | None:
    if not word:
        return f'pattern "{pattern}" has an empty word; words are joined by single dots'
    if word not in _RANKS and ("*" in word or "#" in word):
        return f'pattern "{pattern}": "*" and "#" stand for entire words, so "{word}" would match nothing'
    return None


def pattern_matches(pattern: str, subject: str) -> bool:
    """Return whether a subject matches a pattern.

    Takes at most words of the pattern times words of the subject steps, whatever they are.
    """
    return _words_match(_words(pattern), _words(subject))


def _words(text: str) -> list[str]:
    return text.split(".") if text else []


def _words_match(pattern: list[str], subject: list[str]) -> bool:
    # Greedy, and back only to the last `#`: what an earlier one could take instead, the last one can take too.
    at, seen = 0, 0
    resume, taken = -1, 0
    while seen < len(subject):
        if at < len(pattern) and pattern[at] == "#":
            resume, taken = at, seen
            at += 1
        elif at < len(pattern) and pattern[at] in ("*", subject[seen]):
            at, seen = at + 1, seen + 1
        elif resume >= 0:
            taken += 1
            at, seen = resume + 1, taken
        else:
            return False
    return all(word == "#" for word in pattern[at:])


def is_exact(pattern: str) -> bool:
    """Return whether a pattern matches one subject only."""
    return not any(word in _RANKS for word in _words(pattern))


def specificity(pattern: str) -> tuple[object, ...]:
    """Return a key that sorts patterns, the most specific first.

    More literal words win, then fewer `#`, then more `*`, then the pattern whose literal words stand further left.
    The text itself comes last, so that the order of declaration never matters.
    """
    ranks = [_RANKS.get(word, 0) for word in _words(pattern)]
    return (-ranks.count(0), ranks.count(2), -ranks.count(1), ranks, pattern)


@final
@attrs.define(eq=False, repr=False)
class Router(Generic[T]):
    """Subject -> target: the exact pattern if there is one, else the most specific that matches."""

    _exact: dict[str, T]
    _find: Callable[[str], T | None]

    @classmethod
    def of(cls, routes: Iterable[tuple[str, T]]) -> Router[T]:
        """Build a router of (pattern, target) pairs, no pattern twice; a target is not None."""
        pairs = list(routes)
        exact = {pattern: target for pattern, target in pairs if is_exact(pattern)}
        wild = sorted(((p, t) for p, t in pairs if not is_exact(p)), key=lambda pair: specificity(pair[0]))
        table = [(_words(pattern), target) for pattern, target in wild]

        def find(subject: str) -> T | None:
            words = _words(subject)
            return next((target for pattern, target in table if _words_match(pattern, words)), None)

        return cls(exact, lru_cache(CACHE_SIZE)(find))

    def match(self, subject: str) -> T | None:
        """Return the target for a subject, or None if no pattern matches."""
        target = self._exact.get(subject)
        return self._find(subject) if target is None else target
