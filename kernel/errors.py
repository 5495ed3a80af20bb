"""Every error the kernel raises on purpose, as one tree.

    KernelError
    ├── InvalidError                 bad input, listed problem by problem; exit status 2
    │   ├── ManifestError            the manifest cannot be read
    │   └── PlanError                the manifest is well-formed but does not fit together
    ├── PluginError                  an installed plugin is missing or broken
    │   ├── PluginNotFoundError
    │   ├── PluginDuplicateError
    │   └── PluginLoadError
    ├── StartupError                 a component can never start as it is configured: not restarted
    ├── RestartLimitError            a component failed more often than its policy allows
    ├── LeftBehindError              a component did not close in time, and cannot start again beside itself
    ├── DependencyError              a component cannot run because one that it uses has failed
    ├── UnavailableError             a resource or worker is not ready and will not be in time
    │   ├── CallTimeoutError         no answer to a call came in time
    │   └── SubscriptionLostError    what consumed broke with its connection; subscribing again waits for the next one
    ├── ProtocolError
    │   ├── DecodeError              bytes from outside make no sense
    │   │   └── ConversionError      they make sense, but are not what the handler takes
    │   │       └── ArgumentsError   they are not the arguments of what is called
    │   ├── EncodeError              a value of our own cannot be written in this protocol
    │   │   └── ContractError        it is not what its sender has promised to send
    │   │       └── ResultError      it is not what a handler's annotation promises; also a PermanentError
    │   └── RemoteError              the other side answered with an error
    ├── DeliveryError
    │   ├── TransientError           raise it in a handler: try again later
    │   ├── PermanentError           raise it in a handler: trying again is useless
    │   └── SettledError             a delivery was settled twice
    └── SendError                    a message was not taken
        ├── UnroutableError          no queue is bound for it
        │   └── NoWorkerError        it was delivered, and no worker handles its subject
        ├── QueueFullError           a queue's `max_length` is reached
        ├── ConflictError            a queue or exchange exists with other properties
        ├── StorageError             what the broker writes to takes nothing; it was not stored
        │   └── StorageFullError     because there is no space
        └── UnknownOutcomeError      it may or may not have been taken

Errors carry their data as attributes; `str()` is one sentence that says what is wrong, where and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, cast, final

import attrs


@final
@attrs.frozen(order=True)
class Problem:
    """One thing that is wrong with a manifest."""

    file: str
    line: int
    """1-based; 0 where no line can be named (the file itself is at fault)."""
    path: str
    """TOML path as `[table].key`, or empty for the file as a whole."""
    text: str
    """What is wrong and what is allowed."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (where, self.path, self.text) if part)


class KernelError(Exception):
    """The base of all errors that the kernel raises on purpose."""


