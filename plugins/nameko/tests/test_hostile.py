"""Bodies that somebody made to do harm: they mean something or are refused, in both directions of a call."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_nameko import NamekoEventsProtocol, NamekoRpcConfig, NamekoRpcProtocol

from kernel import Arguments, Envelope
from kernel.errors import DecodeError, RemoteError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
ERROR = st.fixed_dictionaries(
    {},
    optional={
        "exc_type": PLAIN | st.just("KeyError"),
        "exc_path": PLAIN | st.sampled_from(["builtins.KeyError", "builtins.SystemExit", "os.system"]),
        "exc_args": PLAIN | st.lists(PLAIN, max_size=3),
        "value": PLAIN,
    },
)
ALMOST = st.fixed_dictionaries(
    {},
    optional={
        "args": PLAIN | st.lists(PLAIN, max_size=2),
        "kwargs": PLAIN | st.dictionaries(st.text(max_size=3), PLAIN, max_size=2),
        "result": PLAIN,
        "error": PLAIN | ERROR,
    },
)
HOSTILE = st.binary() | ALMOST.map(lambda body: json.dumps(body).encode())


@pytest.mark.slow
@given(HOSTILE)
def test_any_body_is_a_call_or_a_decode_error(body: bytes) -> None:
    try:
        payload = NamekoRpcProtocol().decode(Envelope(subject="s.m", body=body)).payload
    except DecodeError:
        return
    fields = json.loads(body)
    assert payload == Arguments(fields["args"], fields["kwargs"])


@pytest.mark.slow
@given(HOSTILE)
def test_any_body_is_an_event_or_a_decode_error(body: bytes) -> None:
    try:
        payload = NamekoEventsProtocol().decode(Envelope(subject="s", body=body)).payload
    except DecodeError:
        return
    assert payload == json.loads(body)


@pytest.mark.slow
@given(HOSTILE)
def test_any_answer_is_a_result_or_an_error_that_is_allowed(body: bytes) -> None:
    protocol = NamekoRpcProtocol(config=NamekoRpcConfig(exceptions=(KeyError,)))
    try:
        result = protocol.decode_reply(Envelope(subject="s", body=body))
    except (DecodeError, RemoteError):
        return
    except KeyError:
        assert json.loads(body)["error"]["exc_path"] == "builtins.KeyError"
    else:
        assert result == json.loads(body).get("result")
