"""How a reading with explanations goes: under which policy, where problems go, and where definitions of schemas stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeAlias, final

import attrs

from .._core.passwords import MASK, names_a_password
from .._core.secret import Secret
from .._core.words import field_and_text, shown
from .instead import instead
from .leaves import IN_MANIFESTS, IN_MESSAGES, Leaf, Schema

_QUOTED: Final = re.compile(r"""(['"])(.*?)\1""", re.DOTALL)
At: TypeAlias = tuple[str | int, ...]
Report: TypeAlias = Callable[[At, str], None]
WRONG: Final = object()
"""Stands for a value whose problems have been reported."""


@final
@attrs.frozen(eq=False, repr=False)
class Policy:
    """What differs between the manifest and messages."""

    is_strict: bool
    """Whether all keys are known: those that are not are refused."""
    table: str
    """What an object is called."""
    leaves: Mapping[object, Leaf]
    is_outgoing: bool = False
    """Whether what is read is our own, so that objects are looked into: nothing has made sure that they are right."""


MANIFEST: Final = Policy(is_strict=True, table="a table", leaves=IN_MANIFESTS)
"""Tables of the manifest and the configurations of workers."""
MESSAGES: Final = Policy(is_strict=False, table="an object", leaves=IN_MESSAGES)
"""Payloads, whose senders may be newer than the reader: keys that it does not know are ignored."""
OUTGOING: Final = Policy(is_strict=False, table="an object", leaves=IN_MESSAGES, is_outgoing=True)
"""What is to be sent: payloads as they come, or objects that are written as such."""


@final
class Walk:
    """One reading with explanations: under which policy, and where problems go."""

    def __init__(
        self, policy: Policy, report: Report, *, directory: Path | None = None, also: Sequence[str] = ()
    ) -> None:
        self.policy = policy
        self.report = report
        self.directory = directory
        """Searched first for modules, and where relative paths begin."""
        self.also = also
        """Keys that somebody else has taken out of the outermost table."""
        self.is_quiet = False

    def quiet(self) -> Walk:
        """Return a walk that reports nothing, for an option that is only tried."""
        walk = Walk(self.policy, lambda _at, _text: None, directory=self.directory)
        walk.is_quiet = True
        return walk

    def placed(self, made: object) -> object:
        """Return a relative path as one that begins at the folder; anything else as it is."""
        return self.directory.absolute() / made if self.directory is not None and isinstance(made, Path) else made

    def wrong(self, at: At, text: str) -> object:
        """Report a problem; return `WRONG`. A value under a key that is called like a secret is not told."""
        self.report(at, text if _secret_in(at) is None else text.partition(", got ")[0])
        return WRONG

    def failed(self, at: At, text: str) -> object:
        """Report what somebody's own code says of a value, as `wrong`; it may quote the value anywhere."""
        secret = _secret_in(at)
        return self.wrong(at, text if secret is None else _without_quotes(text, secret))

    def refuse(self, at: At, words: str, value: object) -> object:
        """Report a value of the wrong type; return `WRONG`."""
        if isinstance(value, Secret):
            return self.wrong(at, f"must be {words}; a secret cannot be used here")
        hint = instead(words, value) if self.policy.is_strict else ""
        return self.wrong(at, f"must be {words}, got {shown(value, table=self.policy.table)}{hint}")


def _secret_in(at: At) -> str | None:
    """Return the key in a path that is called like a secret."""
    return next((key for key in at if isinstance(key, str) and names_a_password(key)), None)


def _without_quotes(text: str, key: str) -> str:
    return _QUOTED.sub(lambda found: found[0] if found[2] == key else f"{found[1]}{MASK}{found[1]}", text)


def described(error: Exception) -> str:
    """Return the text of what somebody's own code raised, with the type where it is not the usual one."""
    field, text = field_and_text(error)
    name = type(error).__name__
    return text if field or text == name or isinstance(error, ValueError) else f"{name}: {text}"


class Described(Protocol):
    """What has a schema: a node."""

    name: str

    def schema(self, book: Book) -> Schema:
        """Return its JSON Schema."""
        ...


@final
class Book:
    """The definitions of a schema while it is being made; types that contain themselves are referred to."""

    def __init__(
        self,
        policy: Policy,
        notes: Callable[[type[object]], Mapping[str, str]],
        validated: Callable[[Schema, Callable[..., object] | None, object], Schema],
    ) -> None:
        self.policy = policy
        self.notes = notes
        """Class -> what is said of its fields."""
        self.validated = validated
        """Schema, validator and field of attrs -> the schema with what the validator allows."""
        self.definitions: dict[str, Schema] = {}
        self._open: dict[int, str] = {}
        self._used: set[str] = set()

    def of(self, node: Described) -> Schema:
        """Return the schema of a node."""
        if id(node) in self._open:
            self._used.add(self._open[id(node)])
            return {"$ref": f"#/$defs/{self._open[id(node)]}"}
        name = self._open[id(node)] = f"{node.name}.{len(self._open)}" if node.name in self._names() else node.name
        schema = node.schema(self)
        del self._open[id(node)]
        if name not in self._used:
            return schema
        self.definitions[name] = schema
        return {"$ref": f"#/$defs/{name}"}

    def _names(self) -> set[str]:
        return {*self.definitions, *self._open.values()}
