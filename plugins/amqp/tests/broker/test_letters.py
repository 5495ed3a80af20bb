from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from kernel_amqp.broker.letters import (
    clean,
    read_letter,
    sent_at,
    write_dead_letter,
    write_letter,
    write_retry,
)
from kernel_amqp.core import Delivered, Properties

from kernel import Envelope
from kernel.abc import MAX_DEATHS

NOW = 1000.0


def delivered(properties: Properties, *, routing_key: str = "orders", body: bytes = b"body") -> Delivered:
    return Delivered(1, "kernel", 1, False, "", routing_key, properties, body)


def read(headers: dict[str, object] | None, *, routing_key: str = "orders") -> tuple[Envelope, int]:
    return read_letter(delivered(Properties(headers=headers), routing_key=routing_key), now=NOW)


def died(reason: str, queue: str, key: str = "order.created") -> dict[str, object]:
    return {"reason": reason, "queue": queue, "count": 1, "exchange": "events", "routing-keys": [key]}


def test_what_is_written_is_read() -> None:
    sent = Envelope(
        subject="order.created",
        body=b"body",
        headers={"tenant": "a", "list": [1, None, {"x": 0.5}]},
        content_type="application/json",
        reply_to="replies",
        correlation_id="c-1",
        priority=7,
        deadline=NOW + 5,
    )
    got, attempts = read_letter(delivered(write_letter(sent, now=NOW), routing_key=sent.subject), now=NOW)

    assert (got, attempts) == (sent, 0)


def test_a_message_is_persistent_and_expires_at_its_deadline() -> None:
    letter = write_letter(Envelope(subject="a", deadline=NOW + 1.5), now=NOW)

    assert (letter.delivery_mode, letter.expiration) == (2, "1500")


def test_a_delay_is_no_time_to_handle_a_message_in() -> None:
    letter = write_letter(Envelope(subject="a", deadline=NOW + 5, delay=2.0), now=NOW)

    assert (letter.expiration, letter.headers) == (None, {"kernel-deadline": "3000"})


def test_a_deadline_beyond_what_the_broker_counts_is_only_in_the_header() -> None:
    letter = write_letter(Envelope(subject="a", deadline=NOW + 1e8), now=NOW)

    assert (letter.expiration, letter.headers) == (None, {"kernel-deadline": "100000000000"})


@pytest.mark.parametrize("priority", [-1, 10])
def test_a_priority_out_of_range_is_refused(priority: int) -> None:
    with pytest.raises(ValueError, match="0 to 9"):
        write_letter(Envelope(subject="a", priority=priority), now=NOW)


def test_headers_by_which_the_broker_routes_or_counts_are_not_sent() -> None:
    headers: dict[str, object] = {
        "CC": ["other"],
        "BCC": ["other"],
        "x-death": [died("expired", "q")],
        "x-first-death-queue": "q",
        "x-delivery-count": 4,
        "kernel-attempts": 9,
        "kernel-subject": "x",
        "kernel-deadline": "5",
        "kept": 1,
    }

    assert write_letter(Envelope(subject="a", headers=headers), now=NOW).headers == {"kept": 1}


def test_a_foreign_message_gets_what_it_lacks() -> None:
    envelope, attempts = read(None)

    assert (envelope.subject, envelope.headers, envelope.deadline, attempts) == ("orders", {}, math.inf, 0)
    assert (envelope.content_type, envelope.reply_to, envelope.correlation_id, envelope.priority) == ("", "", "", 0)
    assert envelope.id
    assert envelope.id != read(None)[0].id


def test_headers_become_what_json_can_say() -> None:
    envelope, _ = read({
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "price": Decimal("1.50"),
        "text": b"plain",
        "bytes": b"\xff\x00",
        "nan": math.nan,
        "deep": {"list": [b"x", Decimal(1)]},
        "plain": True,
    })

    assert envelope.headers == {
        "when": "2026-01-02T00:00:00+00:00",
        "price": "1.50",
        "text": "plain",
        "bytes": "/wA=",
        "nan": "nan",
        "deep": {"list": ["x", "1"]},
        "plain": True,
    }


def test_text_that_is_no_utf8_can_be_logged() -> None:
    assert clean("a\udcff") == "a\ufffd"


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "9" * 30, None, 12.5, "\u0663"])
def test_a_deadline_that_makes_no_sense_is_none(text: object) -> None:
    assert read({"kernel-deadline": text})[0].deadline == math.inf


@pytest.mark.parametrize("attempts", ["3", -1, None, 2.5, []])
def test_attempts_that_make_no_sense_are_none(attempts: object) -> None:
    assert read({"kernel-attempts": attempts})[1] == 0


def test_a_priority_of_others_is_cut_to_ours() -> None:
    envelope, _ = read_letter(delivered(Properties(priority=200)), now=NOW)

    assert envelope.priority == 9


def test_what_a_quorum_queue_counts_is_no_attempt() -> None:
    assert read({"x-delivery-count": 40})[1] == 0
    assert read({"x-delivery-count": 40, "kernel-attempts": 1, "kernel-crashes": 2})[1] == 3


# --- copies -------------------------------------------------------------------------------------------------------


