"""Bodies that somebody made to do harm: they mean something or are refused, in both directions of a call."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bpm import BpmProtocol

from kernel import Envelope, Message
from kernel.errors import DecodeError, RemoteError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("system_from", "system_to", "object", "action", "reference_id", "message_id", "params", "status")
STATUS = st.fixed_dictionaries({"status": st.fixed_dictionaries({"success": PLAIN, "errors": PLAIN}) | PLAIN})
ALMOST = st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, STATUS | PLAIN))
HOSTILE = st.binary() | ALMOST.map(lambda body: json.dumps(body).encode())


@pytest.mark.slow
@given(HOSTILE)
def test_any_body_is_a_message_or_a_decode_error(body: bytes) -> None:
    try:
        message = BpmProtocol().decode(Envelope(subject="s", body=body))
    except DecodeError:
        return
    fields = json.loads(body)
    assert (message.subject, message.payload) == (f"{fields['object']}.{fields['action']}", fields["params"])


@pytest.mark.slow
@given(HOSTILE, st.booleans())
def test_any_request_can_be_answered(body: bytes, is_asked: bool) -> None:
    request = Envelope(subject="s", body=body, reply_to="replies" if is_asked else "")

    replies = [BpmProtocol().encode_reply(request, {"a": 1}), BpmProtocol().encode_error(request, ValueError("x"))]

    assert [reply.subject for reply in replies if reply and is_asked] == ["replies"] * (2 * is_asked)


@pytest.mark.slow
@given(HOSTILE)
def test_any_answer_is_params_or_an_error_that_is_named(body: bytes) -> None:
    try:
        BpmProtocol().decode_reply(Envelope(subject="s", body=body))
    except (DecodeError, RemoteError):
        return
    assert "params" in json.loads(body)


@pytest.mark.slow
@given(st.dictionaries(st.text(max_size=3), PLAIN, max_size=3))
def test_params_come_back_as_they_were(params: dict[str, object]) -> None:
    envelope = BpmProtocol().encode(Message(subject="a.b", payload=params))

    assert BpmProtocol().decode(envelope).payload == params
