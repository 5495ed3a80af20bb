"""A protocol whose messages pass through functions of the service: on their way in, and on their way out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import final

import attrs
from typing_extensions import override

from .._core.envelope import Envelope, Message
from .._core.spec import Translator
from ..abc import Protocol
from ..errors import DecodeError, EncodeError, ProtocolError
from .failure import UNCUT, describe
from .judge import owned


def translated(protocol: Protocol, *, inbound: Sequence[Translator], outbound: Sequence[Translator]) -> Protocol:
    """Return a protocol that has messages translated after `decode` and before `encode`, in the order given.

    The result of a handler is translated as the message that carries it, and so is what an answer carries. Errors
    are not translated.
    """
    if not inbound and not outbound:
        return protocol
    cls = _AnsweringAlways if protocol.always_replies else _Translated
    return cls(protocol, inbound, outbound)


@attrs.frozen(eq=False, repr=False)
class _Translated(Protocol):
    """Translates, and leaves all else to another protocol."""

    _inner: Protocol
    _inbound: Sequence[Translator]
    _outbound: Sequence[Translator]

    @override
    def decode(self, envelope: Envelope) -> Message:
        return self._in(self._inner.decode(envelope))

    @override
    def encode(self, message: Message) -> Envelope:
        return self._inner.encode(self._out(message))

    @override
    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        message = self._out(Message(subject=request.reply_to, payload=result))
        reply = self._inner.encode_reply(request, message.payload)
        if reply is None or not message.headers:
            return reply
        return attrs.evolve(reply, headers={**reply.headers, **message.headers})

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        return self._inner.encode_error(request, error)

    @override
    def decode_reply(self, reply: Envelope) -> object:
        payload = self._inner.decode_reply(reply)
        return self._in(Message(subject=reply.subject, payload=payload, headers=reply.headers)).payload

    @override
    def continued(self, cause: Envelope) -> Mapping[str, object]:
        return self._inner.continued(cause)

    def _in(self, message: Message) -> Message:
        for translator in self._inbound:
            message = _apply(translator, message, DecodeError)
        return message

    def _out(self, message: Message) -> Message:
        for translator in self._outbound:
            message = _apply(translator, message, EncodeError)
        return message


@final
@attrs.frozen(eq=False, repr=False)
class _AnsweringAlways(_Translated):
    """Translates for a protocol that is asked about every result."""

    always_replies = True


def _apply(translator: Translator, message: Message, kind: Callable[[str], ProtocolError]) -> Message:
    """Return what a translator makes of a message; whatever it raises becomes one kind of error."""
    try:
        made = translator(message)
    except (DecodeError, EncodeError) as error:
        raise kind(f"{_name(translator)}: {error}") from error
    except BaseException as error:
        owned(error)
        raise kind(f"{_name(translator)} raised {describe(error, most=UNCUT)}") from error
    if not isinstance(made, Message):
        raise kind(f"{_name(translator)} returned {type(made).__qualname__}, and a translator returns a Message")
    return made


def _name(translator: Translator) -> str:
    module, name = getattr(translator, "__module__", ""), getattr(translator, "__qualname__", "")
    return f"translator {module}:{name}" if module and name else f"translator {type(translator).__qualname__}"
