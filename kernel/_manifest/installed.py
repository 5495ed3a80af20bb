"""The entry points of what is installed, read from the folders that Python looks into.

As `importlib.metadata` does, which reads every distribution for all that it may be asked, and brings a parser of mail
and one of archives along: a sixth of what it takes to import trio. It is asked where there are things that only it knows.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Final, final

import attrs

_METADATA: Final = ("METADATA", "PKG-INFO")
"""Files of a distribution that may say what it is."""
_INFO: Final = (".dist-info", ".egg-info")
_SECTION: Final = re.compile(r"\[(.+)\]")
_SEPARATORS: Final = re.compile(r"[-_.]+")


@final
@attrs.frozen(eq=False, repr=False)
class EntryPoint:
    """One that a distribution declares."""

    group: str
    name: str
    value: str
    distribution: str
    version: str


def entry_points(groups: Iterable[str]) -> list[EntryPoint]:
    """Return those of some groups; of distributions of one name, the first on the path counts."""
    wanted = frozenset(groups)
    folders = [entry or "." for entry in dict.fromkeys(sys.path)]
    if _needs_importlib(folders):
        return _by_importlib(wanted)
    first: dict[str, str] = {}
    for name, info in (one for folder in folders for one in _infos(folder)):
        first.setdefault(name, info)
    return [one for info in first.values() for one in _declared(info, wanted)]


def _needs_importlib(folders: Iterable[str]) -> bool:
    """Return whether distributions may be in archives, or be found by somebody else than Python itself."""
    foreign = (one for one in sys.meta_path if getattr(one, "__module__", "") != "_frozen_importlib_external")
    return any(hasattr(one, "find_distributions") for one in foreign) or any(map(os.path.isfile, folders))


def _infos(folder: str) -> Iterator[tuple[str, str]]:
    """Yield the folders beside a folder's modules that say what is installed there, each after what that is called."""
    if folder.rstrip("/").endswith(".egg"):
        yield _name_of(os.path.basename(folder.rstrip("/"))), f"{folder}/EGG-INFO"
    try:
        names = os.listdir(folder)
    except OSError:  # it is not there, or not for us
        return
    yield from ((_name_of(name), f"{folder}/{name}") for name in names if name.endswith(_INFO))


def _name_of(folder: str) -> str:
    """Return what a distribution is called, by its folder. Source: Python packaging, name normalization (PEP 503)."""
    return _SEPARATORS.sub("-", os.path.splitext(folder)[0].partition("-")[0]).lower()


def _declared(info: str, wanted: frozenset[str]) -> Iterator[EntryPoint]:
    try:
        text = _read(f"{info}/entry_points.txt")
    except (OSError, UnicodeDecodeError):  # most have none, and one that is broken must not stop the service
        return
    if not any(group in text for group in wanted):
        return
    fields = _header(info)
    owner = fields.get("name") or "unknown", fields.get("version") or "unknown"
    group = ""
    for line in map(str.strip, text.splitlines()):
        name, sign, value = line.partition("=")
        if section := _SECTION.fullmatch(line):
            group = section[1]
        elif sign and group in wanted and not line.startswith("#"):
            yield EntryPoint(group, name.strip(), value.strip(), *owner)


def _header(info: str) -> dict[str, str]:
    """Return the first fields of a distribution's metadata, by their names in lower case."""
    for name in _METADATA:
        try:
            text = _read(f"{info}/{name}")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError):
            break
        return header_of(text)
    return {}


def _read(path: str) -> str:
    with open(path, "rb", buffering=0) as file:  # half of what it takes as text
        return file.read().decode().replace("\r\n", "\n")


def header_of(text: str) -> dict[str, str]:
    """Return the first fields of the metadata of a distribution, by their names in lower case.

    The description that follows is no part of them.
    """
    fields = [line.partition(":") for line in text.partition("\n\n")[0].splitlines()]
    return {name.lower(): value.strip() for name, _, value in reversed(fields)}


def _by_importlib(wanted: frozenset[str]) -> list[EntryPoint]:
    from importlib import metadata  # noqa: PLC0415  heavy, and hardly ever needed

    found: list[EntryPoint] = []
    for entry in (one for group in wanted for one in metadata.entry_points(group=group)):
        try:
            text = next(filter(None, map(entry.dist.read_text, (*_METADATA, ""))), "") if entry.dist else ""
        except Exception:  # noqa: BLE001  a broken distribution that nobody asked for must not stop the service
            text = ""
        fields = header_of(text)
        owner = fields.get("name") or "unknown", fields.get("version") or "unknown"
        found.append(EntryPoint(entry.group, entry.name, entry.value, *owner))
    return found
