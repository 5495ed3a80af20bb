from __future__ import annotations

import pytest
from kernel_amqp10._addresses import RABBITMQ, RABBITMQ4, ArtemisAddresses, Route, addresses


@pytest.mark.parametrize(
    ("dialect", "name", "address"),
    [
        ("rabbitmq", "orders", "/amq/queue/orders"),
        ("rabbitmq", "a/b c::d", "/amq/queue/a%2Fb c::d"),
        ("rabbitmq", "ü", "/amq/queue/%C3%BC"),
        ("rabbitmq4", "orders", "/queues/orders"),
        ("rabbitmq4", "a/b", "/queues/a%2Fb"),
        ("artemis", "orders", "orders"),
        ("artemis", "Hello::greeter", "Hello.greeter"),
    ],
)
def test_a_queue_has_the_address_that_its_broker_wants(dialect: str, name: str, address: str) -> None:
    assert addresses(dialect).queue(name) == address


@pytest.mark.parametrize(
    ("named", "exchange", "key", "route"),
    [
        (RABBITMQ, "shop", "order.paid", Route("/exchange/shop")),
        (RABBITMQ, "", "orders", Route("/amq/queue/orders")),
        (RABBITMQ4, "shop", "order/paid", Route(None, "/exchanges/shop/order%2Fpaid")),
        (RABBITMQ4, "", "orders", Route(None, "/queues/orders")),
        (ArtemisAddresses(), "shop", "order.paid", Route("shop.order.paid")),
        (ArtemisAddresses(with_exchange=False), "events", "HelloEvent", Route("HelloEvent")),
        (ArtemisAddresses(), "", "orders", Route("orders")),
    ],
)
def test_a_message_goes_where_its_broker_wants_it(
    named: ArtemisAddresses, exchange: str, key: str, route: Route
) -> None:
    assert named.route(exchange, key) == route


def test_a_listener_of_aspyx_event_is_a_fully_qualified_queue() -> None:
    sources = ArtemisAddresses(with_exchange=False).sources("HelloEvent::greeter", (("events", "HelloEvent"),))

    assert sources == ("HelloEvent.greeter", "HelloEvent::greeter")


def test_a_queue_of_several_patterns_has_a_source_for_each_and_none_twice() -> None:
    sources = ArtemisAddresses().sources("news", (("shop", "order.*"), ("shop", "bill.#")))

    assert sources == ("news", "shop.order.*::news.order.*", "shop.bill.#::news.bill.#")


@pytest.mark.parametrize(
    ("dialect", "address", "name"),
    [
        ("rabbitmq", "/queue/answers", "answers"),
        ("rabbitmq", "/amq/queue/a%2Fb", "a/b"),
        ("rabbitmq", "answers", "answers"),
        ("rabbitmq4", "/queues/a%20b", "a b"),
        ("artemis", "answers", "answers"),
    ],
)
def test_who_wants_an_answer_may_give_an_address_or_a_name(dialect: str, address: str, name: str) -> None:
    assert addresses(dialect).name_of(address) == name
