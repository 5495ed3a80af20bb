"""Bodies that somebody made to do harm: they mean something or are refused, in both directions of a call."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_ufw import BackOff, UfwBackoffProtocol, UfwRpcConfig, UfwRpcProtocol

from kernel import Arguments, Envelope
from kernel.errors import DecodeError, RemoteError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
EXCEPTION = st.fixed_dictionaries(
    {},
    optional={
        "exception": PLAIN | st.sampled_from(["KeyError", "SystemExit", "system"]),
        "message": PLAIN,
        "args": PLAIN | st.lists(PLAIN, max_size=3),
        "kwargs": PLAIN | st.dictionaries(st.text(max_size=3), PLAIN, max_size=2),
        "module": PLAIN | st.sampled_from(["builtins", "os"]),
    },
)
META = st.fixed_dictionaries({"backoff": st.fixed_dictionaries({"retry_count": PLAIN, "last_retry": PLAIN}) | PLAIN})
ALMOST = st.fixed_dictionaries(
    {},
    optional={
        "command": PLAIN | st.just("t"),
        "command_args": PLAIN | st.lists(PLAIN, max_size=2),
        "command_kwargs": PLAIN | st.dictionaries(st.text(max_size=3), PLAIN, max_size=2),
        "data": PLAIN,
        "exception": PLAIN | EXCEPTION,
        "fn_args": st.lists(PLAIN, max_size=2) | PLAIN,
        "fn_kwargs": st.dictionaries(st.text(max_size=3), PLAIN, max_size=2) | PLAIN,
        "_meta": META | PLAIN,
    },
)
WRITTEN = ALMOST.map(json.dumps)
HOSTILE = st.binary() | WRITTEN.map(str.encode) | WRITTEN.map(lambda text: json.dumps(text).encode())


@pytest.mark.slow
@given(HOSTILE, st.sampled_from(["s.t", ""]))
def test_any_body_is_a_call_or_a_decode_error(body: bytes, subject: str) -> None:
    try:
        message = UfwRpcProtocol().decode(Envelope(subject=subject, body=body))
    except DecodeError:
        return
    assert isinstance(message.payload, Arguments)
    assert message.subject == subject or not subject


@pytest.mark.slow
@given(HOSTILE, st.dictionaries(st.just("x-delay"), PLAIN))
def test_any_body_is_a_retry_or_a_decode_error(body: bytes, headers: dict[str, object]) -> None:
    try:
        retry = UfwBackoffProtocol().decode(Envelope(subject="s", body=body, headers=headers)).payload
    except DecodeError:
        return
    assert isinstance(retry, BackOff)
    assert retry.retry_count == json.loads(body)["_meta"]["backoff"]["retry_count"]


@pytest.mark.slow
@given(HOSTILE)
def test_any_answer_is_a_result_or_an_error_that_is_allowed(body: bytes) -> None:
    protocol = UfwRpcProtocol(config=UfwRpcConfig(exceptions=(KeyError,)))
    try:
        result = protocol.decode_reply(Envelope(subject="s", body=body))
    except (DecodeError, RemoteError):
        return
    except KeyError:
        assert b"KeyError" in body
    else:
        answer = json.loads(body)
        assert result == (json.loads(answer) if isinstance(answer, str) else answer).get("data")
