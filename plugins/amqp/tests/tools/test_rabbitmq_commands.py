"""The commands, on the real broker; each test has queues of its own, which are deleted afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result
from kernel_amqp import AmqpOptions
from kernel_amqp.tools.commands import rabbitmq as command
from pamqp import commands

from kernel import Ack, DeadLetter, Envelope, new_id
from kernel.abc import Binding, Exchange, Queue, Subscription, Topology

from ..bench import ask, delete, open_amqp, take

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rabbitmq")]

WORKERS = """
async def handle(payload: object) -> None: ...
"""


def manifest_of(name: str) -> str:
    return f"""
[drivers.rabbit]
plugin = "amqp"

[drivers.rabbit.queues."{name}.dead"]
type = "classic"

[protocols.json]

[dispatchers.orders]
plugin = "consumer"
driver = "rabbit"
protocol = "json"
queue = "{name}"
exchange = "{name}"
bindings = ["a.*"]
options = {{ type = "classic" }}

[workers.fulfil]
use = "commanded_workers:handle"
dispatcher = "orders"
"""


class Place:
    """A manifest with a queue, its dead letters and an exchange, all of one name."""

    def __init__(self, directory: Path) -> None:
        self.name = f"ktool{new_id()[:8]}"
        self.path = directory / "kernel.toml"
        self.path.write_text(manifest_of(self.name), encoding="utf-8")
        (directory / "commanded_workers.py").write_text(WORKERS, encoding="utf-8")

    def run(self, *arguments: str, text: str | None = None) -> Result:
        return CliRunner().invoke(command, [*arguments, "--manifest", str(self.path)], input=text)

    def output(self, *arguments: str, text: str | None = None) -> str:
        done = self.run(*arguments, text=text)
        assert done.exit_code == 0, done.output
        return done.output

    def counts(self) -> dict[str, Any]:
        return {row["queue"]: row["ready"] for row in json.loads(self.output("list", "--json"))}

    @property
    def queues(self) -> list[str]:
        return [self.name + end for end in ("", ".dead", ".renew", ".dead.renew")]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    exchanges = [place.name, *(queue + end for queue in place.queues[2:] for end in ("", ".back"))]

    async def clean() -> None:
        await delete(queues=place.queues, exchanges=exchanges)

    trio.run(clean)


def topology_of(name: str, options: AmqpOptions | None) -> Topology:
    """What an earlier version, or the same one, declares."""
    return Topology(
        exchanges=[Exchange(name=name)],
        queues=[
            Queue(name=f"{name}.dead", options=options),
            Queue(name=name, dead_letters=f"{name}.dead", options=options),
        ],
        bindings=[Binding(queue=name, exchange=name, pattern="a.*")],
    )


def fill(
    name: str,
    *texts: str,
    options: AmqpOptions | None = None,
    dead: int = 0,
    headers: Mapping[str, object] | None = None,
) -> None:
    """Declare, send through the exchange, and have the first ones die."""

    async def run() -> None:
        async with open_amqp() as broker:
            await broker.declare(topology_of(name, options))
            for text in texts:
                short = text[:20]
                envelope = Envelope(subject=f"a.{short}", body=text.encode(), id=short, headers=headers or {})
                await broker.send(envelope, exchange=name)
            async with broker.subscribe(Subscription(queue=name, prefetch=1)) as deliveries:
                for _ in range(dead):
                    await (await take(deliveries)).settle(DeadLetter("no use"))
            for queue in (name, f"{name}.dead"):
                broker._catalog.forget(queue)
            broker._catalog._exchanges.clear()

    trio.run(run)


def drained(name: str, count: int) -> list[tuple[str, bytes, int]]:
    """Take what is in a queue, as a consumer sees it."""

    async def run() -> list[tuple[str, bytes, int]]:
        async with open_amqp() as broker, broker.subscribe(Subscription(queue=name, prefetch=1)) as deliveries:
            found: list[tuple[str, bytes, int]] = []
            for _ in range(count):
                delivery = await take(deliveries)
                found.append((delivery.envelope.subject, delivery.envelope.body, delivery.attempt))
                await delivery.settle(Ack())
            return found

    return trio.run(run)


def test_list_counts_what_the_service_declares(place: Place) -> None:
    before = place.counts()
    fill(place.name, "x", "y", "z", options=AmqpOptions(type="classic"), dead=1)

    assert before == {place.name: None, f"{place.name}.dead": None}
    assert place.counts() == {place.name: 2, f"{place.name}.dead": 1}
    assert place.output("list").splitlines()[0].split() == ["queue", "ready", "consumers"]


def test_peek_shows_why_a_message_died_and_takes_nothing(place: Place) -> None:
    fill(place.name, "x", "y", dead=2)
    records = [json.loads(line) for line in place.output("peek", f"{place.name}.dead", "--json").splitlines()]

    assert [(record["id"], record["subject"]) for record in records] == [("x", "a.x"), ("y", "a.y")]
    assert records[0]["headers"]["kernel-death-reason"] == "no use"
    assert place.counts()[f"{place.name}.dead"] == 2


def test_peek_prints_nothing_that_a_terminal_obeys(place: Place) -> None:
    fill(place.name, "\x1b]0;owned\x07")

    assert "\x1b" not in place.output("peek", place.name)


def test_peek_shows_nothing_that_is_called_like_a_secret(place: Place) -> None:
    fill(place.name, "x", headers={"Authorization": "Bearer canary", "plain": "amqp://u:canary@host/x", "count": 3})
    shown = place.output("peek", place.name)

    assert "canary" not in shown
    assert "    Authorization: ***\n    plain: amqp://***@host/x\n    count: 3\n" in shown


def test_retry_sends_each_where_it_died_and_counts_anew(place: Place) -> None:
    fill(place.name, "x", "y", dead=2)

    assert place.output("retry", f"{place.name}.dead", "--limit", "1") == "1 messages moved\n"
    assert place.counts() == {place.name: 1, f"{place.name}.dead": 1}
    assert drained(place.name, 1) == [("a.x", b"x", 1)]


def test_retry_of_what_did_not_die_says_what_to_do(place: Place) -> None:
    fill(place.name, "x")
    done = place.run("retry", place.name)

    assert (done.exit_code, "say where it goes, with --to" in done.output) == (1, True)
    assert place.counts()[place.name] == 1


def test_move_keeps_what_a_message_is_about(place: Place) -> None:
    fill(place.name, *"xyz")
    place.output("move", place.name, f"{place.name}.dead")

    assert drained(f"{place.name}.dead", 3) == [(f"a.{text}", text.encode(), 1) for text in "xyz"]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_is_too_large_stays_and_keeps_nothing_back(place: Place, at: int) -> None:
    texts = ["x", "y"]
    texts.insert(at, "z" * 2000)
    fill(place.name, *texts, dead=3)
    manifest = place.path.read_text(encoding="utf-8")
    place.path.write_text(manifest.replace('"amqp"', '"amqp"\nmax_message_bytes = 1000', 1), encoding="utf-8")
    done = place.run("retry", f"{place.name}.dead")

    assert (done.exit_code, "2 messages moved; 1 stay" in done.output, "2000 bytes" in done.output) == (1, True, True)
    assert place.counts() == {place.name: 2, f"{place.name}.dead": 1}


def test_nothing_is_moved_to_where_it_is(place: Place) -> None:
    fill(place.name, "x")
    done = place.run("move", place.name, place.name)

    assert (done.exit_code, "where they are already" in done.output) == (2, True)


LISTENING = """
[drivers.rabbit]
plugin = "amqp"
[protocols.json]
[dispatchers.heard]
plugin = "event_listener"
driver = "rabbit"
protocol = "json"
[workers.greeter]
use = "listening_workers:Greeter"
dispatcher = "heard"
"""
GREETER = """
import attrs
from kernel_events import event, listens
@event(name="NAME")
@attrs.frozen
class Hello:
    text: str
