"""One request, as often as it may be tried, and within the time that whoever handles a delivery has."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable
from typing import Final, final

import attrs
import httpx
import trio
from typing_extensions import override

from kernel import Secret, Usage, current_delivery
from kernel.abc import DEADLINE_HEADER, Context, write_deadline

from ._config import HttpConfig
from ._events import HttpRequestDone

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Source: RFC 9110, 9.2.2."""
_IDEMPOTENCY_KEY: Final = "idempotency-key"
_MAX_FORWARDED: Final = 8192
"""Characters of a header of a delivery, which comes from outside, that are taken over."""


@final
class ResponseTooLargeError(httpx.TransportError):
    """The body of an answer is longer than `max_response_bytes`; what was not read is thrown away."""


@final
@attrs.define(eq=False, repr=False)
class Health:
    """Says when the other side cannot be reached, and when it can again."""

    _context: Context
    _is_well: bool = attrs.field(default=True, init=False)

    def note(self, error: httpx.TransportError | None) -> None:
        """Note how an attempt ended: None says that there was an answer, whatever it was."""
        if error is None and not self._is_well:
            self._context.report_ready()
        elif error is not None and self._is_well:
            self._context.report_degraded(_reason(error))
        self._is_well = error is None


@final
class RetryTransport(httpx.AsyncBaseTransport):
    """Sends over another transport, again if the request may be sent twice and the answer may become better.

    A request to the origin of `base_url` is sent with what the table says of headers. One to anywhere else, which an
    absolute URL or a redirect names, goes `elsewhere`, without them. They are added to what is sent, never to the
    request of the client: the client makes the next request of a redirect from that.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        elsewhere: httpx.AsyncBaseTransport,
        config: HttpConfig,
        context: Context,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._inner: Final = inner
        self._elsewhere: Final = elsewhere
        self._config: Final = config
        self._context: Final = context
        self._chance: Final = chance
        self._health: Final = Health(context)
        self._origin: Final = _origin(httpx.URL(config.base_url))
        self._headers: Final = httpx.Headers({name: _revealed(value) for name, value in config.headers.items()})
        self._replaced: Final = httpx.Headers()
        self._under_way = 0

    def replace_defaults(self, headers: httpx.Headers) -> None:
        """Take what a client sends by default, such as `user-agent`, out of its headers where the table says other."""
        for name in self._headers:
            if name in headers:
                self._replaced[name] = headers.pop(name)

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        began, attempt, status = trio.current_time(), 0, 0
        is_ours = _origin(request.url) == self._origin
        request = self._addressed(request, is_ours=is_ours)
        self._under_way += 1
        try:
            while True:
                attempt += 1
                answer = await self._try(request, is_ours=is_ours)
                status = answer.status_code if isinstance(answer, httpx.Response) else 0
                pause = self._pause(request, answer, attempt)
                if pause is None:
                    return self._bounded(answer)  # noqa: ASYNC910  the inner transport waits
                if isinstance(answer, httpx.Response):
                    await answer.aclose()
                await trio.sleep(pause)
        finally:
            self._under_way -= 1
            if self._context.hears(HttpRequestDone):
                seconds = trio.current_time() - began
                self._emit(request, status=status, attempts=attempt, seconds=seconds)

    def usage(self) -> Usage:
        """Return how many requests wait for their answer now. May be called from any thread."""
        limit, under_way = self._config.max_connections, self._under_way
        return Usage(used=min(under_way, limit), waiting=max(0, under_way - limit), limit=limit)

    @override
    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            if self._elsewhere is not self._inner:
                await self._elsewhere.aclose()  # noqa: ASYNC102  who closes the client has bounded it

    # --- one attempt ------------------------------------------------------------------------------------------

    async def _try(self, request: httpx.Request, *, is_ours: bool) -> httpx.Response | httpx.TransportError:
        """Send once; what goes wrong on the way is returned, since it may be tried again."""
        if not is_ours:
            try:
                return await self._elsewhere.handle_async_request(request)
            except httpx.PoolTimeout as error:
                return self._exhausted(request, error)  # noqa: ASYNC910  as below
            except httpx.TransportError as error:
                return error  # noqa: ASYNC910  it was raised by what waits
        if self._config.deadline:
            self._write_deadline(request)
        try:
            answer = await self._inner.handle_async_request(request)
        except httpx.PoolTimeout as error:  # says nothing of the other side
            return self._exhausted(request, error)  # noqa: ASYNC910  as above
        except httpx.TransportError as error:
            self._health.note(error)
            return error  # noqa: ASYNC910  as above
        self._health.note(None)
        return answer

    def _exhausted(self, request: httpx.Request, error: httpx.PoolTimeout) -> httpx.PoolTimeout:
        seconds, limit = request.extensions["timeout"]["pool"], self._config.max_connections
        told = httpx.PoolTimeout(
            f"{self._context.id}: no connection became free within timeout = {seconds:g} s; all of"
            f" max_connections = {limit} are in use: raise `max_connections`, or ask less at a time",
            request=request,
        )
        told.__cause__ = error
        return told

    def _bounded(self, answer: httpx.Response | httpx.TransportError) -> httpx.Response:
        if not isinstance(answer, httpx.Response):
            raise answer
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        answer.stream = _BoundedStream(answer.stream, self._config.max_response_bytes)
        return answer

    # --- once more? -------------------------------------------------------------------------------------------

    def _pause(
        self, request: httpx.Request, answer: httpx.Response | httpx.TransportError, attempt: int
    ) -> float | None:
        """Return the seconds to wait before the next attempt; None if there is none."""
        if attempt >= self._config.attempts or not _may_repeat(request):
            return None
        if isinstance(answer, httpx.Response) and answer.status_code not in self._config.retry_statuses:
            return None
        pause = min(self._config.backoff_initial * 2.0 ** (attempt - 1), self._config.backoff_max)
        pause *= 1 - self._chance() / 2
        if isinstance(answer, httpx.Response):
            pause = max(pause, _retry_after(answer))
        if pause > self._config.backoff_max or trio.current_time() + pause >= _deadline():
            return None
        return pause

    # --- what a request says: of us, and of the delivery in which it is made -----------------------------------

    def _addressed(self, request: httpx.Request, *, is_ours: bool) -> httpx.Request:
        """Return what is sent for a request of the client, with the headers that its origin may see."""
        headers = request.headers.copy()
        for name, value in (self._headers if is_ours else self._replaced).items():
            headers.setdefault(name, value)
        if is_ours:
            self._forward(headers)
        return httpx.Request(
            request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
        )

    def _forward(self, headers: httpx.Headers) -> None:
        delivery = current_delivery()
        if delivery is None:
            return
        given = delivery.envelope.headers
        for name in self._config.forward:
            value = given.get(name)
            if isinstance(value, str) and name not in headers and _is_writable(value):
                headers[name] = value

    def _write_deadline(self, request: httpx.Request) -> None:
        text = write_deadline(_deadline(), now=trio.current_time())
        if text is not None:
            request.headers[DEADLINE_HEADER] = text

    def _emit(self, request: httpx.Request, *, status: int, attempts: int, seconds: float) -> None:
        self._context.emit(
            HttpRequestDone(
                component=self._context.id,
                method=request.method,
                host=request.url.host,
                status=status,
                attempts=attempts,
                seconds=seconds,
            )
        )


@final
class _BoundedStream(httpx.AsyncByteStream):
    """The body of an answer, up to a number of bytes."""

    def __init__(self, inner: httpx.AsyncByteStream, limit: int) -> None:
        self._inner: Final = inner
        self._limit: Final = limit

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._limit
        try:
            async for part in self._inner:
                left -= len(part)
                if left >= 0:
                    yield part
                else:
                    # To raise here would leave the iterators below unfinished: they end by themselves when it is closed.
                    await self._inner.aclose()
        except httpx.TransportError as error:
            if left >= 0:
                raise
            raise self._too_large() from error
        if left < 0:
            raise self._too_large()

    def _too_large(self) -> ResponseTooLargeError:
        return ResponseTooLargeError(f"an answer is longer than max_response_bytes = {self._limit}")

    @override
    async def aclose(self) -> None:
        await self._inner.aclose()


def _reason(error: BaseException) -> str:
    """Return what an error of the network says; some say nothing, and what caused them does."""
    told: BaseException | None = error
    while told is not None and not str(told):
        told = told.__cause__ or told.__context__
    return type(error).__name__ if told is None else f"{type(error).__name__}: {told}"


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Return who is asked; httpx has written it in lower case, and left out the port that goes without saying."""
    return url.scheme, url.host, url.port


def _revealed(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _may_repeat(request: httpx.Request) -> bool:
    """Whether a request means the same when it comes twice, and can be sent twice: a body that is made as it is sent cannot."""
    is_idempotent = request.method in _IDEMPOTENT or _IDEMPOTENCY_KEY in request.headers
    return is_idempotent and isinstance(request.stream, httpx.ByteStream)


def _retry_after(answer: httpx.Response) -> float:
    """Return the seconds that an answer asks to wait; 0 if it does not. Dates are not read: clocks may differ."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0.0


def _deadline() -> float:
    """Return when nobody wants the answer any more, in `trio.current_time()`."""
    delivery = current_delivery()
    of_delivery = math.inf if delivery is None else delivery.envelope.deadline
    return min(of_delivery, trio.current_effective_deadline())


def _is_writable(value: str) -> bool:
    """Whether a header of a delivery can be one of a request, and cannot be two."""
    return len(value) <= _MAX_FORWARDED and value.isascii() and value.isprintable()
