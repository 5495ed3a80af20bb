from __future__ import annotations

from typing import Any

import pytest
from kernel_amqp import AmqpOptions
from kernel_amqp._errors import ChannelClosedError
from kernel_amqp._tables import ExchangeTable, QueueTable
from kernel_amqp.broker.conflicts import consume_error, declare_error, is_about
from kernel_amqp.broker.post import Post
from kernel_amqp.broker.topology import (
    check_order,
    exchange_method,
    graves_of,
    has_dead_exchange,
    queue_method,
    queue_of,
)

from kernel.abc import Exchange, Queue
from kernel.errors import ConflictError

CLASSIC = AmqpOptions(type="classic")


def arguments(queue: Queue) -> dict[str, object]:
    return dict(queue_method(queue).arguments or {})


@pytest.mark.parametrize(
    ("queue", "wanted"),
    [
        (Queue(name="q"), {}),
        (Queue(name="q", options=AmqpOptions(type="classic")), {"x-queue-type": "classic"}),
        (Queue(name="q", exclusive=True), {}),
        (Queue(name="q", partition_by="subject"), {"x-single-active-consumer": True}),
        (Queue(name="q", options=AmqpOptions(max_priority=0)), {}),
        (Queue(name="q", options=AmqpOptions(max_priority=3)), {"x-max-priority": 3}),
        (Queue(name="q", options=AmqpOptions(type="quorum")), {"x-queue-type": "quorum"}),
        (
            Queue(name="q", max_length=5, ttl=1.5, options=AmqpOptions(max_priority=0)),
            {"x-max-length": 5, "x-overflow": "reject-publish", "x-message-ttl": 1500},
        ),
        (
            Queue(name="q", max_length=5, overflow="drop_oldest", options=AmqpOptions(max_priority=0)),
            {"x-max-length": 5, "x-overflow": "drop-head"},
        ),
        (
            Queue(name="q", dead_letters="d", options=AmqpOptions(max_priority=0, single_active_consumer=True)),
            {
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "d",
                "x-single-active-consumer": True,
            },
        ),
        (
            Queue(name="q", dead_letters="d", options=AmqpOptions(type="quorum")),
            {
                "x-queue-type": "quorum",
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "d",
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        ),
        (
            Queue(name="q", options=AmqpOptions(arguments={"x-queue-mode": "lazy", "x-ha": True})),
            {"x-queue-mode": "lazy", "x-ha": True},
        ),
        (
            Queue(name="q", options=AmqpOptions(max_length_bytes=5)),
            {"x-max-length-bytes": 5, "x-overflow": "reject-publish"},
        ),
        (
            Queue(name="q", overflow="drop_oldest", options=AmqpOptions(max_length_bytes=5)),
            {"x-max-length-bytes": 5, "x-overflow": "drop-head"},
        ),
        (
            Queue(name="q", options=AmqpOptions(type="quorum", delivery_limit=-1, expires=1.5)),
            {"x-queue-type": "quorum", "x-delivery-limit": -1, "x-expires": 1500},
        ),
        (
            Queue(name="q", dead_letters="d", options=AmqpOptions(type="quorum", dead_letter_strategy="at-most-once")),
            {
                "x-queue-type": "quorum",
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "d",
                "x-dead-letter-strategy": "at-most-once",
            },
        ),
        # As other programs declare: a bound, and nothing said of what is above it.
        (Queue(name="q", options=AmqpOptions(arguments={"x-max-length": 9})), {"x-max-length": 9}),
    ],
    ids=str,
)
def test_a_queue_becomes_arguments(queue: Queue, wanted: dict[str, object]) -> None:
    assert arguments(queue) == wanted


def test_an_exclusive_queue_goes_away_with_its_consumer() -> None:
    method = queue_method(Queue(name="q", durable=False, exclusive=True))

    assert (method.durable, method.exclusive, method.auto_delete) == (False, True, True)


@pytest.mark.parametrize("queue", [Queue(name="q", durable=False), Queue(name="q", exclusive=True)])
def test_what_a_quorum_queue_cannot_be_is_refused(queue: Queue) -> None:
    options = AmqpOptions(type="quorum")

    with pytest.raises(ConflictError, match='queue "q" cannot be of `type = "quorum"`'):
        queue_method(Queue(name="q", durable=queue.durable, exclusive=queue.exclusive, options=options))


def test_options_of_another_broker_are_refused() -> None:
    with pytest.raises(ConflictError, match="options of dict"):
        queue_method(Queue(name="q", options={"a": 1}))


def test_the_table_of_an_exchange_has_the_last_word() -> None:
    table = ExchangeTable(type="headers", durable=False, auto_delete=True, internal=True, arguments={"a": 1})
    plain, special = (exchange_method(Exchange(name="e"), given) for given in (None, table))

    assert (plain.exchange_type, plain.durable, plain.auto_delete, plain.internal) == ("topic", True, False, False)
    assert (special.exchange_type, special.durable, special.auto_delete, special.internal) == (
        "headers",
        False,
        True,
        True,
    )
    assert special.arguments == {"a": 1}


def test_a_table_describes_a_queue_as_a_consumer_does() -> None:
    table = QueueTable(
        durable=False, max_length=5, ttl=2.0, dead_letters="d", partition_by="subject", max_priority=0, lookahead=7
    )

    assert queue_of("q", table) == Queue(
        name="q",
        durable=False,
        max_length=5,
        ttl=2.0,
        dead_letters="d",
        partition_by="subject",
        options=AmqpOptions(max_priority=0, lookahead=7),
    )


@pytest.mark.parametrize(
    ("queue", "kind"),
    [
        (None, "quorum"),
        (Queue(name="q"), "quorum"),
        (Queue(name="q", options=CLASSIC), "classic"),
        (Queue(name="q", options=AmqpOptions(type="classic", passive=True)), "quorum"),
        (Queue(name="q", options=AmqpOptions(type="classic", adopt=True)), "quorum"),
        (Queue(name="q", max_length=5, overflow="drop_oldest", options=CLASSIC), "classic"),
        (Queue(name="q", max_length=5, options=CLASSIC), "quorum"),
        (Queue(name="q", options=AmqpOptions(type="classic", max_length_bytes=5)), "quorum"),
        (Queue(name="q", options=AmqpOptions(type="classic", arguments={"x-max-length": 5})), "classic"),
        (Queue(name="q", options=AmqpOptions(type="quorum")), "quorum"),
    ],
    ids=str,
)
def test_what_may_refuse_is_fed_by_what_does_not_forget(queue: Queue | None, kind: str) -> None:
    nothing: Any = None
    post = Post("driver/rabbit", nothing, nothing, nothing, nothing, nothing, "classic")

    assert post.delay_kind(queue) == kind


@pytest.mark.parametrize(
    ("queues", "wanted"),
    [
        ([Queue(name="d"), Queue(name="q", dead_letters="d")], {"d": Queue(name="d")}),
        (
            [Queue(name="d", durable=False), Queue(name="q", dead_letters="d", options=CLASSIC)],
            {"d": Queue(name="d", durable=False, options=CLASSIC)},
        ),
        ([Queue(name="d", ttl=1.0), Queue(name="q", dead_letters="d", options=CLASSIC)], {}),
        ([Queue(name="q", options=CLASSIC), Queue(name="p")], {}),
    ],
)
def test_a_queue_for_dead_letters_is_of_the_type_of_its_queue(queues: list[Queue], wanted: dict[str, Queue]) -> None:
    assert graves_of(queues) == wanted


def test_the_broker_may_have_a_place_for_dead_letters_of_its_own() -> None:
    options = AmqpOptions(arguments={"x-dead-letter-exchange": "dlx"})

    assert has_dead_exchange(Queue(name="q", options=options))
    assert has_dead_exchange(Queue(name="q", dead_letters="d"))
    assert not has_dead_exchange(Queue(name="q"))


# --- what the broker says -------------------------------------------------------------------------------------------


def unequal(argument: str) -> ChannelClosedError:
    text = f"PRECONDITION_FAILED - inequivalent arg '{argument}' for queue 'q' in vhost '/': received '1' but current is '2'"
    return ChannelClosedError(406, text, "queue.declare")


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("durable", "durable"),
        ("x-max-length", "max_length"),
        ("x-message-ttl", "ttl"),
        ("x-max-priority", "options.max_priority"),
        ("x-queue-type", "options.type"),
        ("x-queue-mode", "options.arguments.x-queue-mode"),
    ],
)
def test_a_conflict_names_the_key_of_the_manifest_and_both_values(argument: str, key: str) -> None:
    error = declare_error("queue", "q", unequal(argument))

    assert isinstance(error, ConflictError)
    assert f'queue "q" exists with another `{key}`' in str(error)
    assert "received '1' but current is '2'" in str(error)


