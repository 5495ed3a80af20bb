"""What a manifest takes from outside: `${VAR}` in strings, and tables that stand for secrets.

Secrets are read here and nowhere else, so that a plan holds everything a service needs and a missing one is a
problem of the manifest.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Final, final

import attrs

from .._convert.strict import FromOutside, is_array, is_table
from .._core.regular import open_at_once
from .._core.secret import Secret
from .._core.words import MAX_TEXT, did_you_mean, listed, quoted, shown

MAX_SECRET_BYTES: Final = 64 * 1024
_OTHERS_MAY_WRITE: Final = 0o022
_EVERYBODY_MAY_READ: Final = 0o004
_SECRET_SHAPES: Final = (("env",), ("file",))
_COMPONENT_DEPTH: Final = 2
_PATTERN: Final = re.compile(
    r"(?P<escape>\$\$\{)|\$\{arguments\.(?P<argument>[a-z_][a-z0-9_]*)\}"
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?:(?!\$\{)[^}])*))?\}|(?P<bad>\$\{)"
)
_SYNTAX: Final = 'write "${NAME}" or "${NAME:-default}", and "$${" for "${" itself'


def option_name(argument: str) -> str:
    """Return what a user writes to give an argument: `--dry-run`."""
    return f"--{argument.replace('_', '-')}"


def stands_for_secret(value: Mapping[str, object], at: tuple[str, ...]) -> bool:
    """Return whether a table of a component stands for a secret."""
    return len(at) > _COMPONENT_DEPTH and tuple(value) in _SECRET_SHAPES


class _Refused(Exception):  # noqa: N818 -- a signal
    """A value cannot be had; the text says why."""


@final
@attrs.define(eq=False, repr=False)
class Substitution:
    """Replaces what comes from outside in a tree of plain values."""

    environ: Mapping[str, str]
    directory: Path
    """Where relative names of secret files start, unless `$CREDENTIALS_DIRECTORY` is set."""
    report: Callable[[tuple[str, ...], str], None]
    """Takes every problem: where, and what."""
    warn: Callable[[tuple[str, ...], str], None]
    """As `report`, for what is read all the same."""
    arguments: Mapping[str, object] = attrs.field(factory=dict[str, object])
    """What `${arguments.NAME}` stands for."""
    done: Collection[tuple[str, ...]] = frozenset()
    """Paths of values in which everything has been replaced."""
    sources: dict[tuple[str, ...], tuple[str, ...]] = attrs.field(factory=dict[tuple[str, ...], tuple[str, ...]])
    """Values that came from outside, by path: `$NAME`, `default of $NAME`, or the file of a secret."""

    def value(self, value: object, at: tuple[str, ...], *, secrets: bool) -> object:
        """Return a value with everything replaced, deep, as new dicts and lists.

        Args:
            value: What the manifest says.
            at: Where it says so.
            secrets: Whether it belongs to a component, so that tables below it may stand for secrets.
        """
        if at in self.done:
            return value
        if isinstance(value, str):
            return self._text(value, at)
        if is_table(value):
            if secrets and stands_for_secret(value, at):
                return self._secret(value, at)
            return {key: self.value(item, (*at, key), secrets=secrets) for key, item in value.items()}
        if is_array(value):
            return [self.value(item, (*at, str(index)), secrets=secrets) for index, item in enumerate(value)]
        return value

    def _text(self, text: str, at: tuple[str, ...]) -> str:
        if "${" not in text:
            return text
        replaced = _PATTERN.sub(lambda found: self._replacement(found, at), text)
        whole = _PATTERN.fullmatch(text)
        return FromOutside(replaced) if whole and (whole["name"] or whole["argument"]) else replaced

    def _replacement(self, found: re.Match[str], at: tuple[str, ...]) -> str:
        if found["escape"]:
            return "${"
        if found["argument"]:
            return self._argument(found["argument"], at)
        name, default = found["name"], found["default"]
        if found["bad"]:
            self.report(at, f"has a broken substitution: {_SYNTAX}")
        elif default is not None and not self.environ.get(name):
            self._note(at, f"default of ${name}")
            return default
        else:
            self._note(at, f"${name}")
            try:
                return self._variable(name, f"write ${{{name}:-}} if it may be")
            except _Refused as exc:
                self.report(at, str(exc))
        return found[0]

    def _argument(self, name: str, at: tuple[str, ...]) -> str:
        self._note(at, option_name(name))
        value = self.arguments.get(name)
        if not isinstance(value, str | int | float):
            near = did_you_mean(name, self.arguments) or f"; there are: {listed(self.arguments)}"
            self.report(at, f'"{name}" is no argument of [kernel.arguments] that can stand in a string{near}')
        return str(value).lower() if isinstance(value, bool) else str(value)

    def _variable(self, name: str, if_empty: str) -> str:
        if name not in self.environ:
            raise _Refused(f"needs the environment variable {name}, which is not set")
        if not (text := self.environ[name]):
            raise _Refused(f"needs the environment variable {name}, which is empty; {if_empty}")
        return text

    def _secret(self, table: Mapping[str, object], at: tuple[str, ...]) -> Secret | None:
        [(key, given)] = table.items()
        name = self.value(given, (*at, key), secrets=False)
        if not isinstance(name, str) or not name:
            self.report((*at, key), f"must be the name of the secret in a string, got {shown(name)}")
            return None
        try:
            if key == "env":
                return Secret(self._from_env(name, at))
            return Secret(self._from_file(name, at), again=partial(_read_again, self._path(name)))
        except _Refused as exc:
            self.report((*at, key), str(exc))
            return None

    def _from_env(self, name: str, at: tuple[str, ...]) -> str:
        self._note(at, f"${name}")
        return self._variable(name, "a secret may not be")

    def _from_file(self, name: str, at: tuple[str, ...]) -> str:
        path = self._path(name)
        self._note(at, name)
        try:
            data, warning = _read_secret(path)
            text = _text_of(data)
        except UnicodeDecodeError:
            # Not chained: the error holds the bytes.
            raise _Refused(f"{_secret_file(path)} must be UTF-8") from None
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "its name is invalid"
            raise _Refused(f"{_secret_file(path)} cannot be read: {reason}") from exc
        if not text:
            raise _Refused(f"{_secret_file(path)} is empty")
        if warning:
            self.warn((*at, "file"), f"{_secret_file(path)} {warning}")
        return text

    def _path(self, name: str) -> Path:
        return Path(self.environ.get("CREDENTIALS_DIRECTORY") or self.directory) / name

    def _note(self, at: tuple[str, ...], source: str) -> None:
        self.sources[at] = tuple(dict.fromkeys([*self.sources.get(at, ()), source]))


def _secret_file(path: Path) -> str:
    return f"the secret file {quoted(str(path), MAX_TEXT)}"


def _text_of(data: bytes) -> str:
    return data.decode().removesuffix("\n").removesuffix("\r")


def _read_again(path: Path) -> str:
    try:
        return _text_of(_read_secret(path)[0])
    except _Refused as refused:
        raise ValueError(str(refused)) from None


def _read_secret(path: Path) -> tuple[bytes, str]:
    """Return what a file holds, and what is to be said of who may read it."""
    with open(path, "rb", opener=open_at_once) as source:
        mode = os.fstat(source.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise _Refused(f"{_secret_file(path)} must be a regular file")
        if mode & _OTHERS_MAY_WRITE:
            raise _Refused(f"{_secret_file(path)} may be written by others than its owner; run: chmod go-w on it")
        # Containers are given secrets that everybody in them may read, where nothing can be changed about that.
        is_fixed = os.fstatvfs(source.fileno()).f_flag & os.ST_RDONLY
        data = source.read(MAX_SECRET_BYTES + 1)
    if len(data) > MAX_SECRET_BYTES:
        raise _Refused(f"{_secret_file(path)} is larger than {MAX_SECRET_BYTES} bytes")
    is_open = mode & _EVERYBODY_MAY_READ and not is_fixed
    return data, "may be read by everybody on this machine; chmod o-r would change that" if is_open else ""
