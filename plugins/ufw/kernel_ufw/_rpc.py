"""The protocol `ufw_rpc`: a request names a command and its arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, cast, final

from typing_extensions import override

from kernel import Arguments, Envelope, Message
from kernel.errors import DecodeError, EncodeError

from ._config import UfwRpcConfig
from ._errors import MalformedMessageError
from ._protocol import CONTENT_TYPE, UfwProtocol
from ._values import as_table

if TYPE_CHECKING:
    from kernel.abc import Context

_BROADCAST: Final = "_broadcast."
_INTERNAL: Final = frozenset({"__list_targets__", "__get_target__"})
"""Commands that every service has: any one of its processes answers."""


@final
class UfwRpcProtocol(UfwProtocol):
    """Calls: the subject is `<service>.<target>`, the payload is `Arguments`.

    A target may have dots, as `Class.method`. The commands about the targets have the subject
    `<service>._broadcast.<command>`.
    """

    Config: ClassVar[type[object]] = UfwRpcConfig

    def __init__(
        self,
        *,
        config: UfwRpcConfig = UfwRpcConfig(),  # noqa: B008  frozen
        context: Context | None = None,
    ) -> None:
        super().__init__(config=config)

    @override
    def decode(self, envelope: Envelope) -> Message:
        try:
            body = self._read_twice(envelope)
        except DecodeError as error:
            raise MalformedMessageError(str(error)) from error
        command, arguments = _command_in(body)
        subject = envelope.subject or command
        if envelope.subject and command != _command_of(envelope.subject):
            raise MalformedMessageError("the command is not the one that the routing key names")
        return Message(subject=subject, payload=arguments, headers=envelope.headers)

    @override
    def encode(self, message: Message) -> Envelope:
        """Return the request; an object that is no `Arguments` gives them by name, an array by position.

        Raises:
            EncodeError: if the subject names no target, or the payload is none of these or cannot be written.
        """
        service, _, target = message.subject.partition(".")
        if not service or not target:
            raise EncodeError('the subject of a call must be "<service>.<target>"')
        arguments = Arguments.of(message.payload)
        command = target.removeprefix(_BROADCAST)
        body = {"command": command, "command_args": arguments.args, "command_kwargs": arguments.kwargs}
        return Envelope(
            subject=f"{service}.{_BROADCAST}{command}" if command in _INTERNAL else message.subject,
            body=self._write(body),
            headers=message.headers,
            content_type=CONTENT_TYPE,
        )


def _command_of(subject: str) -> str:
    return subject.partition(".")[2].removeprefix(_BROADCAST)


def _command_in(body: object) -> tuple[str, Arguments]:
    fields = as_table(body)
    command = fields.get("command")
    args, kwargs = fields.get("command_args", []), fields.get("command_kwargs", {})
    if not isinstance(command, str) or not isinstance(args, list) or not isinstance(kwargs, dict):
        raise MalformedMessageError("body is no object with command, command_args and command_kwargs")
    return command, Arguments(cast("list[object]", args), cast("dict[str, object]", kwargs))