class Greeter:
    @listens(Hello)
    async def on_hello(self, hello: Hello) -> None: ...
"""


def test_list_counts_what_listeners_of_events_declare(place: Place) -> None:
    place.path.write_text(LISTENING, encoding="utf-8")
    (place.path.parent / "listening_workers.py").write_text(GREETER.replace("NAME", place.name), encoding="utf-8")

    queue, dead = sorted(place.counts())

    assert (queue.endswith("on_hello"), dead) == (True, f"{queue}.dead")


def test_a_driver_that_there_is_not_is_named_with_those_there_are(place: Place) -> None:
    done = place.run("list", "--driver", "rabbti")

    assert (done.exit_code, done.output.splitlines()[-1]) == (
        2,
        f'Error: {place.path} has no `amqp` driver "rabbti"; it has: rabbit',
    )


def test_what_nobody_takes_stays(place: Place) -> None:
    fill(place.name, "x")
    done = place.run("move", place.name, f"{place.name}.missing")

    assert (done.exit_code, f"{place.name}.missing" in done.output) == (1, True)
    assert place.counts()[place.name] == 1


def test_purge_and_delete_ask_first(place: Place) -> None:
    fill(place.name, "x")
    asked = place.run("purge", place.name, text="n\n")
    kept = place.counts()[place.name]
    place.output("purge", place.name, "--yes")
    place.output("delete", place.name, "--if-empty")

    assert (asked.exit_code, kept, place.counts()[place.name]) == (1, 1, None)


@pytest.mark.parametrize(
    ("command", "texts", "question", "told"),
    [
        ("purge", "xy", "Remove 2 messages that wait from queue", "is empty: 2 messages removed"),
        ("purge", "", "Remove 0 messages that wait from queue", "is empty: 0 messages removed"),
        ("delete", "xyz", "Delete queue", "deleted, with 3 messages"),
        ("delete", "x", "1 message that waits for good?", "deleted, with 1 message"),
    ],
)
def test_what_is_removed_is_counted_before_and_after(
    command: str, texts: str, question: str, told: str, place: Place
) -> None:
    fill(place.name, *texts)
    output = place.output(command, place.name, text="y\n")

    assert question in output
    assert output.splitlines()[-1] == f'queue "{place.name}" {told}'


@pytest.mark.parametrize("command", ["purge", "delete"])
def test_who_consumes_what_is_removed_is_told(command: str, place: Place) -> None:
    fill(place.name, "x")

    async def consume_and_remove() -> Result:
        async with open_amqp() as broker, broker.subscribe(Subscription(queue=place.name, prefetch=1)) as taken:
            await take(taken)
            return await trio.to_thread.run_sync(partial(place.run, command, place.name, text="y\n"))

    done = trio.run(consume_and_remove)

    assert "0 messages that wait and 1 consumer" in done.output
    assert done.output.rstrip().endswith("; 1 consumer had it")


def test_a_queue_that_there_is_not_is_an_error(place: Place) -> None:
    for arguments in (["peek", "x"], ["retry", "x"], ["purge", "x", "--yes"], ["delete", "x", "--yes"], ["renew", "x"]):
        done = place.run(*arguments)
        assert done.exit_code != 0
        assert isinstance(done.exception, SystemExit), arguments


# --- renew ----------------------------------------------------------------------------------------------------------


def test_renew_gives_queues_another_form_and_keeps_what_is_in_them(place: Place) -> None:
    fill(place.name, *"vwxyz", options=AmqpOptions(max_priority=9), dead=2)
    told = place.output("renew")

    assert f'queue "{place.name}": renewed' in told
    assert place.counts() == {place.name: 3, f"{place.name}.dead": 2}
    fill(place.name, "new", options=AmqpOptions(type="classic"))  # which is the form that the manifest asks for
    # What was given back unhandled, "x", goes once to the end of a classic queue (decision 0043).
    assert drained(place.name, 4) == [(f"a.{text}", text.encode(), 1) for text in ("y", "z", "new", "x")]
    assert [letter[0] for letter in drained(f"{place.name}.dead", 2)] == ["a.v", "a.w"]
    assert (
        trio.run(ask, *(commands.Queue.Declare(queue=f"{queue}.renew", passive=True) for queue in place.queues)) == []
    )


def test_renew_leaves_alone_what_is_as_the_manifest_says(place: Place) -> None:
    fill(place.name, "x", options=AmqpOptions(type="classic"))

    assert place.output("renew", place.name) == f'queue "{place.name}": is as the manifest says\n'
    assert place.counts()[place.name] == 1


def test_renew_goes_on_where_it_was_interrupted(place: Place) -> None:
    """The queue is gone, and what was in it waits in the one between."""
    between = f"{place.name}.renew"
    fill(place.name, "x", options=AmqpOptions(type="classic"))

    async def interrupt() -> None:
        await ask(commands.Queue.Declare(queue=between, durable=True))

    trio.run(interrupt)
    place.output("move", place.name, between)
    place.output("delete", place.name, "--yes")
    place.output("renew", place.name)

    assert drained(place.name, 1) == [("a.x", b"x", 1)]


def test_renew_refuses_while_somebody_consumes(place: Place) -> None:
    fill(place.name, "x", options=AmqpOptions(max_priority=9))

    async def consume_and_renew() -> Result:
        async with open_amqp() as broker, broker.subscribe(Subscription(queue=place.name, prefetch=1)):
            return await trio.to_thread.run_sync(place.run, "renew", place.name)

    done = trio.run(consume_and_renew)

    assert (done.exit_code, "stop the service first" in done.output) == (1, True)
    assert place.counts()[place.name] == 1


def test_a_stream_can_be_looked_into_and_is_not_emptied(place: Place) -> None:
    options = 'options = { type = "stream", offset = "first" }'
    place.path.write_text(manifest_of(place.name).replace('options = { type = "classic" }', options), encoding="utf-8")
    fill(place.name, "x", "y", options=AmqpOptions(type="stream", offset="first"))
    records = [json.loads(line) for line in place.output("peek", place.name, "--limit", "2", "--json").splitlines()]
    refused = [place.run(*arguments) for arguments in (("purge", place.name, "--yes"), ("renew", place.name))]
    refused += [place.run("move", place.name, f"{place.name}.dead"), place.run("retry", place.name)]

    assert [record["id"] for record in records] == ["x", "y"]
    assert [(done.exit_code, "is a stream" in done.output) for done in refused] == [(2, True)] * 4
