"""How problems are worded: suggestions, lists of what is allowed, values cut short.

Everything that is shown to a user about a wrong value passes through `shown`, so that secrets stay hidden, control
characters stay escaped and nobody's log fills up with a payload.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time
from typing import Final

from .secret import Secret

MAX_SHOWN: Final = 60
"""Characters of a value that are shown at most."""
MAX_TEXT: Final = 300
"""Characters of what a validator says that are shown at most; of a value that it names, `MAX_SHOWN`."""
_HUGE_BITS: Final = 128
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

# The texts of attrs' own validators, which name the field (the caller names it better) and speak Python.
_ATTRS_TEXTS: Final = (
    (r"'(\w+)' must be >= (.+): (.+)", "must be at least {1}, got {2}"),
    (r"'(\w+)' must be <= (.+): (.+)", "must be at most {1}, got {2}"),
    (r"'(\w+)' must be > (.+): (.+)", "must be more than {1}, got {2}"),
    (r"'(\w+)' must be < (.+): (.+)", "must be less than {1}, got {2}"),
    (r"Length of '(\w+)' must be >= (\d+): (\d+)", "must have a length of at least {1}, got {2}"),
    (r"Length of '(\w+)' must be <= (\d+): (\d+)", "must have a length of at most {1}, got {2}"),
    (r"'(\w+)' must be in [\[({{]+(.*?),?[\])}}]+ \(got (.+)\)", "must be one of {1}, got {2}"),
    (r"'(\w+)' must match regex '(.*)' \((.+) doesn't\)", "must match {1}, got {2}"),
    (r"'(\w+)' (must .+)", "{1}"),
)


_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("retries", "max_retries", "tries", "max_attempts"), ("attempts", "retry")),
    **dict.fromkeys(("host", "port", "address", "listen"), ("bind", "hosts")),
    **dict.fromkeys(("url", "uri", "dsn", "server", "servers"), ("hosts", "path")),
    **dict.fromkeys(("file", "filename", "database", "db"), ("path",)),
    **dict.fromkeys(("user", "login"), ("username",)),
    **dict.fromkeys(("vhost",), ("virtual_host",)),
    **dict.fromkeys(("class", "module", "handler", "function", "target"), ("use",)),
    **dict.fromkeys(("type", "kind"), ("plugin",)),
    **dict.fromkeys(
        ("routing_key", "routing_keys", "topic", "topics", "subject", "subjects", "pattern"), ("bindings",)
    ),
    **dict.fromkeys(("prefetch", "prefetch_count", "max_workers", "threads", "parallel"), ("concurrency",)),
    **dict.fromkeys(("processes", "replicas", "count"), ("instances",)),
    **dict.fromkeys(("schedule", "crontab"), ("cron",)),
    **dict.fromkeys(("every", "period", "seconds"), ("interval",)),
    **dict.fromkeys(("depends_on", "requires", "after"), ("depends",)),
    **dict.fromkeys(("settings", "params", "args", "kwargs"), ("config", "options")),
    **dict.fromkeys(("codec", "serializer", "format"), ("protocol",)),
    **dict.fromkeys(("broker", "connection"), ("driver",)),
    **dict.fromkeys(("dead_letter_queue", "dlq"), ("dead_letters",)),
    **dict.fromkeys(("shutdown_timeout", "stop_timeout"), ("grace_period",)),
    **dict.fromkeys(("log", "logger"), ("logging",)),
}
"""What other programs call it: word -> our words for it, of which the first that is allowed is meant."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return `; did you mean "x"?` with the option nearest to a word, or nothing if none is near."""
    import difflib  # noqa: PLC0415  only who has mistyped something pays for it

    nearest = difflib.get_close_matches(word, list(options), n=1)
    return f'; did you mean "{nearest[0]}"?' if nearest else ""


def unknown(what: str, word: str, allowed: Iterable[str], also: Iterable[str] = ()) -> str:
    """Return the problem with a word that is none of the allowed ones.

    Args:
        what: What it is: `key`, `table`.
        word: The word.
        allowed: What is listed as allowed.
        also: What is allowed too and may be suggested, but is not listed.
    """
    options = list(allowed)
    known = [*options, *also]
    alias = next((name for name in _ALIASES.get(word.lower(), ()) if name in known), None)
    nearest = did_you_mean(word, known) or (f'; did you mean "{alias}"?' if alias else "")
    return f"unknown {what}{nearest or ';'} allowed: {listed(options)}"


def counted(number: int, what: str) -> str:
    """Return `1 restart`, `2 restarts`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def listed(words: Iterable[str], *, last: str = "") -> str:
    """Return words joined by commas, the last one by `last` (`or`, `and`) if given; `nothing` if there are none."""
    parts = list(words)
    if last and len(parts) > 1:
        return f"{', '.join(parts[:-1])} {last} {parts[-1]}"
    return ", ".join(parts) or "nothing"


def shown(value: object, *, table: str = "a table") -> str:
    """Return a value as a problem shows it: one line, at most about `MAX_SHOWN` characters, never a secret.

    Args:
        value: Anything.
        table: What mappings are called where the value comes from.
    """
    if isinstance(value, Mapping):
        return table
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes"
    return "an array" if isinstance(value, Sequence) else _shown_scalar(value)


def _shown_scalar(value: object) -> str:
    match value:
        case None | True | False:
            return str(value).lower().replace("none", "null")
        case int() if value.bit_length() > _HUGE_BITS:
            return "a huge integer"
        case int() | float():
            return repr(value)
        case date() | time():
            return value.isoformat()
        case _:
            return "a secret" if isinstance(value, Secret) else type(value).__name__


def quoted(text: str, limit: int = MAX_SHOWN) -> str:
    """Return a text in quotes, cut at a limit, with control characters escaped."""
    part = cut(text, limit)
    return f'"{part}"' if part.isprintable() else repr(part)


def toml_key(key: str) -> str:
    """Return a key as TOML writes it: bare if possible, else quoted."""
    return key if _BARE_KEY.fullmatch(key) else quoted(key)


def toml_path(table: Iterable[str], rest: Iterable[str | int] = ()) -> str:
    """Return `[table.path].key[0].key`; empty if both parts are."""
    header = ".".join(map(toml_key, table))
    steps = [f"[{step}]" if isinstance(step, int) else f".{toml_key(step)}" for step in rest]
    return f"[{header}]{''.join(steps)}" if header else "".join(steps).removeprefix(".")


def field_and_text(error: Exception) -> tuple[str, str]:
    """Return what a validator found in plain words: the field that it names (empty if none) and the text."""
    message = str(error.args[0]) if error.args else ""
    for pattern, words in _ATTRS_TEXTS:
        if found := re.fullmatch(pattern, message, re.DOTALL):
            name, rule, *values = found.groups()
            return name, words.format(name, cut(rule, MAX_TEXT), *map(cut, values))
    return "", cut(message, MAX_TEXT) or type(error).__name__


def cut(text: str, limit: int = MAX_SHOWN) -> str:
    """Return a text, or its beginning and `...` if it is longer than a limit."""
    return text if len(text) <= limit else f"{text[:limit]}..."