def test_a_retry_keeps_all_but_its_place() -> None:
    properties = Properties(
        headers={"kept": b"raw", "x-death": [died("expired", "kernel.delay.100.")]},
        message_id="m-1",
        content_encoding="utf-8",
        timestamp=12,
        type="t",
        user_id="somebody",
        priority=3,
    )
    first = delivered(properties, routing_key="order.created")
    envelope, _ = read_letter(first, now=NOW)
    copy = write_retry(first, envelope, attempts=1, after=0.5, now=NOW)
    again, attempts = read_letter(delivered(copy), now=NOW)

    assert copy.headers == {
        "kept": b"raw",
        "kernel-attempts": 1,
        "kernel-subject": "order.created",
        "kernel-user-id": "somebody",
    }
    assert (copy.content_encoding, copy.timestamp, copy.type, copy.user_id) == ("utf-8", 12, "t", None)
    assert (again.subject, again.id, again.priority, attempts) == ("order.created", "m-1", 3, 1)


def test_a_retry_has_the_time_that_remains_after_the_wait() -> None:
    first = delivered(Properties(headers={"kernel-deadline": "5000"}, expiration="5000"))
    envelope, _ = read_letter(first, now=NOW)
    late = write_retry(first, envelope, attempts=1, after=2.0, now=NOW + 1)
    soon = write_retry(first, envelope, attempts=1, after=0.0, now=NOW + 1)

    assert (late.headers or {})["kernel-deadline"] == "2000"
    assert late.expiration is None, "it would leave the delay queue before its time"
    assert soon.expiration == "4000"


def test_a_dead_letter_has_no_deadline_and_begins_anew() -> None:
    first = delivered(Properties(headers={"kernel-deadline": "5000", "kernel-attempts": 2}), routing_key="order.paid")
    envelope, attempts = read_letter(first, now=NOW)
    copy = write_dead_letter(first, envelope, reason="no use", queue="orders", attempts=attempts + 1)
    letter, behind = read_letter(delivered(copy, routing_key="orders.dead"), now=NOW)

    assert (letter.subject, letter.deadline, behind, copy.expiration) == ("order.paid", math.inf, 0, None)
    assert letter.headers == {
        "kernel-death-reason": "no use",
        "kernel-death-queue": "orders",
        "kernel-death-attempts": 3,
        "kernel-death-subject": "order.paid",
    }


# --- deaths that the broker notes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "wanted"),
    [("expired", "expired"), ("maxlen", "overflow"), ("rejected", "rejected"), ("delivery_limit", "delivery_limit")],
)
def test_a_death_of_the_broker_is_told_in_our_words(reason: str, wanted: str) -> None:
    headers: dict[str, object] = {
        "x-death": [died(reason, "orders")],
        "x-first-death-reason": reason,
        "kernel-attempts": 2,
        "kernel-deadline": "0",
    }
    envelope, attempts = read(headers, routing_key="orders.dead")

    assert (envelope.subject, envelope.deadline, attempts) == ("order.created", math.inf, 0)
    assert envelope.headers == {
        "kernel-death-reason": wanted,
        "kernel-death-queue": "orders",
        "kernel-death-attempts": 2,
        "kernel-death-subject": "order.created",
    }


def test_deaths_of_the_broker_after_ours_make_a_history() -> None:
    envelope, _ = read({
        "x-death": [died("maxlen", "second"), died("expired", "first")],
        "kernel-death-reason": "no use",
        "kernel-death-queue": "orders",
        "kernel-death-attempts": 3,
        "kernel-death-subject": "order.created",
    })

    assert (envelope.headers["kernel-death-reason"], envelope.headers["kernel-death-queue"]) == ("overflow", "second")
    history: Any = envelope.headers["kernel-death-history"]
    assert [death["reason"] for death in history] == ["no use", "expired"]


def test_to_pass_through_a_delay_queue_is_no_death() -> None:
    envelope, attempts = read({"x-death": [died("expired", "kernel.delay.1000.")], "kernel-attempts": 1})

    assert (dict(envelope.headers), attempts) == ({}, 1)


@pytest.mark.parametrize("noted", ["text", [], [1, "x"], {"reason": "expired"}, None])
def test_deaths_that_make_no_sense_are_left_as_they_are(noted: object) -> None:
    assert "kernel-death-reason" not in read({"x-death": noted})[0].headers


def test_the_history_of_deaths_is_bounded() -> None:
    envelope, _ = read({"x-death": [died("expired", f"q{number}") for number in range(100)]})

    history: Any = envelope.headers["kernel-death-history"]
    assert len(history) == MAX_DEATHS - 1


@pytest.mark.parametrize(
    ("properties", "told"),
    [
        (Properties(), None),
        (Properties(headers={"x": 1}), None),
        (Properties(timestamp=1_700_000_000), 1_700_000_000),
        (Properties(timestamp=1_700_000_000, headers={"timestamp_in_ms": 1_700_000_000_123}), 1_700_000_000_123),
    ],
)
def test_a_message_tells_when_it_was_sent_if_it_says_so(properties: Properties, told: object) -> None:
    assert sent_at(properties) == told