@pytest.mark.parametrize(("code", "text"), [(404, "does not exist"), (405, "another connection"), (403, "cannot be")])
def test_other_refusals_are_named(code: int, text: str) -> None:
    assert text in str(declare_error("exchange", "e", ChannelClosedError(code, "WORDS", "exchange.declare")))


@pytest.mark.parametrize(("code", "text"), [(404, "no queue"), (403, "exclusive"), (540, "WORDS")])
def test_who_cannot_consume_is_told_why(code: int, text: str) -> None:
    assert text in str(consume_error("q", ChannelClosedError(code, "WORDS", "basic.consume")))


MESSAGE: dict[str, Any] = {"routing_key": "a.b", "user_id": None, "size": 10}


@pytest.mark.parametrize(
    ("code", "text", "changed", "guilty"),
    [
        (406, "PRECONDITION_FAILED - message size 17 is larger than configured max size 16", {"size": 17}, True),
        (406, "PRECONDITION_FAILED - message size 17 is larger than configured max size 16", {}, False),
        (406, "PRECONDITION_FAILED - message size 17 is larger than max size 16", {"size": 17}, True),
        (403, "ACCESS_REFUSED - access to topic 'a.b' in exchange 'e' in vhost '/' refused for user 'u'", {}, True),
        (403, "ACCESS_REFUSED - access to topic 'x' in exchange 'e' in vhost '/' refused for user 'u'", {}, False),
        (403, "ACCESS_REFUSED - access to exchange 'e' in vhost '/' refused for user 'u'", {}, True),
        (403, "ACCESS_REFUSED - cannot publish to internal exchange 'e' in vhost '/'", {}, True),
        (406, "PRECONDITION_FAILED - user_id property set to 'x' but authenticated user was 'u'", {}, False),
        (
            406,
            "PRECONDITION_FAILED - user_id property set to 'x' but authenticated user was 'u'",
            {"user_id": "x"},
            True,
        ),
        (406, "PRECONDITION_FAILED - something else", {}, False),
    ],
)
def test_of_several_messages_the_one_is_accused_that_the_broker_means(
    code: int, text: str, changed: dict[str, Any], guilty: bool
) -> None:
    error = ChannelClosedError(code, text, "basic.publish", written=True)

    assert is_about(error, **{**MESSAGE, **changed}) is guilty


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ((3, 10, 8), AmqpOptions(type="quorum")),
        ((4, 2, 9), AmqpOptions(type="classic")),
        ((4, 2, 9), AmqpOptions(type="quorum", without_priorities=True)),
        ((4, 3, 0), AmqpOptions(type="quorum")),
        ((), AmqpOptions(type="quorum")),
    ],
)
def test_an_order_that_nothing_breaks_is_taken(version: tuple[int, ...], options: AmqpOptions) -> None:
    check_order(Queue(name="q", partition_by="subject", options=options), version)


@pytest.mark.parametrize("options", [AmqpOptions(type="quorum"), AmqpOptions()])
@pytest.mark.parametrize("version", [(4, 0, 1), (4, 2, 9)])
def test_an_order_that_priorities_would_break_is_refused(version: tuple[int, ...], options: AmqpOptions) -> None:
    with pytest.raises(ConflictError, match="lets messages with priorities overtake"):
        check_order(Queue(name="q", partition_by="subject", options=options), version)
