"""What becomes of an event, over the brokers that need no server: the same, by changing one key."""

from __future__ import annotations

import datetime
import decimal
import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import attrs
import msgspec
import pydantic
import pytest
import trio
from kernel_events import Events, catches, event, listens, upgrades
from kernel_events._event import spec_of
from trio.testing import MockClock

from kernel import DeadLetter, Delivery, Envelope, Message, Outcome, Retry
from kernel._manifest.registry import Registry, discover
from kernel.testing import RunningService, open_kernel

WIRED = {"driver": "queue", "protocol": "json"}


@pytest.fixture(params=["memory", "sqlite"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {"plugin": "memory"} if request.param == "memory" else {"plugin": "sqlite", "path": str(tmp_path / "q.db")}


def service(broker: dict[str, Any], *listeners: type[object], **tables: dict[str, Any]) -> dict[str, Any]:
    names = [cls.__name__.lower() for cls in listeners]
    workers = {name: {"use": name, "dispatcher": "heard", **tables.get(name, {})} for name in names}
    given = Registry.of({"workers": dict(zip(names, listeners, strict=True))})
    return {
        "manifest": {
            "kernel": {"name": "shop"},
            "drivers": {"queue": broker, "events": {"plugin": "event_sender", **WIRED}},
            "dispatchers": {"heard": {"plugin": "event_listener", **WIRED, **tables.get("heard", {})}},
            "workers": workers,
        },
        "registry": Registry((*discover().plugins, *given.plugins)),
    }


def sender(kernel: RunningService) -> Events:
    events = kernel.resource("driver/events")
    assert isinstance(events, Events)
    return events


heard: list[object] = []


@pytest.fixture(autouse=True)
def nothing_heard() -> None:
    heard.clear()


class Size(enum.Enum):
    SMALL = "s"


@attrs.frozen
class Line:
    sku: str
    price: decimal.Decimal | None = None


@event()
@dataclass
class AsDataclass:
    name: str
    at: datetime.datetime
    lines: list[Line] = field(default_factory=list)
    size: Size = Size.SMALL


@event()
@attrs.frozen
class AsAttrs:
    name: str
    at: datetime.datetime
    lines: tuple[Line, ...] = ()
    size: Size = Size.SMALL


@event()
class AsPydantic(pydantic.BaseModel):
    name: str
    at: datetime.datetime
    price: decimal.Decimal
    size: Size = Size.SMALL


@event()
class AsStruct(msgspec.Struct):
    name: str
    at: datetime.datetime
    size: Size = Size.SMALL


@event()
class AsTypedDict(TypedDict):
    name: str
    at: datetime.datetime
    size: Size


class Everything:
    @listens(AsDataclass)
    async def one(self, event: AsDataclass) -> None:
        heard.append(event)

    @listens(AsAttrs)
    async def two(self, event: AsAttrs) -> None:
        heard.append(event)

    @listens(AsPydantic)
    async def three(self, event: AsPydantic) -> None:
        heard.append(event)

    @listens(AsStruct)
    async def four(self, event: AsStruct) -> None:
        heard.append(event)

    @listens(AsTypedDict)
    async def five(self, event: AsTypedDict) -> None:
        heard.append(event)


AT = datetime.datetime(2026, 2, 3, 4, 5, tzinfo=datetime.UTC)
LINES = [Line("tea", decimal.Decimal("2.50")), Line("cup")]
EVENTS: list[tuple[object, type[object] | None]] = [
    (AsDataclass("a", AT, LINES), None),
    (AsAttrs("b", AT, tuple(LINES)), None),
    (AsPydantic(name="c", at=AT, price=decimal.Decimal("0.1")), None),
    (AsStruct("d", AT), None),
    (AsTypedDict(name="e", at=AT, size=Size.SMALL), AsTypedDict),
]


async def test_every_style_of_event_arrives_as_it_was(broker: dict[str, Any], autojump_clock: MockClock) -> None:
    async with open_kernel(**service(broker, Everything)) as kernel:
        for count, (happened, of) in enumerate(EVENTS, start=1):
            await sender(kernel).send(happened, of=of)
            await kernel.wait_settled(count)

    assert heard == [happened for happened, _ in EVENTS]


@event()
@dataclass
class HelloEvent:
    world: str


class Greeter:
    @listens(HelloEvent)
    async def on_hello(self, event: HelloEvent) -> None:
        heard.append(("greeter", event.world))

    @listens(HelloEvent)
    async def too(self, event, envelope: Envelope, delivery: Delivery) -> None:  # noqa: ANN001  it is the event
        heard.append((type(event), dict(envelope.headers)["session"], delivery.attempt))


class Other:
    @listens(HelloEvent)
    async def on_hello(self, event: HelloEvent) -> None:
        heard.append(("other", event.world))


async def test_every_listener_gets_every_event_once(broker: dict[str, Any], autojump_clock: MockClock) -> None:
    async with open_kernel(**service(broker, Greeter, Other)) as kernel:
        await sender(kernel).send(HelloEvent("world"), headers={"session": "s1"})
        await kernel.wait_settled(3)

    assert sorted(map(repr, heard)) == sorted(
        map(repr, [("greeter", "world"), (HelloEvent, "s1", 1), ("other", "world")])
    )


class Late:
    @listens(HelloEvent)
    async def on_hello(self, event: HelloEvent, delivery: Delivery) -> None:
        assert delivery.sent is not None
        heard.append((delivery.sent, trio.current_time() - delivery.sent))
        await trio.sleep(3)


async def test_a_listener_sees_when_its_event_was_sent(autojump_clock: MockClock) -> None:
    one_at_a_time = {"heard": {"concurrency": 1}}
    async with open_kernel(**service({"plugin": "memory"}, Late, **one_at_a_time)) as kernel:
        began = trio.current_time()
        await sender(kernel).send(HelloEvent("first"))
        await sender(kernel).send(HelloEvent("second"))
        await kernel.wait_settled(2)

    assert heard == [(pytest.approx(began), pytest.approx(0)), (pytest.approx(began), pytest.approx(3))]


async def test_an_event_that_nobody_listens_to_is_no_error(broker: dict[str, Any], autojump_clock: MockClock) -> None:
    @event()
    @dataclass
    class Unheard:
        name: str

    async with open_kernel(**service(broker, Greeter)) as kernel:
        assert await sender(kernel).send(Unheard("x"))


async def test_what_is_no_event_is_not_sent(broker: dict[str, Any], autojump_clock: MockClock) -> None:
    async with open_kernel(**service(broker, Greeter)) as kernel:
        with pytest.raises(TypeError, match="str is no event: mark the class with @event"):
            await sender(kernel).send("text")


# --- versions and bases ---------------------------------------------------------------------------------------------


@event(name="placed", version=3)
@dataclass
class Placed:
    cents: int
    currency: str

    @upgrades(from_version=1)
    @staticmethod
    def _to_cents(fields: dict[str, object]) -> dict[str, object]:
        return {"cents": 100 * int(str(fields["euros"]))}

    @upgrades(from_version=2)
    @staticmethod
    def _with_currency(fields: dict[str, object]) -> dict[str, object]:
        return {**fields, "currency": "EUR"}


class Reads:
    @listens(Placed)
    async def on(self, event: Placed) -> None:
        heard.append(event)


@pytest.mark.parametrize(
    ("fields", "version"),
    [
        ({"euros": 2}, None),
        ({"euros": 2}, "1"),
        ({"cents": 200}, "2"),
        ({"cents": 200, "currency": "EUR"}, "3"),
        ({"cents": 200, "currency": "EUR", "tax": 7}, "4"),
    ],
)
async def test_an_event_of_any_version_is_read(
    autojump_clock: MockClock, fields: dict[str, object], version: str | None
) -> None:
    async with open_kernel(**service({"plugin": "memory"}, Reads)) as kernel:
        await send_raw(kernel, fields, {} if version is None else {"kernel-event-version": version})
        await kernel.wait_settled()

    assert heard == [Placed(200, "EUR")]


@pytest.mark.parametrize(
    ("fields", "version", "reason"),
    [
        ({}, "1", "\"placed\" of version 1 cannot be upgraded: KeyError: 'euros'"),
        ({"euros": "two"}, "1", '"placed" of version 1 cannot be upgraded: ValueError'),
        ([1], "1", "it is no object, but list"),
        ({"cents": "two", "currency": "EUR"}, "3", "cents: "),
        ({"cents": 2}, "3", "currency: "),
        ({"cents": 2, "currency": "EUR"}, "new", "header kernel-event-version is no version"),
        ({"cents": 2, "currency": "EUR"}, "-1", "header kernel-event-version is no version"),
        ({"cents": 2, "currency": "EUR"}, "9" * 400, "header kernel-event-version is no version"),
        (None, "3", "None"),
        ("text", "3", "text"),
    ],
)
async def test_what_cannot_be_read_is_a_dead_letter_that_says_why(
    autojump_clock: MockClock, fields: object, version: str, reason: str
) -> None:
    async with open_kernel(**service({"plugin": "memory"}, Reads), expected=Exception) as kernel:
        await send_raw(kernel, fields, {"kernel-event-version": version})
        [settled] = await kernel.wait_settled()

    assert isinstance(settled.outcome, DeadLetter)
    assert reason in settled.outcome.reason or reason in {"None", "text"}
    assert heard == []


async def send_raw(kernel: RunningService, payload: object, headers: dict[str, str]) -> None:
    events: Any = sender(kernel)
    await events._context.broker.send(
        events._context.protocol.encode(Message(subject="placed", payload=payload, headers=headers)), exchange="events"
    )


@event()
@dataclass
class Base:
    name: str


@event(reaches_base=True)
@dataclass
class Derived(Base):
    more: int = 0


@event()
@dataclass
class Silent(Base):
    more: int = 0


class Hears:
    @listens(Base)
    async def base(self, event: Base) -> None:
        heard.append(("base", event))

    @listens(Derived)
    async def derived(self, event: Derived) -> None:
        heard.append(("derived", event))


async def test_a_subclass_reaches_who_listens_to_its_base_if_it_says_so(
    broker: dict[str, Any], autojump_clock: MockClock
) -> None:
    async with open_kernel(**service(broker, Hears)) as kernel:
        await sender(kernel).send(Silent("silent"))
        await sender(kernel).send(Derived("loud", 3))
        await kernel.wait_settled(2)

    assert sorted(heard, key=repr) == [("base", Base("loud")), ("derived", Derived("loud", 3))]


# --- errors ---------------------------------------------------------------------------------------------------------


class Fails:
    @listens(HelloEvent)
    async def on(self, event: HelloEvent) -> None:
        raise {"key": KeyError("k"), "value": ValueError("v"), "lookup": IndexError("i")}[event.world]

    @catches(LookupError)
    async def wider(self, error: LookupError, event: HelloEvent, attempt: int) -> Outcome | None:
        heard.append(("wider", type(error), event.world, attempt))
        return None if attempt > 1 else Retry(1.0)

    @catches(KeyError)
    async def nearer(self, error: KeyError, event: HelloEvent, attempt: int) -> Outcome:
        heard.append(("nearer", type(error), event.world, attempt))
        return DeadLetter("no such key")


async def test_the_nearest_method_catches_what_a_listener_raises(autojump_clock: MockClock) -> None:
    async with open_kernel(**service({"plugin": "memory"}, Fails, Other), expected=ValueError) as kernel:
        for world in ("key", "value", "lookup"):
            await sender(kernel).send(HelloEvent(world))
        await trio.sleep(10)
        outcomes = {type(event.outcome).__name__ for event in kernel.settled}

    assert sorted(heard, key=repr) == [
        ("nearer", KeyError, "key", 1),
        ("other", "key"),
        ("other", "lookup"),
        ("other", "value"),
        ("wider", IndexError, "lookup", 1),
        ("wider", IndexError, "lookup", 2),
    ]
    assert outcomes == {"Ack", "DeadLetter", "Retry"}


class FailsInPool:
    @listens(HelloEvent)
    def on(self, event: HelloEvent) -> None:
        raise ValueError(event.world)

    @catches(ValueError)
    def caught(self, error: ValueError, event: HelloEvent, attempt: int) -> Outcome | None:
        heard.append((str(error), event, attempt))
        return Retry(1.0) if attempt == 1 else None


async def test_what_a_listener_in_a_pool_raises_is_caught_there(autojump_clock: MockClock) -> None:
    tables = service({"plugin": "memory"}, FailsInPool, failsinpool={"runs_in": "pool"})
    tables["manifest"]["drivers"]["pool"] = {"plugin": "thread_pool"}
    async with open_kernel(**tables) as kernel:
        await sender(kernel).send(HelloEvent("x"))
        settled = await kernel.wait_settled(2)

    assert heard == [("x", HelloEvent("x"), 1), ("x", HelloEvent("x"), 2)]
    assert [type(event.outcome).__name__ for event in settled] == ["Retry", "Ack"]
    assert settled[0].outcome == Retry(1.0, "ValueError: x")


class FailsWithPlain:
    @listens(HelloEvent)
    async def on(self, event: HelloEvent) -> None:
        raise ValueError(event.world)

    @catches(ValueError)
    def caught(self, error: ValueError, event: HelloEvent, attempt: int) -> None:
        heard.append((str(error), event, attempt))


async def test_a_method_that_catches_need_not_wait(autojump_clock: MockClock) -> None:
    async with open_kernel(**service({"plugin": "memory"}, FailsWithPlain)) as kernel:
        await sender(kernel).send(HelloEvent("x"))
        [settled] = await kernel.wait_settled()

    assert heard == [("x", HelloEvent("x"), 1)]
    assert type(settled.outcome).__name__ == "Ack"


class Static:
    @staticmethod
    @listens(HelloEvent)
    async def on(event: HelloEvent) -> None:
        heard.append(event)


@listens(HelloEvent)
async def function(event: HelloEvent) -> None:
    heard.append(event)


@pytest.mark.parametrize("listener", [Static, function])
async def test_a_static_method_and_a_function_listen_too(listener: Any, autojump_clock: MockClock) -> None:
    async with open_kernel(**service({"plugin": "memory"}, listener)) as kernel:
        await sender(kernel).send(HelloEvent("x"))
        await kernel.wait_settled()

    assert heard == [HelloEvent("x")]


class Batches:
    @listens(HelloEvent)
    async def on(self, events: list[HelloEvent]) -> None:
        heard.append(sorted(event.world for event in events))


async def test_a_listener_may_take_batches(autojump_clock: MockClock) -> None:
    tables = service({"plugin": "memory"}, Batches, heard={"batch": {"size": 3, "wait": 1.0}})
    async with open_kernel(**tables) as kernel:
        for world in "abc":
            await sender(kernel).send(HelloEvent(world))
        await kernel.wait_settled(3)

    assert heard == [["a", "b", "c"]]


# --- who shares -----------------------------------------------------------------------------------------------------


class PerProcess:
    @listens(HelloEvent, per_process=True)
    async def on(self, event: HelloEvent) -> None:
        heard.append(event.world)


class WhileItLives:
    @listens(HelloEvent, durable=False)
    async def on(self, event: HelloEvent) -> None:
        heard.append(event.world)


async def test_what_was_sent_meanwhile_is_kept_for_a_durable_listener_alone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    broker = {"plugin": "sqlite", "path": str(tmp_path / "q.db")}
    tables = service(broker, Greeter, WhileItLives)
    async with open_kernel(**tables):
        pass
    quiet = service(broker, Other)
    async with open_kernel(**quiet) as kernel:
        await sender(kernel).send(HelloEvent("kept"), headers={"session": "s"})
        await kernel.wait_settled()
    heard.clear()
    async with open_kernel(**tables) as kernel:
        await kernel.wait_settled(2)
        await trio.sleep(5)

    assert sorted(map(repr, heard)) == sorted(map(repr, [("greeter", "kept"), (HelloEvent, "s", 1)]))


@pytest.mark.parametrize(("process", "count"), [("same", 1), ("own", 2)])
async def test_processes_share_a_listener_or_have_one_each(
    tmp_path: Path, autojump_clock: MockClock, process: str, count: int
) -> None:
    broker = {"plugin": "sqlite", "path": str(tmp_path / "q.db")}
    tables = [
        service(broker, PerProcess, heard={"process": "p" if process == "same" else f"p{number}"})
        for number in range(2)
    ]
    async with open_kernel(**tables[0]) as one, open_kernel(**tables[1]) as two:
        await sender(one).send(HelloEvent("x"))
        while len(one.settled) + len(two.settled) < count:  # noqa: ASYNC110  two services, and a poll in real time
            await trio.sleep(1)
        await trio.sleep(60)

    assert heard == ["x"] * count


# --- mistakes -------------------------------------------------------------------------------------------------------


class Deaf:
    async def nothing(self) -> None: ...


class Misled:
    @listens(HelloEvent)
    async def on(self, event: Placed) -> None: ...


class CatchesTooLate:
    @listens(HelloEvent)
    def on(self, event: HelloEvent) -> None: ...

    @catches(ValueError)
    async def caught(self, error: ValueError, event: HelloEvent, attempt: int) -> None: ...


class CatchesLess:
    @listens(HelloEvent)
    async def on(self, event: HelloEvent) -> None: ...

    @catches(ValueError)
    async def caught(self, error: ValueError) -> None: ...


class CatchesMore(CatchesLess):
    @catches(ValueError)
    async def caught(self, error: ValueError, event: HelloEvent, attempt: int, more: int) -> None: ...  # type: ignore[override]


class CatchesByName(CatchesLess):
    @catches(ValueError)
    async def caught(self, error: ValueError, *, event: HelloEvent, attempt: int) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize(
    ("cls", "tables", "text"),
    [
        (
            CatchesLess,
            {},
            '"caught" of worker/catchesless is called with the error, the event and the attempt: too many',
        ),
        (CatchesMore, {}, "the event and the attempt: missing a required argument: 'more'"),
        (CatchesByName, {}, "the event and the attempt: too many positional arguments"),
        (Deaf, {}, "handles nothing"),
        (Misled, {}, '"Misled.on" of worker/misled listens to HelloEvent, and its event is annotated Placed: write'),
        (CatchesTooLate, {}, '"caught" of worker/catchestoolate catches what its listeners raise, is async, and they'),
        (PerProcess, {}, "is durable and per process: give `process`"),
        (Greeter, {"greeter": {"options": {"queues": {"Greeter.on_helo": "x"}}}}, '"Greeter.on_helo", which is none'),
    ],
)
async def test_mistakes_are_told_before_anything_starts(cls: type[object], tables: dict[str, Any], text: str) -> None:
    with pytest.raises(Exception, match=text):
        async with open_kernel(**service({"plugin": "memory"}, cls, **tables)):
            pass


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (lambda: event(HelloEvent), "@event needs parentheses"),  # type: ignore[arg-type]
        (lambda: event(version=0), "1 or more"),
        (lambda: event(name="a b")(HelloEvent), "names no event"),
        (lambda: event(reaches_base=True)(Line), "none of its bases is an event"),
        (lambda: listens(Line), "Line is no event"),
        (lambda: listens(Placed)(Greeter.on_hello), "Greeter.on_hello listens to an event already"),
        (lambda: listens(HelloEvent)(staticmethod(function)), "@listens stands on a function, below @staticmethod"),  # type: ignore[type-var]
        (catches, "needs classes of exceptions"),
        (lambda: catches(BaseException), "what ends tasks and programs cannot be caught"),  # type: ignore[arg-type]
        (lambda: upgrades(from_version=3, of=Placed)(dict), "no upgrade from 3"),
        (lambda: upgrades(from_version=1, of=Placed)(dict), "two upgrades from version 1"),
        (lambda: upgrades(from_version=1, of=Line)(dict), "Line is no event"),
    ],
)
def test_a_wrong_mark_is_refused_where_it_stands(mistake: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        mistake()


def test_a_subclass_is_no_event_unless_it_is_marked() -> None:
    class Plain(HelloEvent):
        pass

    with pytest.raises(TypeError, match="Plain is no event"):
        spec_of(Plain)


@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf"), 1e7, "1", True])
async def test_an_event_cannot_be_held_back_for_what_is_no_time(delay: Any, autojump_clock: MockClock) -> None:
    async with open_kernel(**service({"plugin": "memory"}, Greeter)) as kernel:
        with pytest.raises((ValueError, TypeError), match="`delay` is "):
            await sender(kernel).send(HelloEvent("world"), delay=delay)
