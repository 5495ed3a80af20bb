"""`@event` and `@upgrades`: what makes a class an event, and how older ones of it are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar, cast, final
from weakref import WeakKeyDictionary

import attrs

from kernel import Message
from kernel.errors import DecodeError

ClassT = TypeVar("ClassT", bound=type[object])
Upgrade = Callable[[dict[str, object]], dict[str, object]]
"""The fields of an event of one version -> those of the next one."""
UpgradeT = TypeVar("UpgradeT", bound="Callable[[dict[str, object]], dict[str, object]]")

VERSION: Final = "kernel-event-version"
"""The header with the version of an event that is not 1; to carry it costs a tenth of a message."""
_HEIRS: Final = "+"
"""The word between the subject of an event and the names of those of its subclasses that are sent under it as well."""
_UPGRADES: Final = "__kernel_upgrades__"
_NAME: Final = re.compile(r"[^\s.*#+]+(\.[^\s.*#+]+)*")
_SPECS: Final[WeakKeyDictionary[type[object], EventSpec]] = WeakKeyDictionary()


@final
@attrs.define(eq=False)
class EventSpec:
    """What is known of one class of events."""

    name: str
    subject: str
    """What its messages are about: its name, or that of its base and its own."""
    durable: bool
    version: int
    upgrades: dict[int, Upgrade] = attrs.field(factory=dict[int, Upgrade], repr=False)
    """Version -> what makes an event of the next one of it."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """The subjects that one who listens to it wants."""
        return (self.subject, f"{self.subject}.{_HEIRS}.#")

    def upgraded(self, message: Message) -> object:
        """Return the payload of a message of any version as one of this version; that of a newer one as it is.

        Raises:
            DecodeError: if the version is no number, or an upgrade raises or returns no object.
        """
        payload, version = message.payload, _version_of(message.headers)
        if version == self.version:  # as nearly always
            return payload
        while version < self.version:
            if version in self.upgrades:
                payload = self._upgrade(version, payload)
            version += 1
        return payload

    def _upgrade(self, version: int, payload: object) -> object:
        what = f'"{self.name}" of version {version} cannot be upgraded'
        if not isinstance(payload, dict):
            raise DecodeError(f"{what}: it is no object, but {type(payload).__name__}")
        try:
            made = cast("object", self.upgrades[version](dict(cast("dict[str, object]", payload))))
        except Exception as error:
            raise DecodeError(f"{what}: {type(error).__name__}: {error}") from error
        if not isinstance(made, dict):
            raise DecodeError(f"{what}: the upgrade returned {type(made).__name__} and not the fields of an event")
        return made  # pyright: ignore[reportUnknownVariableType]  whatever its keys are, it is converted


def event(
    name: str = "", *, durable: bool = True, version: int = 1, reaches_base: bool = False
) -> Callable[[ClassT], ClassT]:
    """Make a class an event: an attrs class, dataclass, pydantic model, msgspec Struct or TypedDict.

    Args:
        name: What it is called between services; empty takes the name of the class. Words joined by dots.
        durable: Whether its listeners get what was sent while none of them ran. A listener can say otherwise.
        version: 1 or more. Raise it with an `@upgrades` when fields change so that older events cannot be read.
        reaches_base: Whether those who listen to the event that this class is derived from get it as well, with the
            fields that they know.

    Raises:
        TypeError: if used without parentheses, or with `reaches_base` where no base is an event.
        ValueError: if the name is none, or the version below 1.
    """
    if callable(name):
        raise TypeError("@event needs parentheses: @event()")
    if version < 1:
        raise ValueError(f"the version of an event is 1 or more, not {version}")

    def mark(cls: ClassT) -> ClassT:
        called = name or cls.__name__
        if not _NAME.fullmatch(called):
            raise ValueError(f'"{called}" names no event: words without spaces, *, # and +, joined by dots')
        subject = f"{_base_of(cls).subject}.{_HEIRS}.{called}" if reaches_base else called
        spec = EventSpec(name=called, subject=subject, durable=durable, version=version)
        _SPECS[cls] = spec
        for function in map(_plain, list(vars(cls).values())):
            if (older := getattr(function, _UPGRADES, None)) is not None:
                _add(cls, spec, older, cast("Upgrade", function))
        return cls

    return mark


def upgrades(*, from_version: int, of: type[object] | None = None) -> Callable[[UpgradeT], UpgradeT]:
    """Mark a function that makes of the fields of an event of one version those of the next.

    Args:
        from_version: The version that it takes.
        of: The event, for a function that stands outside of its class, as it must for a TypedDict. Inside of the class
            it is a static method.

    Raises:
        TypeError: if `of` is no event.
        ValueError: if the event has an upgrade from that version already, or is not newer than that.
    """

    def mark(function: UpgradeT) -> UpgradeT:
        plain = _plain(function)
        if of is None:
            setattr(plain, _UPGRADES, from_version)
        else:
            _add(of, spec_of(of), from_version, cast("Upgrade", plain))
        return function

    return mark


def spec_of(cls: object) -> EventSpec:
    """Return what is known of a class of events.

    Raises:
        TypeError: if it is none.
    """
    spec = _SPECS.get(cls) if isinstance(cls, type) else None
    if spec is None and cls is dict:
        raise TypeError("a dict does not say which event it is: name the TypedDict with of=")
    if spec is None and cls is type:
        raise TypeError("a class was sent, and no event: send an instance of it")
    if spec is None:
        raise TypeError(f"{getattr(cls, '__qualname__', repr(cls))} is no event: mark the class with @event()")
    return spec


def _plain(function: object) -> object:
    """Return the function of a static method."""
    return getattr(function, "__func__", function)


def _base_of(cls: type[object]) -> EventSpec:
    found = next((base for base in cls.__mro__[1:] if base in _SPECS), None)
    if found is None:
        raise TypeError(f"{cls.__qualname__} reaches_base, and none of its bases is an event")
    return _SPECS[found]


def _add(cls: type[object], spec: EventSpec, older: int, function: Upgrade) -> None:
    if older in spec.upgrades:
        raise ValueError(f"{cls.__qualname__} has two upgrades from version {older}")
    if not 1 <= older < spec.version:
        raise ValueError(f"{cls.__qualname__} is version {spec.version}, so there is no upgrade from {older}")
    spec.upgrades[older] = function


def _version_of(headers: Mapping[str, object]) -> int:
    if VERSION not in headers:
        return 1
    text = str(headers[VERSION])
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise DecodeError(f"header {VERSION} is no version")
    return int(text)
