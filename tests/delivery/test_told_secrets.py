"""What becomes known of failures holds no secret: reasons go into queues, answers to peers; and it tells the place."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from kernel import DeadLetter, DeliverySettled, Envelope, Retry, Secret, handles
from kernel._core.masks import Masks
from kernel._core.stacks import where_raised
from kernel._delivery.failure import MAX_REASON, describe
from kernel.errors import PermanentError, RemoteError
from kernel.testing import open_kernel

CANARY = "yellow-feathers"
DSN = f"amqp://shop:{CANARY}@broker:5672/"
COMMON = {"driver": "queue", "protocol": "json"}


class OddError(Exception):
    """Shows what it was given in a text of its own."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address

    def __str__(self) -> str:
        return f"cannot reach {self.address!r}"


class Base(BaseException):
    pass


class Fails:
    @handles("exception")
    async def exception(self, payload: object) -> None:
        raise PermanentError(f"cannot log in with {CANARY}")

    @handles("address")
    async def address(self, payload: object) -> None:
        raise OddError(DSN)

    @handles("group")
    async def group(self, payload: object) -> None:
        raise ExceptionGroup(CANARY, [ValueError(CANARY), OddError(DSN)])

    @handles("base")
    async def base(self, payload: object) -> None:
        raise Base(CANARY)

    @handles("exit")
    async def exit(self, payload: object) -> None:
        raise SystemExit(CANARY)

    @handles("cut")
    async def cut(self, payload: object) -> None:
        raise PermanentError("x" * (MAX_REASON - len("PermanentError: ") - 7) + CANARY)

    @handles("escaped")
    async def escaped(self, payload: object) -> None:
        raise PermanentError(repr([f"\n{CANARY}\t"]))

    @handles("put_aside")
    async def put_aside(self, payload: object) -> DeadLetter:
        return DeadLetter(f"does not take {CANARY}")

    @handles("again")
    async def again(self, payload: object) -> Retry:
        return Retry(1.0, f"not with {CANARY}")

    @handles("converted")
    async def converted(self, payload: int) -> None: ...

    @handles("hangs")
    async def hangs(self, payload: object) -> None:
        await trio.sleep_forever()


class Batches:
    @handles("hangs")
    async def hangs(self, payloads: list[object]) -> None:
        await trio.sleep_forever()


HANGING = {
    f"{__file__}:{number}"
    for number, line in enumerate(Path(__file__).read_text().splitlines(), 1)
    if line.strip() == "await trio.sleep_forever()"
}
SUBJECTS = [name for name in vars(Fails) if not name.startswith("_") and name != "hangs"]


def manifest(use: str = "Fails", **dispatcher: Any) -> dict[str, Any]:
    return {
        "kernel": {"name": "test"},
        "drivers": {
            "queue": {"plugin": "memory"},
            "events": {"plugin": "publisher", **COMMON},
            "rpc": {"plugin": "rpc_client", **COMMON},
            "traces": {"plugin": "otel", "exporter": "none", "headers": {"a": {"env": "DSN"}, "b": {"env": "CANARY"}}},
        },
        "dispatchers": {"work": {"plugin": "consumer", **COMMON, "queue": "q", "bindings": ["#"], **dispatcher}},
        "workers": {"w": {"use": f"{__name__}:{use}", "dispatcher": "work", "timeout": 1.0, "retry": {"attempts": 2}}},
    }


def service(use: str = "Fails", **dispatcher: Any) -> Any:
    environ = {"DSN": DSN, "CANARY": CANARY}
    return open_kernel(manifest(use, **dispatcher), environ=environ, expected=BaseException)