class InvalidError(KernelError):
    """Input is wrong; `problems` lists everything that is, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))


class ManifestError(InvalidError):
    """The manifest cannot be read.

    Args:
        problems: All that is wrong.
        draft: What could be read all the same, for the kernel to find what is wrong with that; None if nothing could.
    """

    def __init__(self, problems: Sequence[Problem], *, draft: object = None) -> None:
        self._draft = draft
        super().__init__(problems)


class PlanError(InvalidError):
    """The manifest is well-formed, but its parts do not fit together or to what is installed."""


class PluginError(KernelError):
    """An installed plugin is missing or broken.

    Args:
        message: What is wrong and what to do.
        kind: Of the component: `driver`, `protocol`, `dispatcher`, `worker` or `command`.
        name: Of the plugin, as it was asked for.
    """

    def __init__(self, message: str, *, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        super().__init__(message)


class PluginNotFoundError(PluginError):
    """No installed distribution provides the plugin."""


class PluginDuplicateError(PluginError):
    """Two installed distributions provide a plugin under one name."""


class PluginLoadError(PluginError):
    """A plugin is installed but cannot be imported, or is not what its entry point says."""


class StartupError(KernelError):
    """A component can never start as it is configured; raise it from `open()` and it is not restarted."""


@final
class LeftBehindError(KernelError):
    """A component did not close in time, so that it cannot be started again; `__cause__` is what ended it, if known."""

    def __init__(self, component: str, *, stop_timeout: float, where: str, last: str) -> None:
        self.component = component
        self.stop_timeout = stop_timeout
        self.where = where
        text = (
            f"{component} did not close within stop_timeout = {stop_timeout:g} s and cannot start again beside itself"
        )
        super().__init__(f"{text}; it is at {where}{f'; what ended it: {last}' if last else ''}")


@final
class RestartLimitError(KernelError):
    """A component failed more often than its restart policy allows; `__cause__` is the last failure."""

    def __init__(self, component: str, *, max_restarts: int, window: float, last: str) -> None:
        self.component = component
        self.max_restarts = max_restarts
        self.window = window
        never = f"without being ready for {window:g} s"
        again = (
            f"failed again after {max_restarts} restart{'s' * (max_restarts != 1)} {never}"
            if max_restarts
            else "failed"
        )
        super().__init__(f"{component} {again}: {last}")


@final
class DependencyError(KernelError):
    """A component cannot run because what it uses has failed, or ended, for good: not restarted."""

    def __init__(self, component: str, *, dependency: str, how: str = "has failed") -> None:
        self.component = component
        self.dependency = dependency
        super().__init__(f"{component} cannot run: {dependency}, which it uses, {how}")


class UnavailableError(KernelError):
    """A resource or worker is not ready and will not be in time."""


@final
class CallTimeoutError(UnavailableError):
    """No answer to a call came in time; whether it was handled is unknown."""

    def __init__(self, subject: str, *, seconds: float) -> None:
        self.subject = subject
        self.seconds = seconds
        super().__init__(f'no answer to "{subject}" came within {seconds:g} s')


@final
class SubscriptionLostError(UnavailableError):
    """A subscription broke with its connection, and its driver heals: subscribe again, which waits for the next one."""


class ProtocolError(KernelError):
    """The bytes of a message and its meaning do not go together."""


class DecodeError(ProtocolError):
    """Bytes from outside make no sense in this protocol."""


class ConversionError(DecodeError, ValueError):
    """A payload does not have the shape that the handler's annotation asks for.

    Args:
        problems: One text for each thing that is wrong, `path: what`.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


@final
class ArgumentsError(ConversionError):
    """The arguments of a call do not go with the parameters of its handler; each problem names the parameter."""


class EncodeError(ProtocolError):
    """A value of our own cannot be written in this protocol."""


class ContractError(EncodeError):
    """What was to be sent is not what its sender has promised: nothing was sent.

    Args:
        subject: What it was about.
        problems: One text for each thing that is wrong, `path: what`.
    """

    def __init__(self, subject: str, problems: Sequence[str]) -> None:
        self.subject = subject
        self.problems = tuple(problems)
        super().__init__(f"{subject}: {'; '.join(self.problems)}")


class RemoteError(ProtocolError):
    """The other side answered a call with an error.

    Args:
        kind: The other side's name for the error, for example `ValueError`.
        message: Its text, as sent.
    """

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        self.message = message
        super().__init__(f"{kind}: {message}" if message else kind)


class DeliveryError(KernelError):
    """Something about one delivery."""


MAX_DELAY: Final = 1_000_000.0
"""Seconds, 11.5 days, that a delivery may be held back at most: what every transport can do. Source: RabbitMQ holds a
message, and a queue that is used for twice that time, for less than 2**32 ms."""


