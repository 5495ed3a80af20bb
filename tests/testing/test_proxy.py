"""The proxy of the testing kit: its pipes in virtual time, itself between real sockets."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from kernel.testing import LineFaults, Proxy, no_leaks, open_proxy
from kernel.testing._proxy_line import Line
from kernel.testing._proxy_pipe import Ending, Pipe

PATIENCE = 5.0
SHORT = 0.05
"""Seconds in which nothing must happen."""


# --- one pipe, in virtual time ------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Flow:
    """A pipe, somebody who writes into it, and what came out at which time."""

    line: Line
    writer: trio.abc.HalfCloseableStream
    reader: trio.abc.HalfCloseableStream
    pieces: list[tuple[float, bytes]] = attrs.field(factory=list, init=False)
    endings: list[Ending] = attrs.field(factory=list, init=False)

    @property
    def data(self) -> bytes:
        return b"".join(data for _, data in self.pieces)

    async def read(self) -> None:
        start = trio.current_time()
        async for data in self.reader:
            self.pieces.append((round(trio.current_time() - start, 6), bytes(data)))
        self.pieces.append((round(trio.current_time() - start, 6), b""))

    async def run(self, pipe: Pipe) -> None:
        self.endings.append(await pipe.run())
        await pipe.target.aclose()


@asynccontextmanager
async def flowing(faults: LineFaults, *, seed: int = 0) -> AsyncIterator[Flow]:
    """A pipe with something going through; left when its reader has seen the end."""
    writer, source = trio.testing.memory_stream_pair()
    target, reader = trio.testing.memory_stream_pair()
    line = Line()
    line.faults = faults
    flow = Flow(line, writer, reader)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flow.read)
        nursery.start_soon(flow.run, Pipe(source, target, line, random.Random(seed)))
        yield flow


async def test_a_line_without_faults_changes_nothing(autojump_clock: MockClock) -> None:
    data = random.Random(1).randbytes(1_000_000)

    async with flowing(LineFaults()) as flow:
        await flow.writer.send_all(data)
        await flow.writer.send_eof()

    assert flow.data == data
    assert flow.endings == [Ending.ENDED]
    assert flow.pieces[-1][0] == 0


async def test_latency_delays_bytes_and_the_end_by_the_same_time(autojump_clock: MockClock) -> None:
    async with flowing(LineFaults(latency=2)) as flow:
        await flow.writer.send_all(b"one")
        await trio.sleep(0.5)
        await flow.writer.send_all(b"two")
        await trio.sleep(0.5)
        await flow.writer.send_eof()

    assert flow.pieces == [(2, b"one"), (2.5, b"two"), (3, b"")]


async def times_with_jitter(seed: int) -> list[float]:
    async with flowing(LineFaults(latency=1, jitter=1), seed=seed) as flow:
        for number in range(10):
            await flow.writer.send_all(b"%d" % number)
            await trio.sleep(0.1)
        await flow.writer.send_eof()
    assert flow.data == b"0123456789"
    return [time for time, _ in flow.pieces]


async def test_jitter_repeats_with_its_seed_and_keeps_order(autojump_clock: MockClock) -> None:
    first, again, other = [await times_with_jitter(seed) for seed in (1, 1, 2)]

    assert first == again != other
    assert first == sorted(first)
    assert all(1 <= time <= 3 for time in first)


async def test_bandwidth_spreads_bytes_over_time(autojump_clock: MockClock) -> None:
    async with flowing(LineFaults(bandwidth=1000)) as flow:
        await flow.writer.send_all(b"x" * 2000)
        await flow.writer.send_eof()

    half = sum(len(data) for time, data in flow.pieces if time < 1)
    assert flow.pieces[-1][0] == pytest.approx(2)
    assert half == pytest.approx(1000, abs=20)


async def test_slicing_sends_single_bytes(autojump_clock: MockClock) -> None:
    async with flowing(LineFaults(slice_bytes=1)) as flow:
        await flow.writer.send_all(bytes(range(256)))
        await flow.writer.send_eof()

    assert flow.data == bytes(range(256))
    assert max(len(data) for _, data in flow.pieces) == 1


async def test_a_black_hole_holds_bytes_and_the_end_until_it_is_over(autojump_clock: MockClock) -> None:
    async with flowing(LineFaults(latency=1)) as flow:
        await flow.writer.send_all(b"under way")
        await trio.sleep(0.5)
        flow.line.faults = LineFaults(black_hole=True)
        await flow.writer.send_all(b", and after")
        await flow.writer.send_eof()
        await trio.sleep(60)
        before = list(flow.pieces)
        flow.line.faults = LineFaults()

    assert before == []
    assert flow.data == b"under way, and after"
    assert flow.pieces[-1] == (60.5, b"")


async def test_a_slow_close_comes_late(autojump_clock: MockClock) -> None:
    async with flowing(LineFaults(close_delay=3)) as flow:
        await flow.writer.send_all(b"x")
        await flow.writer.send_eof()

    assert flow.pieces == [(0, b"x"), (3, b"")]


@pytest.mark.parametrize("limit", [0, 1, 7, 20])
async def test_a_cut_comes_after_exactly_so_many_bytes(limit: int, autojump_clock: MockClock) -> None:
    async with flowing(LineFaults(cut_after=limit, slice_bytes=3)) as flow:
        await flow.writer.send_all(b"x" * 20 + b"y")

    assert flow.data == b"x" * limit
    assert flow.endings == [Ending.CUT]


async def test_bytes_are_counted_from_when_faults_are_set(autojump_clock: MockClock) -> None:
    async with flowing(LineFaults()) as flow:
        await flow.writer.send_all(b"abc")
        await trio.sleep(1)
        flow.line.faults = LineFaults(corrupt_at=1)
        await flow.writer.send_all(b"d\xf0f")
        await flow.writer.send_eof()

    assert flow.data == b"abcd\x0ff"


async def test_a_sliced_byte_is_corrupted_once(autojump_clock: MockClock) -> None:
    async with flowing(LineFaults(slice_bytes=2, corrupt_at=3)) as flow:
        await flow.writer.send_all(bytes(6))
        await flow.writer.send_eof()

    assert flow.data == b"\0\0\0\xff\0\0"


@attrs.define(eq=False)
class Endless(trio.abc.ReceiveStream):
    """Somebody who sends as much as is taken."""

    taken: int = attrs.field(default=0, init=False)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        self.taken += max_bytes or 1
        return bytes(max_bytes or 1)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_line_holds_a_bounded_number_of_bytes(autojump_clock: MockClock) -> None:
    source, line = Endless(), Line()
    target, _ = trio.testing.memory_stream_pair()
    line.faults = LineFaults(latency=60)

    with trio.move_on_after(30):
        await Pipe(source, target, line, random.Random(0)).run()

    assert 1_000_000 < source.taken < 1_200_000


@pytest.mark.parametrize("value", [{"latency": -1}, {"bandwidth": 0}, {"slice_bytes": 0}, {"cut_after": -1}], ids=str)
def test_faults_that_make_no_sense_are_refused(value: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(value))):
        LineFaults(**value)


# --- a proxy between sockets --------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Echo:
    """A server that sends back what it gets, and remembers how its connections ended."""

    port: int = attrs.field(default=0, init=False)
    ends: list[str] = attrs.field(factory=list, init=False)
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    async def answer(self, stream: trio.SocketStream) -> None:
        try:
            async for data in stream:
                await stream.send_all(data)
            self.ends.append("closed")
        except trio.BrokenResourceError:
            self.ends.append("reset")
        self._changed.unpark_all()

    async def wait_ends(self, count: int) -> list[str]:
        while len(self.ends) < count:
            await self._changed.park()
        return self.ends


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Proxy, Echo]]:
    echo = Echo()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, echo.answer, 0)
            echo.port = listeners[0].socket.getsockname()[1]
            async with open_proxy("127.0.0.1", echo.port) as proxy:
                yield proxy, echo
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[trio.SocketStream]:
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
        yield stream


async def echoed(stream: trio.SocketStream, data: bytes) -> bytes:
    await stream.send_all(data)
    return await received(stream, len(data))


async def received(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := await stream.receive_some()):
        data += more
    return data


async def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  sockets tell nobody
        await trio.sleep(0.001)


async def test_bytes_come_through_both_ways() -> None:
    data = random.Random(1).randbytes(300_000)

    async with proxied() as (proxy, _), connected(proxy) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        answer = await received(stream, len(data))
        counts = proxy.accepted, proxy.connections

    assert answer == data
    assert counts == (1, 1)


async def test_closing_one_way_leaves_the_other_open() -> None:
    async with proxied() as (proxy, echo), connected(proxy) as stream:
        await stream.send_all(b"last words")
        await stream.send_eof()
        answer = [data async for data in stream]
        await wait_until(lambda: proxy.connections == 0)

    assert b"".join(map(bytes, answer)) == b"last words"
    assert echo.ends == ["closed"]


async def test_a_reset_reaches_both_sides_at_once() -> None:
    async with proxied() as (proxy, echo), connected(proxy) as stream:
        await echoed(stream, b"x")
        count = proxy.reset()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        ends = await echo.wait_ends(1)

    assert (count, proxy.connections, ends) == (1, 0, ["reset"])


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_one_direction_can_be_a_black_hole(direction: str) -> None:
    async with proxied() as (proxy, echo), connected(proxy) as stream:
        await echoed(stream, b"x")
        setattr(proxy, direction, LineFaults(black_hole=True))
        with trio.move_on_after(SHORT) as silence:
            await echoed(stream, b"lost?")
        setattr(proxy, direction, LineFaults())
        answer = await received(stream, 5)

        ends = list(echo.ends)

    assert silence.cancelled_caught
    assert answer == b"lost?"
    assert ends == []


async def test_a_black_hole_keeps_the_end_of_a_connection_to_itself() -> None:
    async with proxied() as (proxy, echo):
        async with connected(proxy) as stream:
            await echoed(stream, b"x")
            proxy.to_server = LineFaults(black_hole=True)
        await trio.sleep(SHORT)
        before = list(echo.ends)
        proxy.to_server = LineFaults()
        after = await echo.wait_ends(1)

    assert before == []
    assert len(after) == 1


async def test_a_black_hole_does_not_hold_a_reset_by_the_test() -> None:
    async with proxied() as (proxy, echo), connected(proxy) as stream:
        await echoed(stream, b"x")
        proxy.to_server = proxy.to_client = LineFaults(black_hole=True)
        proxy.reset()
        ends = await echo.wait_ends(1)

    assert ends == ["reset"]


async def test_a_connection_that_is_let_go_keeps_its_faults_to_itself() -> None:
    async with proxied() as (proxy, echo), connected(proxy) as stream:
        await echoed(stream, b"x")
        proxy.to_client = LineFaults(black_hole=True)
        proxy.let_go()
        async with connected(proxy) as other:
            answer = await echoed(other, b"free")
        with trio.move_on_after(SHORT) as silence:
            await echoed(stream, b"stuck")
        count = proxy.reset()
        await echo.wait_ends(2)

    assert answer == b"free"
    assert silence.cancelled_caught
    assert count == 1


async def test_a_clients_reset_is_passed_on() -> None:
    async with proxied() as (proxy, echo), open_proxy("127.0.0.1", proxy.port) as nearer, connected(nearer) as stream:
        await echoed(stream, b"x")
        nearer.reset()
        ends = await echo.wait_ends(1)

    assert ends == ["reset"]


async def test_a_proxy_that_is_down_refuses_and_keeps_what_is_open() -> None:
    async with proxied() as (proxy, _), connected(proxy) as stream:
        await echoed(stream, b"x")
        proxy.go_down()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", proxy.port)
        answer = await echoed(stream, b"still here")
        proxy.come_back()
        async with connected(proxy) as other:
            back = await echoed(other, b"back")

    assert (answer, back) == (b"still here", b"back")


async def test_a_proxy_goes_down_and_comes_back_again_and_again() -> None:
    async with proxied() as (proxy, _):
        for _ in range(5):
            proxy.go_down()
            proxy.go_down()
            proxy.come_back()
            async with connected(proxy) as stream:
                assert await echoed(stream, b"x") == b"x"

    assert proxy.accepted == 5


async def test_a_server_that_refuses_breaks_the_clients_connection() -> None:
    async with proxied() as (proxy, _):
        proxy.go_down()
        async with open_proxy("127.0.0.1", proxy.port) as nearer, connected(nearer) as stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


async def test_a_cut_closes_both_sides_after_what_has_passed() -> None:
    async with proxied() as (proxy, echo), connected(proxy) as stream:
        proxy.to_client = LineFaults(cut_after=3)
        answer = await echoed(stream, b"12345")
        ends = await echo.wait_ends(1)

    assert answer == b"123"
    assert len(ends) == 1


async def test_latency_is_that_of_the_way_there_and_back() -> None:
    async with proxied() as (proxy, _), connected(proxy) as stream:
        proxy.to_server = LineFaults(latency=0.04)
        proxy.to_client = LineFaults(latency=0.03)
        began = trio.current_time()
        await echoed(stream, b"x")

    assert 0.07 <= trio.current_time() - began < 1


async def test_what_the_test_raises_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_proxy("127.0.0.1", 1):
            raise KeyError("mine")


async def test_a_proxy_leaves_nothing_behind() -> None:
    with no_leaks():
        async with proxied() as (proxy, _):
            proxy.to_client = LineFaults(black_hole=True)
            for _ in range(3):
                async with connected(proxy) as stream:
                    await stream.send_all(b"x")
            proxy.go_down()
