"""RabbitMQ's HTTP API: queues, exchanges and bindings are declared and looked up there.

AMQP 1.0 has no words for it, and a message that no queue gets is accepted like any other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, cast, final
from urllib.parse import quote

import attrs
import trio

from kernel import pattern_matches
from kernel.abc import Binding, Exchange, Queue
from kernel.errors import ConflictError, UnroutableError

from .._errors import ManagementError
from .._options import Amqp10Options
from .http import Api

KNOWN_FOR: Final = 5.0
"""Seconds for which the bindings of an exchange, or that a queue is there, are taken as known."""
_MOST: Final = 4096
_EXCLUSIVE_LIVES: Final = 60_000
"""Milliseconds without a consumer after which a queue of one consumer goes away: it is not the connection's here."""


@final
@attrs.frozen
class _Looked:
    """What an exchange leads to."""

    type: str
    patterns: tuple[str, ...]
    until: float

    def leads(self, subject: str) -> bool:
        match self.type:
            case "topic":
                return any(pattern_matches(pattern, subject) for pattern in self.patterns)
            case "direct":
                return subject in self.patterns
            case _:
                return bool(self.patterns)


@final
@attrs.define(eq=False, repr=False)
class Directory:
    """Declares, and knows for some seconds what there is."""

    _api: Api
    _virtual_host: str
    _queues: dict[str, float] = attrs.field(factory=dict[str, float], init=False)
    """Queue -> until when it is taken to be there."""
    _exchanges: dict[str, _Looked] = attrs.field(factory=dict[str, _Looked], init=False)
    _looking: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    async def declare_exchange(self, exchange: Exchange, *, type_: str = "topic", auto_delete: bool = False) -> None:
        """Make an exchange exist.

        Raises:
            ConflictError: if it exists with other properties.
            ManagementError: if the API cannot be asked.
        """
        asked = {"type": type_, "durable": exchange.durable, "auto_delete": auto_delete}
        await self._put(f"/exchanges/{self._vhost}/{quote(exchange.name, safe='')}", asked)
        self._exchanges.pop(exchange.name, None)

    async def declare_queue(self, queue: Queue) -> None:
        """Make a queue exist; raises as `declare_exchange`."""
        options = queue.options if isinstance(queue.options, Amqp10Options) else Amqp10Options()
        asked = {"durable": queue.durable, "auto_delete": queue.exclusive, "arguments": _arguments(queue, options)}
        await self._put(f"/queues/{self._vhost}/{quote(queue.name, safe='')}", asked)
        self._note(queue.name)

    async def declare_waiting_place(self, name: str, arguments: dict[str, object]) -> None:
        """Make a queue exist, and a fanout exchange of its name that leads to it; raises as `declare_exchange`."""
        await self.declare_exchange(Exchange(name=name), type_="fanout", auto_delete=True)
        asked = {"durable": True, "auto_delete": False, "arguments": arguments}
        await self._put(f"/queues/{self._vhost}/{quote(name, safe='')}", asked)
        await self.bind(Binding(queue=name, exchange=name, pattern=""))

    async def bind(self, binding: Binding) -> None:
        """Tie a queue to an exchange; raises as `declare_exchange`."""
        path = f"/bindings/{self._vhost}/e/{quote(binding.exchange, safe='')}/q/{quote(binding.queue, safe='')}"
        await self._put(path, {"routing_key": binding.pattern, "arguments": {}}, method="POST")
        self._exchanges.pop(binding.exchange, None)

    async def check_route(self, exchange: str, key: str) -> None:
        """Make sure that a queue gets what is sent; what was known some seconds ago counts.

        Raises:
            UnroutableError: if no queue does.
            ManagementError: if the API cannot be asked.

        Cancellation: A checkpoint if it has to ask.
        """
        if self._is_known(exchange, key):
            return  # noqa: ASYNC910  sending follows
        async with self._looking:
            if self._is_known(exchange, key):
                return
            if not (await self._look(exchange)).leads(key) if exchange else not await self.is_queue(key):
                raise UnroutableError.naming(key, exchange=exchange)

    async def is_queue(self, name: str) -> bool:
        """Return whether there is a queue; asks."""
        status, body = await self._api.request("GET", f"/queues/{self._vhost}/{quote(name, safe='')}?columns=name")
        if status == 200:
            self._note(name)
        elif status != 404:
            raise _failure(status, body)
        return status == 200

    def forget(self, queue: str) -> None:
        """Take note that a queue may be gone."""
        self._queues.pop(queue, None)

    @property
    def _vhost(self) -> str:
        return quote(self._virtual_host, safe="")

    def _is_known(self, exchange: str, key: str) -> bool:
        if not exchange:
            return self._queues.get(key, 0.0) > trio.current_time()
        looked = self._exchanges.get(exchange)
        return looked is not None and looked.until > trio.current_time() and looked.leads(key)

    def _note(self, queue: str) -> None:
        if len(self._queues) >= _MOST:
            self._queues.clear()
        self._queues[queue] = trio.current_time() + KNOWN_FOR

    async def _look(self, exchange: str) -> _Looked:
        path = f"/exchanges/{self._vhost}/{quote(exchange, safe='')}"
        kind = _read(await self._api.request("GET", f"{path}?columns=type"), about=f'exchange "{exchange}"')
        bound = _read(await self._api.request("GET", f"{path}/bindings/source"), about=f'exchange "{exchange}"')
        patterns = tuple(str(entry.get("routing_key", "")) for entry in cast("list[dict[str, Any]]", bound))
        looked = _Looked(str(cast("dict[str, Any]", kind).get("type")), patterns, trio.current_time() + KNOWN_FOR)
        if len(self._exchanges) >= _MOST:
            self._exchanges.clear()
        self._exchanges[exchange] = looked
        return looked

    async def _put(self, path: str, asked: Mapping[str, object], *, method: str = "PUT") -> None:
        status, body = await self._api.request(method, path, json.dumps(asked).encode())
        if status in {400, 404, 405}:
            raise ConflictError(_reason(body))
        if status >= 300:
            raise _failure(status, body)


def _read(answer: tuple[int, bytes], *, about: str) -> object:
    status, body = answer
    if status == 404:
        raise UnroutableError(f"there is no {about} to send to")
    if status != 200:
        raise _failure(status, body)
    try:
        return json.loads(body)
    except ValueError as error:
        raise ManagementError(f"the HTTP API said of {about} what is no JSON") from error


def _failure(status: int, body: bytes) -> ManagementError:
    hint = "; see `management`, `username` and `password`" if status in {401, 403} else ""
    return ManagementError(f"the HTTP API refused with status {status}: {_reason(body)}{hint}")


def _reason(body: bytes) -> str:
    try:
        said: object = json.loads(body)
    except ValueError:
        said = body.decode(errors="replace")
    text = cast("dict[str, object]", said).get("reason", "") if isinstance(said, dict) else said
    return " ".join(str(text).split())[:500]


def _arguments(queue: Queue, options: Amqp10Options) -> dict[str, object]:
    """Return the arguments of a queue. Source: RabbitMQ, Queues, optional arguments."""
    said: dict[str, object | None] = {
        "x-dead-letter-exchange": "" if queue.dead_letters else None,
        "x-dead-letter-routing-key": queue.dead_letters or None,
        "x-queue-type": options.type,
        "x-max-priority": options.max_priority or None,
        "x-expires": _EXCLUSIVE_LIVES if queue.exclusive else _milliseconds(options.expires),
    }
    return {name: value for name, value in said.items() if value is not None} | dict(options.arguments)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds * 1000)