def check_delay(seconds: object, name: str = "after") -> None:
    """Raise ValueError, or TypeError, for what no message can be held back for; the name is that of the argument."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"`{name}` is a number of seconds, not {type(seconds).__name__}")
    if not 0 <= seconds <= MAX_DELAY:
        raise ValueError(f"`{name}` is from 0 to {MAX_DELAY:.0f} seconds, not {seconds!r}")


class TransientError(DeliveryError):
    """Raise it in a handler to have the delivery tried again.

    Args:
        message: Why.
        after: Seconds to wait first, from 0 to 1,000,000; None leaves it to the worker's retry policy.

    Raises:
        ValueError: if there is no such wait.
        TypeError: if `after` is no number.
    """

    after: float | None = None  # for subclasses that do not call `__init__`, as those of attrs and dataclasses

    def __init__(self, message: str = "", *, after: float | None = None) -> None:
        if after is not None:
            check_delay(after)
        self.after = after
        super().__init__(message)


class PermanentError(DeliveryError):
    """Raise it in a handler when trying again is useless: the delivery is dead-lettered at once."""


@final
class ResultError(ContractError, PermanentError):
    """What a handler returned is not what its annotation promises; to try it again would do its work again."""


class SettledError(DeliveryError):
    """A delivery was settled twice."""


class SendError(KernelError):
    """A message was not taken by the broker."""


class UnroutableError(SendError):
    """No queue is bound for the message."""

    @classmethod
    def naming(cls, subject: str, *, exchange: str) -> UnroutableError:
        """Return the error about a message that no queue gets; without an exchange its subject is a queue's name."""
        if not exchange:
            return cls(f'there is no queue "{subject}"')
        return cls(f'no queue is bound for "{subject}" on exchange "{exchange}"')


@final
class NoWorkerError(UnroutableError):
    """The message was delivered, and no worker of the dispatcher handles its subject."""


class QueueFullError(SendError):
    """A queue has reached its `max_length` and its policy is to refuse."""


class ConflictError(SendError):
    """A queue or exchange exists with other properties than those declared."""


class StorageError(SendError):
    """What the broker writes to takes nothing, for now: nothing was stored. It heals without a restart."""


class StorageFullError(StorageError):
    """There is no space where the broker writes: nothing was stored. It heals when there is."""


class UnknownOutcomeError(SendError):
    """The message may or may not have been taken: the connection broke before the broker answered."""


# --- telling a peer ---------------------------------------------------------------------------------------------

MAX_ERROR_TEXT: Final = 2000
"""Characters of an error's text that leave the process at most."""


def error_text(error: object) -> str:
    """Return the text of an error, or of what it was raised with, as a peer may get it.

    It has some length at most, and can be written in UTF-8. Never raises, whatever the error's own `__str__` does.
    """
    try:
        return str(error)[:MAX_ERROR_TEXT].encode("utf-8", "backslashreplace").decode()
    except BaseException as broken:  # noqa: BLE001  the peer must get an answer (test_an_error_without_text_is_written)
        return f"its text cannot be made: {type(broken).__name__}"


_MAX_INTEGER: Final = 2**63
_MAX_ITEMS: Final = 32
"""Arguments of an error, and items of one of them, that are told at most."""
_MAX_DEPTH: Final = 3


def error_args(error: BaseException) -> list[object]:
    """Return what an error was raised with, so that it can be written; what JSON cannot say becomes text.

    At most 32 items at each of 3 levels, and integers below 2**63. Never raises, whatever the values' own code does;
    if that fails, nothing is told.
    """
    try:
        return _listed(tuple(error.args), _MAX_DEPTH - 1)
    except BaseException:  # noqa: BLE001  the values' own code; the peer must get an answer all the same
        return []


def _listed(values: Sequence[object], depth: int) -> list[object]:
    return [_plain(value, depth) for value in values[:_MAX_ITEMS]]


def _plain(value: object, depth: int) -> object:
    match value:
        case None | bool():
            return value
        case int() if abs(value) < _MAX_INTEGER:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case list() | tuple() if depth:
            return _listed(cast("Sequence[object]", value), depth - 1)
        case dict() if depth:
            items = list(cast("dict[object, object]", value).items())[:_MAX_ITEMS]
            return {error_text(key): _plain(item, depth - 1) for key, item in items}
        case _:
            return error_text(value)
