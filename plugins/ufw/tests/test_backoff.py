"""Retries as micro-framework sends them to itself."""

from __future__ import annotations

import json

import pytest
from kernel_ufw import BackOff, UfwBackoffProtocol

from kernel import Arguments, Envelope, Message
from kernel.errors import DecodeError, EncodeError

BODY = (
    b'{"fn_args": [{"id": 1}], "fn_kwargs": {}, "_meta": {"backoff": {"retry_count": 2, "last_retry": 1700000000.5}}}'
)


def decoded(body: bytes, headers: dict[str, object] | None = None) -> object:
    envelope = Envelope(subject="test_backoff", body=body, headers=headers or {})
    return UfwBackoffProtocol().decode(envelope).payload


def test_a_retry_is_read() -> None:
    assert decoded(BODY, {"x-delay": -10000}) == BackOff(
        args=({"id": 1},), retry_count=2, last_retry=1700000000.5, delay=10.0
    )


def test_a_retry_is_written_as_micro_framework_reads_it() -> None:
    retry = BackOff(args=[{"id": 1}], retry_count=2, last_retry=1700000000.5, delay=0.0101)

    sent = UfwBackoffProtocol().encode(Message(subject="test_backoff", payload=retry, headers={"k": "v"}))

    assert json.loads(sent.body) == json.loads(BODY)
    assert (sent.subject, dict(sent.headers)) == ("test_backoff", {"k": "v", "x-delay": 11})
    assert sent.content_type == "application/json"


def test_a_retry_at_once_has_no_delay() -> None:
    assert dict(UfwBackoffProtocol().encode(Message(subject="s", payload=BackOff())).headers) == {}


@pytest.mark.parametrize("header", [None, "10", 1.5, True, 2**70, [1]], ids=repr)
def test_a_delay_that_is_none_is_not_taken_for_one(header: object) -> None:
    found = decoded(BODY, {"x-delay": header})

    assert isinstance(found, BackOff)
    assert found.delay in {0.0, 0.001}


@pytest.mark.parametrize(
    "meta",
    [
        "{}",
        '{"backoff":{}}',
        '{"backoff":{"retry_count":-1}}',
        '{"backoff":{"retry_count":"1"}}',
        "1",
        '{"backoff":{"retry_count":1,"last_retry":"x"}}',
        '{"backoff":{"retry_count":1,"last_retry":1' + "0" * 400 + "}}",
    ],
    ids=lambda text: text[:40],
)
def test_a_body_without_its_count_is_refused(meta: str) -> None:
    with pytest.raises(DecodeError):
        decoded(f'{{"fn_args":[],"fn_kwargs":{{}},"_meta":{meta}}}'.encode())


@pytest.mark.parametrize("body", [b"[]", b"{", BODY.replace(b"fn_args", b"args"), BODY.replace(b"{}", b"1")], ids=repr)
def test_what_is_no_retry_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        decoded(body)


@pytest.mark.parametrize("payload", [None, Arguments(), {"fn_args": []}], ids=repr)
def test_only_a_backoff_is_written(payload: object) -> None:
    with pytest.raises(EncodeError, match="a retry is a BackOff"):
        UfwBackoffProtocol().encode(Message(subject="s", payload=payload))
