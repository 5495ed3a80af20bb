"""What to write instead, where a manifest is no TOML: people write Python, YAML and JSON into it."""

from __future__ import annotations

import re
from typing import Final

from .._core.words import cut, toml_path

_ASSIGNED: Final = re.compile(r"\s*(?P<key>[\w.-]+)\s*=\s*(?P<value>[^#]*?)\s*(?:#.*)?")
_WITH_COLON: Final = re.compile(r"\s*(?P<key>[\w-]+)\s*:\s*(?P<value>[^#]*?)\s*(?:#.*)?")
_WORD: Final = re.compile(r"[^\W\d][\w./:*-]*")
_TWICE: Final = re.compile(r"Cannot declare \((.*)\) twice")
_NULLS: Final = frozenset({"none", "null", "nil"})
_TRUTHS: Final = {"yes": "true", "on": "true", "no": "false", "off": "false"}


def syntax_hint(text: str, line: int, message: str) -> str:
    """Return `; what to write instead`, or nothing.

    Args:
        text: All of the manifest.
        line: Where it is no TOML, from 1.
        message: What the parser says.
    """
    lines = text.splitlines()
    written = lines[line - 1] if 0 < line <= len(lines) else ""
    if message == "Invalid value":
        return _of_value(written)
    if found := _TWICE.match(message):
        return _of_table(re.findall(r"'((?:[^'\\]|\\.)*)'", found[1]), lines, line)
    if found := _WITH_COLON.fullmatch(written):
        return _of_colon(found["key"], found["value"])
    if written.lstrip().startswith("{"):
        return "; a manifest is TOML, and this looks like JSON: a table begins with a line such as [kernel]"
    return ""


def _of_value(written: str) -> str:
    found = _ASSIGNED.fullmatch(written)
    if found is None:
        return ""
    key, value = found["key"], found["value"]
    word = value.lower()
    if word in _NULLS:
        return f"; TOML has no {cut(value)}: leave the key out"
    if word in {"true", "false"} or word in _TRUTHS:
        return f"; write {key} = {_TRUTHS.get(word, word)}"
    if _WORD.fullmatch(value):
        return f'; a text stands in quotes: write {key} = "{cut(value)}"'
    return ""


def _of_table(parts: list[str], lines: list[str], line: int) -> str:
    header = toml_path(parts)
    earlier = next((number for number, text in enumerate(lines[: line - 1], 1) if text.strip().startswith(header)), 0)
    where = f" in line {earlier}" if earlier else ""
    return f"; {header} is there already{where}: put the keys together, or give one of the two another name"


def _of_colon(key: str, value: str) -> str:
    if value:
        return f"; write {key} = {cut(value)}"
    return f"; a manifest is TOML, and this looks like YAML: a table begins with a line such as [{key}]"
