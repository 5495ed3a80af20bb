"""Events, and what a message says of the chain of calls that led to it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_nameko import NamekoConfig, NamekoEventsProtocol, NamekoRpcProtocol

from kernel import Envelope, Message
from kernel.testing import fake_context

STACK = "nameko.call_id_stack"
CONTEXT = fake_context(service="stock")
CALL_ID = r"stock\.charge\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def continued(headers: dict[str, object], *, tracked: int = 10, id: str = "1") -> dict[str, object]:  # noqa: A002
    protocol = NamekoEventsProtocol(config=NamekoConfig(parent_calls_tracked=tracked), context=CONTEXT)
    return dict(protocol.continued(Envelope(subject="billing.charge", id=id, headers=headers)))


# --- events -----------------------------------------------------------------------------------------------------


def test_an_event_is_its_data() -> None:
    envelope = Envelope(
        subject="order_created",
        body=b'{"id": 1}',
        content_type="application/json",
        headers={STACK: ["shop.place.1"]},
    )

    message = NamekoEventsProtocol().decode(envelope)

    assert (message.subject, message.payload) == ("order_created", {"id": 1})
    assert message.headers == {STACK: ["shop.place.1"]}


def test_an_event_is_written_as_nameko_reads_it() -> None:
    sent = NamekoEventsProtocol().encode(Message(subject="order_created", payload={"id": 1}))

    assert (sent.subject, sent.body, sent.content_type) == ("order_created", b'{"id":1}', "application/json")
    assert dict(sent.headers) == {}


def test_headers_of_the_context_that_are_none_are_not_sent() -> None:
    headers = {"nameko.language": None, "nameko.user_id": 7, "other": None}

    sent = NamekoEventsProtocol().encode(Message(subject="a", payload=1, headers=headers))

    assert dict(sent.headers) == {"nameko.user_id": 7, "other": None}


# --- the chain --------------------------------------------------------------------------------------------------


def test_the_chain_grows_by_the_call_in_which_a_message_is_sent() -> None:
    stack = continued({STACK: ["shop.place.1", "billing.bill.2"]})[STACK]

    assert isinstance(stack, list)
    assert stack[:2] == ["shop.place.1", "billing.bill.2"]
    assert re.fullmatch(CALL_ID, stack[2])


def test_all_that_is_sent_in_one_call_has_its_id_and_no_other() -> None:
    assert continued({}) == continued({})
    assert continued({}) != continued({}, id="2")


def test_a_chain_begins_with_the_first_call() -> None:
    stack = continued({"unrelated": 1})[STACK]

    assert isinstance(stack, list)
    assert len(stack) == 1


@pytest.mark.parametrize(("tracked", "length"), [(10, 11), (2, 3), (0, 1)])
def test_the_chain_keeps_its_last_calls(tracked: int, length: int) -> None:
    stack = continued({STACK: [f"a.b.{number}" for number in range(50)]}, tracked=tracked)[STACK]

    assert isinstance(stack, list)
    assert len(stack) == length
    assert stack[:-1] == [f"a.b.{number}" for number in range(50)][50 - tracked :]


def test_the_context_is_inherited_and_nothing_else() -> None:
    headers = {"nameko.auth_token": "t", "nameko.language": None, "nameko.locale": "de", "x-death": []}

    inherited = continued(headers)
    del inherited[STACK]

    assert inherited == {"nameko.auth_token": "t", "nameko.locale": "de"}


def test_calls_continue_the_chain_as_events_do() -> None:
    cause = Envelope(subject="billing.charge", headers={STACK: ["a.b.1"]})

    assert NamekoRpcProtocol(context=CONTEXT).continued(cause) == NamekoEventsProtocol(context=CONTEXT).continued(cause)


@pytest.mark.slow
@given(
    st.dictionaries(
        st.text(max_size=5) | st.just(STACK) | st.just("nameko.x"),
        st.recursive(st.none() | st.text(max_size=3) | st.binary(max_size=3) | st.integers(), st.lists, max_leaves=4),
    )
)
def test_no_headers_of_a_peer_break_the_chain(headers: dict[str, object]) -> None:
    stack = continued(headers)[STACK]

    assert isinstance(stack, list)
    assert all(isinstance(call_id, str) for call_id in stack)
