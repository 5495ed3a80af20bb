from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_amqp.broker.letters import read_letter, write_dead_letter, write_letter, write_retry
from kernel_amqp.core import Delivered, Properties

from kernel import Envelope
from kernel.errors import EncodeError

NOW = 1000.0
ALL: dict[str, object] = {
    "amqp-type": "order",
    "amqp-app-id": "shop",
    "amqp-timestamp": 1_790_000_000,
    "amqp-content-encoding": "gzip",
    "amqp-expiration": 60_000,
    "amqp-user-id": "guest",
    "amqp-delivery-mode": 1,
}
FOREIGN = Properties(
    type="order",
    app_id="shop",
    timestamp=1_790_000_000,
    content_encoding="gzip",
    expiration="60000",
    user_id="guest",
    delivery_mode=1,
)


def delivered(properties: Properties) -> Delivered:
    return Delivered(1, "kernel", 1, False, "", "orders", properties, b"body")


def read(properties: Properties) -> Envelope:
    return read_letter(delivered(properties), now=NOW)[0]


def write(headers: dict[str, object], *, delay: float = 0.0, deadline: float = math.inf) -> Properties:
    return write_letter(Envelope(subject="a", headers=headers, delay=delay, deadline=deadline), now=NOW)


def test_what_a_foreign_sender_wrote_is_read() -> None:
    assert read(FOREIGN).headers == ALL


def test_it_is_read_beside_headers() -> None:
    assert read(Properties(type="order", headers={"tenant": "a"})).headers == {"tenant": "a", "amqp-type": "order"}


def test_a_property_counts_more_than_a_header_of_its_name() -> None:
    assert read(Properties(type="order", headers={"amqp-type": "x"})).headers == {"amqp-type": "order"}


def test_what_a_sender_sets_is_no_header_on_the_wire() -> None:
    letter = write({**ALL, "tenant": "a"})

    assert (letter.type, letter.app_id, letter.timestamp) == ("order", "shop", 1_790_000_000)
    assert (letter.content_encoding, letter.expiration) == ("gzip", "60000")
    assert (letter.user_id, letter.delivery_mode) == ("guest", 1)
    assert letter.headers == {"tenant": "a"}


def test_none_says_nothing() -> None:
    letter = write(dict.fromkeys(ALL))

    assert (letter.type, letter.user_id, letter.expiration, letter.delivery_mode) == (None, None, None, 2)
    assert not letter.headers


_TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "amqp-type": _TEXT,
            "amqp-app-id": _TEXT,
            "amqp-content-encoding": _TEXT,
            "amqp-user-id": _TEXT,
            "amqp-timestamp": st.integers(0, 2**63 - 1),
            "amqp-expiration": st.integers(0, 2**32 - 1),
            "amqp-delivery-mode": st.just(1),
            "tenant": st.integers(-(2**63), 2**63 - 1),
        },
    )
)
def test_what_is_set_is_read(headers: dict[str, object]) -> None:
    assert read(write(headers)).headers == headers


def test_a_deadline_is_no_expiration_that_somebody_set() -> None:
    assert "amqp-expiration" not in read(write({}, deadline=NOW + 5)).headers


def test_of_deadline_and_expiration_the_first_holds() -> None:
    assert write({"amqp-expiration": 60_000}, deadline=NOW + 5).expiration == "5000"
    assert write({"amqp-expiration": 1000}, deadline=NOW + 5).expiration == "1000"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("amqp-type", 1),
        ("amqp-app-id", "é" * 128),
        ("amqp-content-encoding", b"gzip"),
        ("amqp-user-id", ["guest"]),
        ("amqp-timestamp", -1),
        ("amqp-timestamp", 1.5),
        ("amqp-timestamp", "2026-01-01"),
        ("amqp-timestamp", 2**64),
        ("amqp-expiration", "60000"),
        ("amqp-expiration", 2**32),
        ("amqp-expiration", True),
        ("amqp-delivery-mode", 0),
        ("amqp-delivery-mode", 3),
    ],
)
def test_what_a_property_cannot_be_is_an_error_that_names_it(name: str, value: object) -> None:
    with pytest.raises(EncodeError, match=rf"header .{name}. (must be|is nothing that JSON can say)"):
        write({name: value})


@pytest.mark.parametrize(
    "name", ["amqp-tpye", "amqp-appid", "amqp-delivery_mode", "amqp-reply-to", "amqp-", "amqp-Type"]
)
def test_a_property_that_there_is_not_is_an_error_that_names_those_there_are(name: str) -> None:
    with pytest.raises(EncodeError, match=rf'header "{name}" is none: .*amqp-app-id, .*amqp-type, amqp-user-id'):
        write({"tenant": "a", "amqp-type": "order", name: "x"})


def test_a_delayed_message_has_no_expiration_of_its_own() -> None:
    with pytest.raises(EncodeError, match='"amqp-expiration"'):
        write({"amqp-expiration": 1000}, delay=5.0)


@pytest.mark.parametrize("text", ["soon", "-1", "9" * 20])
def test_an_expiration_that_makes_no_sense_is_text(text: str) -> None:
    assert read(Properties(expiration=text)).headers == {"amqp-expiration": text}


def test_text_that_is_no_utf8_can_be_logged() -> None:
    assert read(Properties(type="a\udcff")).headers == {"amqp-type": "a\ufffd"}


# --- copies ---------------------------------------------------------------------------------------------------------

KEPT = {name: value for name, value in ALL.items() if name != "amqp-user-id"} | {"kernel-user-id": "guest"}


def test_a_copy_has_them_and_tells_of_the_user_in_a_header() -> None:
    first = delivered(FOREIGN)
    copy = write_retry(first, read(FOREIGN), attempts=1, after=0.0, now=NOW)

    assert read(copy).headers == KEPT
    assert copy.user_id is None, "RabbitMQ takes only our own"


def test_a_copy_of_a_copy_has_them_too() -> None:
    copy = write_retry(delivered(FOREIGN), read(FOREIGN), attempts=1, after=0.0, now=NOW)
    second = write_retry(delivered(copy), read(copy), attempts=2, after=0.0, now=NOW)

    assert read(second).headers == KEPT


def test_what_waits_or_is_dead_does_not_expire() -> None:
    first, envelope = delivered(FOREIGN), read(FOREIGN)
    later = write_retry(first, envelope, attempts=1, after=5.0, now=NOW)
    dead = write_dead_letter(first, envelope, reason="no use", queue="orders", attempts=3)

    assert (later.expiration, dead.expiration) == (None, None)
    assert read(dead).headers.items() >= {key: KEPT[key] for key in KEPT if key != "amqp-expiration"}.items()


def test_a_header_that_is_called_so_stays_a_header_in_copies() -> None:
    first = Properties(headers={"amqp-type": "x"})
    copy = write_retry(delivered(first), read(first), attempts=1, after=0.0, now=NOW)

    assert (copy.type, (copy.headers or {})["amqp-type"]) == (None, "x")
