"""The conformance check of resources that keep leases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, final

import attrs
import trio

from .._core.envelope import new_id
from ..errors import KernelError
from ._promise import expect, prove
from ._threads import hold_clock_for_threads

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from ..abc import Lease, LeaseState, Leasing

    OpenPlace: TypeAlias = Callable[[], AbstractAsyncContextManager[Leasing]]

_ROUNDS: Final = 10
_WRITERS: Final = 8
_LONG: Final = "ä" * (32 * 1024)


async def check_leasing(open_place: OpenPlace) -> None:
    """Test a resource against every promise of `kernel.abc.Leasing`.

    Its names are new in the world, so it may run against a server that others use; what it writes stays there. Works
    on the real clock and on an autojump clock.

    Args:
        open_place: Opens the resource; two are open at a time, as in two processes.

    Raises:
        AssertionError: naming the promise that is broken, and what happened instead.

    Cancellation: Is a checkpoint.
    """
    hold_clock_for_threads()
    bench = _Bench(open_place)
    await prove("what was never written has version 0 and no text", bench.begin_empty)
    await prove("each write is read by all, under the next version", bench.write_and_read)
    await prove("who writes over an old version changes nothing", bench.refuse_old)
    await prove("of many who write over one version, one succeeds", bench.let_one_succeed, limit=60)
    await prove("what was written outlives who wrote it", bench.outlive)
    await prove("a text may be 64 KiB of UTF-8", bench.take_long)
    await prove("leases of different names are different, and a wrong name is refused", bench.tell_names_apart)
    await prove("a write that is cancelled was made whole, or not at all", bench.cancel)


@final
@attrs.frozen(repr=False)
class _Bench:
    _open: OpenPlace

    async def begin_empty(self) -> None:
        async with self._open() as place:
            state = await place.lease(_name()).read()
        expect((state.version, state.value) == (0, ""), f"it was {_told(state)}")

    async def write_and_read(self) -> None:
        name = _name()
        async with self._open() as one, self._open() as two:
            for version, place in enumerate((one, two, two, one)):
                expect(await place.lease(name).write(f"text {version}", after=version), f"write {version} failed")
                for reader in (one, two):
                    state = await reader.lease(name).read()
                    expect((state.version, state.value) == (version + 1, f"text {version}"), f"it was {_told(state)}")

    async def refuse_old(self) -> None:
        name = _name()
        async with self._open() as one, self._open() as two:
            await one.lease(name).write("first", after=0)
            await one.lease(name).write("second", after=1)
            for after in (0, 1, 3):
                expect(not await two.lease(name).write("third", after=after), f"it was written over {after}")
            state = await one.lease(name).read()
        expect((state.version, state.value) == (2, "second"), f"it was {_told(state)}")

    async def let_one_succeed(self) -> None:
        name = _name()
        async with self._open() as one, self._open() as two:
            for version in range(_ROUNDS):
                winners: list[str] = []
                async with trio.open_nursery() as nursery:
                    for number in range(_WRITERS):
                        place = (one, two)[number % 2]
                        nursery.start_soon(_race, place.lease(name), str(number), version, winners)
                state = await one.lease(name).read()
                expect(len(winners) == 1, f"{len(winners)} succeeded over version {version}")
                expect(state.value == winners[0], f"{winners[0]} succeeded, and {state.value} was written")

    async def outlive(self) -> None:
        name = _name()
        async with self._open() as place:
            await place.lease(name).write("still here", after=0)
        async with self._open() as place:
            state = await place.lease(name).read()
        expect((state.version, state.value) == (1, "still here"), f"it was {_told(state)}")

    async def take_long(self) -> None:
        name = _name()
        async with self._open() as place:
            await place.lease(name).write(_LONG, after=0)
            state = await place.lease(name).read()
        expect(state.value == _LONG, f"{len(state.value)} characters came back")

    async def tell_names_apart(self) -> None:
        async with self._open() as place:
            name = _name()
            await place.lease(f"{name}.a").write("a", after=0)
            state = await place.lease(f"{name}.b").read()
            expect(state.version == 0, f"the other one was {_told(state)}")
            for wrong in ("", "a b", "ä", "a" * 201):
                expect(_is_refused(place, wrong), f"{wrong!r} was taken for a name")

    async def cancel(self) -> None:
        name = _name()
        async with self._open() as place:
            lease, version = place.lease(name), 0
            for turn in range(_ROUNDS):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_cancel_after, scope, turn)
                        await lease.write(f"text {version}", after=version)
                        nursery.cancel_scope.cancel()
                state = await lease.read()
                expect(state.version in {version, version + 1}, f"version {version} became {_told(state)}")
                expected = f"text {state.version - 1}" if state.version else ""
                expect(state.value == expected, f"it was {_told(state)}")
                version = state.version


async def _race(lease: Lease, text: str, version: int, winners: list[str]) -> None:
    try:
        if await lease.write(text, after=version):
            winners.append(text)
    except KernelError as error:
        raise AssertionError(f"a write raised {error!r}") from error


async def _cancel_after(scope: trio.CancelScope, turns: int) -> None:  # noqa: ASYNC910  as many as it is told
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    scope.cancel()


def _is_refused(place: Leasing, name: str) -> bool:
    try:
        place.lease(name)
    except ValueError:
        return True
    return False


def _told(state: LeaseState) -> str:
    return f"version {state.version}, {state.value[:50]!r}"


def _name() -> str:
    return f"check.{new_id()}"
