"""The dispatcher: listens, has a thread answer, and tells systemd; it surrounds the service."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, final

import attrs
from typing_extensions import override

from kernel.abc import Context, Dispatcher, Endpoint, Intake, why_not_listening
from kernel.errors import StartupError

from ._config import Address, HealthConfig

if TYPE_CHECKING:
    import trio

    from ._notify import Notifier
    from ._truth import Answer


@final
@attrs.define(eq=False)
class HealthDispatcher(Dispatcher):
    """Answers `/live`, `/ready` and `/status` from a thread, from before the first start until after the last close."""

    Config: ClassVar[type[object]] = HealthConfig
    delivers: ClassVar[bool] = False
    surrounds: ClassVar[bool] = True

    config: HealthConfig
    context: Context
    addresses: list[str] = attrs.field(factory=list[str], init=False, repr=False)
    """Where it listens, as URLs."""

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        if isinstance(config, HealthConfig):
            yield from config.problems()

    @classmethod
    @override
    def listens(cls, config: object) -> Iterable[Endpoint]:
        if isinstance(config, HealthConfig):
            for address in config.addresses:
                yield Endpoint(host=address.host, port=address.port, path=address.path)

    @classmethod
    @override
    def check_workers(cls, config: object, workers: Mapping[str, object]) -> Iterable[str]:
        yield from (f"takes no workers, and worker/{name} names it" for name in workers)

    @override
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Listen at every address or at none, and answer.

        Raises:
            StartupError: if an address is in use, not allowed or not of this machine.

        Cancellation: Is a checkpoint.
        """
        import trio  # noqa: PLC0415  `kernel check` imports this module, and runs nothing

        from ._server import ProbeServer  # noqa: PLC0415  as above

        with ExitStack() as stack:
            listeners = [
                stack.enter_context(await trio.to_thread.run_sync(self._listening, address))
                for address in self.config.addresses
            ]
            stack.callback(self.context.crew.offer(self.context.id, self._told))
            notifier = self._notifier(stack)
            server = ProbeServer(
                listeners, self._respond, self.config.max_connections, self.config.timeout, self._on_tick(notifier)
            )
            server.start()
            self.addresses = [_url(listener) for listener in listeners]
            try:
                await trio.lowlevel.checkpoint()
                yield
            finally:
                with trio.CancelScope(shield=True):  # bounded: the thread waits for nobody
                    await trio.to_thread.run_sync(server.stop)

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        import trio  # noqa: PLC0415  as above

        from kernel import Listening  # noqa: PLC0415  as above

        for address in self.addresses:
            self.context.emit(Listening(component=self.context.id, address=address))
        task_status.started()
        await trio.sleep_forever()

    def _respond(self, method: str, path: str) -> Answer:
        from ._together import answer_of_all  # noqa: PLC0415  as above

        return answer_of_all(method, path, self.context, self.config)

    def _told(self) -> str:
        from ._together import truth_of_one  # noqa: PLC0415  as above

        return truth_of_one(self.context, self.config)

    def _listening(self, address: Address) -> AbstractContextManager[socket.socket]:
        """Return what listens at an address while inside, with other processes if the service has several.

        Raises:
            StartupError: if that is not possible.
        """
        try:
            shared = self.context.crew.listener(self.context.id, _endpoint(address))
        except OSError as error:
            raise _not_listening(address, error) from error
        return _listening(address) if shared is None else closing(shared)

    def _notifier(self, stack: ExitStack) -> Notifier | None:
        from ._notify import HEARD, Notifier  # noqa: PLC0415  as above

        notifier = Notifier.of(os.environ, self.config) if self.config.notify else None
        if notifier is None:
            return None
        notifier.mask = self.context.mask
        notifier.grace_period = self.context.snapshot().grace_period
        stack.callback(notifier.close)
        stack.callback(self.context.subscribe(notifier.hear, *HEARD))
        return notifier

    def _on_tick(self, notifier: Notifier | None) -> Callable[[], float]:
        def tick() -> float:
            return 60.0 if notifier is None else notifier.tick(self.context.snapshot())

        return tick


def _endpoint(address: Address) -> Endpoint:
    """Return where that is; the host's name is looked up."""
    if address.path:
        return Endpoint(path=address.path)
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return Endpoint(host=str(found[0][4][0]), port=address.port)


def _not_listening(address: Address, error: OSError) -> StartupError:
    where = Endpoint(host=address.host, port=address.port, path=address.path)
    return StartupError(f'cannot listen at "{address}": {why_not_listening(error, where)}')


@contextmanager
def _listening(address: Address) -> Generator[socket.socket]:
    """Listen at an address while inside.

    Raises:
        StartupError: if that is not possible.
    """
    try:
        sock = _bound(address)
    except OSError as error:
        raise _not_listening(address, error) from error
    try:
        yield sock
    finally:
        sock.close()
        if address.path:
            with suppress(OSError):
                Path(address.path).unlink()


def _bound(address: Address) -> socket.socket:
    if address.path:
        with suppress(OSError):
            if stat.S_ISSOCK(Path(address.path).lstat().st_mode) and not _answers(address.path):
                Path(address.path).unlink()
        sock = socket.socket(socket.AF_UNIX)
        where: object = address.path
    else:
        found: Sequence[tuple[object, ...]] = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        sock = socket.socket(found[0][0])  # type: ignore[arg-type]  # a family
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        where = found[0][4]
    try:
        before = os.umask(0o177) if address.path else None
        try:
            sock.bind(where)  # type: ignore[arg-type]  # an address of the family
        finally:
            if before is not None:
                os.umask(before)
        sock.listen(64)
    except BaseException:
        sock.close()
        raise
    return sock


def _answers(path: str) -> bool:
    """Whether somebody listens at a unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(path) == 0


def _url(listener: socket.socket) -> str:
    name = listener.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"
