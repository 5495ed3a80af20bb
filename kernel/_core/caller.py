"""What calls remote handlers and what publishes, whatever carries it; public in `kernel.abc`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeVar, final, overload

import attrs

from .envelope import NO_HEADERS, Arguments

ReturnT = TypeVar("ReturnT")


class Caller(ABC):
    """Calls remote handlers and waits for their answers. Safe to share between tasks.

    `await rpc.billing.charge(order, amount=3)` is `await rpc.call("billing.charge", Arguments((order,), {"amount": 3}))`.
    A subject whose first word is a name of the caller itself, or begins with an underscore, is written as an item:
    `rpc["call"]`, `rpc["billing.charge"]`.
    """

    __slots__ = ()

    @overload
    async def call(
        self, subject: str, payload: object, *, headers: Mapping[str, object] = ..., returns: type[ReturnT]
    ) -> ReturnT: ...
    @overload
    async def call(
        self, subject: str, payload: object, *, headers: Mapping[str, object] = ..., returns: object = ...
    ) -> object: ...
    @abstractmethod
    async def call(
        self, subject: str, payload: object, *, headers: Mapping[str, object] = NO_HEADERS, returns: object = object
    ) -> object:
        """Send a request and return what the answer carries.

        Args:
            subject: What is asked, in words joined by dots.
            payload: What the protocol can write; `Arguments` for a handler that is marked with `@answers`.
            headers: What JSON can say. What the protocol continues from the delivery that is being handled is added.
            returns: The type that the answer is converted to; `object` takes it as it came.

        Raises:
            RemoteError: if the other side answered with an error.
            Exception: of a class that the protocol's configuration lists, if that is the error.
            CallTimeoutError: if no answer came in the time that the manifest gives.
            SendError: if the request was not taken; `UnknownOutcomeError` if it may have been.
            EncodeError: if the protocol cannot write the payload.
            DecodeError: if the answer means nothing in the protocol; `ConversionError` if it is no `returns`.
            UnavailableError: if the driver is closed.

        Cancellation: Is a checkpoint. If cancelled, the request may have been handled; its answer is dropped.
        """

    @final
    def __getattr__(self, name: str) -> RemoteFunction:
        return self[_checked(name)]

    @final
    def __getitem__(self, words: str) -> RemoteFunction:
        return RemoteFunction(self, _subject(words))


@final
@attrs.frozen(eq=False, repr=False)
class RemoteFunction:
    """A remote handler, called as a function is: `await rpc.billing.charge(order, amount=3)`.

    Attributes and items are further words of the subject. Items take any: `rpc.billing["_audit"]`.
    """

    _caller: Caller
    _subject: str

    def __repr__(self) -> str:
        return f"<remote function {self._subject}>"

    def __getattr__(self, name: str) -> RemoteFunction:
        return self[_checked(name)]

    def __getitem__(self, words: str) -> RemoteFunction:
        return RemoteFunction(self._caller, f"{self._subject}.{_subject(words)}")

    async def __call__(self, /, *args: object, **kwargs: object) -> object:
        """Call it and return what the answer carries; as `Caller.call` with `Arguments`."""
        return await self._caller.call(self._subject, Arguments(args, kwargs))


class Sender(ABC):
    """Publishes messages. Safe to share between tasks."""

    __slots__ = ()

    @abstractmethod
    async def publish(self, subject: str, payload: object, *, headers: Mapping[str, object] = NO_HEADERS) -> str:
        """Publish a message; returns its id when the transport has taken it.

        Args:
            subject: What it is about, in words joined by dots.
            payload: What the protocol can write.
            headers: What JSON can say. What the protocol continues from the delivery that is being handled is added.

        Raises:
            EncodeError: if the protocol cannot write the payload.
            SendError: if it was not taken; `UnknownOutcomeError` if it may have been.

        Cancellation: Is a checkpoint. If cancelled, it may or may not have been published.
        """


def _checked(name: str) -> str:
    """Return a name that may be the word of a subject as an attribute.

    Python and its libraries ask any object for names with underscores, and take what they get for an answer.
    """
    if name.startswith("_"):
        raise AttributeError(f'"{name}" is no word of a subject as an attribute; write ["{name}"]')
    return name


def _subject(words: object) -> str:
    if not isinstance(words, str) or not all(words.split(".")):
        raise TypeError(f"the words of a subject are a string, joined by dots, not {words!r}")
    return words