def shown(envelope: Envelope) -> str:
    return f"{envelope.body!r} {dict(envelope.headers)}"


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_no_reason_of_a_dead_letter_holds_a_secret(subject: str, autojump_clock: object) -> None:
    outcomes: list[Any] = []
    payload = CANARY if subject == "converted" else None
    async with service() as running:
        running.kernel.hub.subscribe(lambda event: outcomes.append(event.outcome), DeliverySettled)
        await running.publish("events", subject, payload)
        await running.wait_event(DeliverySettled, lambda event: isinstance(event.outcome, DeadLetter))
        dead = await running.resource("driver/queue").peek("q.dead")

    assert len(dead) == 1
    assert "kernel-death-reason" in dead[0].envelope.headers
    assert CANARY[:7] not in f"{dict(dead[0].envelope.headers)} {outcomes}"


@pytest.mark.parametrize("subject", [name for name in SUBJECTS if name not in {"again", "converted"}])
async def test_no_answer_to_a_request_holds_a_secret(subject: str, autojump_clock: object) -> None:
    async with service() as running:
        with pytest.raises(RemoteError) as caught:
            await running.call("rpc", subject, None)

    assert CANARY[:7] not in f"{caught.value} {vars(caught.value)}"
    assert "***" in str(caught.value) or subject == "cut"


async def test_an_answer_without_its_secret_is_of_the_same_kind(autojump_clock: object) -> None:
    async with service() as running:
        with pytest.raises(RemoteError) as caught:
            await running.call("rpc", "address", None)

    assert (caught.value.kind, str(caught.value).partition(": ")[2]) == (
        "OddError",
        "cannot reach 'amqp://***@broker:5672/'",
    )


@pytest.mark.parametrize(("use", "batch"), [("Fails", {}), ("Batches", {"batch": {"size": 1, "wait": 1.0}})])
async def test_what_took_too_long_tells_where_it_stood(use: str, batch: Any, autojump_clock: object) -> None:
    async with service(use, **batch) as running:
        await running.publish("events", "hangs", None)
        settled = await running.wait_event(DeliverySettled, lambda event: isinstance(event.outcome, DeadLetter))

    assert settled.error is not None
    assert where_raised(settled.error) in HANGING


@pytest.mark.parametrize("subject", ["base", "exit", "group", "exception"])
async def test_whatever_was_raised_tells_where(subject: str, autojump_clock: object) -> None:
    async with service() as running:
        await running.publish("events", subject, None)
        settled = await running.wait_event(DeliverySettled, lambda event: isinstance(event.outcome, DeadLetter))

    assert settled.error is not None
    assert where_raised(settled.error).startswith(f"{__file__}:")


# --- what the masks know ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        DSN,
        f"Server=db;User=shop;Password={CANARY};Port=1",
        f"host=db password='{CANARY}'",
        f"redis://:{CANARY}@cache:6379/0",
    ],
)
def test_a_password_in_a_secret_is_masked_alone(text: str) -> None:
    assert Masks.of([Secret(text)]).applied(f"login with {CANARY} failed") == "login with *** failed"


def test_a_password_that_is_the_name_of_its_user_is_a_word() -> None:
    assert Masks.of([Secret("amqp://guest:guest@h/")]).applied("user guest") == "user guest"


def test_a_password_is_masked_as_it_is_meant() -> None:
    masks = Masks.of([Secret("amqp://u:yellow%2Ffeathers@h/")])

    assert masks.applied("yellow/feathers yellow%2Ffeathers") == "*** ***"


def test_what_a_secret_becomes_is_masked_too() -> None:
    now = ["one-yellow-feather"]
    secret = Secret(now[0], again=lambda: now[0])
    log, tree = Masks.of([secret]), Masks.of([secret])
    log.learn([secret])
    now[0] = "another-green-feather"
    thread = threading.Thread(target=secret.fresh)
    thread.start()
    thread.join()

    for masks in (log, tree):
        assert masks.applied("one-yellow-feather another-green-feather") == "*** ***"


def test_half_a_secret_is_not_left_where_a_reason_is_cut() -> None:
    masks = Masks.of([Secret(CANARY)])
    told = {describe(ValueError("x" * n + CANARY), masks.applied) for n in range(MAX_REASON - 40, MAX_REASON)}

    assert not any("yell" in one for one in told)
