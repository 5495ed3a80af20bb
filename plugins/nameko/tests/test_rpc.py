"""Calls: requests, answers and errors, as Nameko 2.14 writes and reads them."""

from __future__ import annotations

import json

import pytest
from kernel_nameko import NamekoRpcConfig, NamekoRpcProtocol

from kernel import Arguments, Envelope, Message
from kernel.errors import ArgumentsError, DecodeError, EncodeError, NoWorkerError, RemoteError, UnroutableError

REQUEST = Envelope(subject="billing.charge", reply_to="1c2a", correlation_id="c-1")


class OutOfMoneyError(Exception):
    """Has a text of its own, made of what it is raised with."""

    def __init__(self, owner: str, *, missing: int = 0) -> None:
        super().__init__(owner)
        self.owner = owner


class TextlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class HostileValue:
    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(f"no {name}")

    def __str__(self) -> str:
        raise RuntimeError("no text")


def decoded(body: bytes, content_type: str = "application/json") -> object:
    envelope = Envelope(subject="billing.charge", body=body, content_type=content_type)
    return NamekoRpcProtocol().decode(envelope).payload


def answered(answer: object, *exceptions: type[Exception]) -> object:
    protocol = NamekoRpcProtocol(config=NamekoRpcConfig(exceptions=exceptions))
    return protocol.decode_reply(Envelope(subject="1c2a", body=json.dumps(answer).encode()))


def told(error: Exception, request: Envelope = REQUEST) -> object:
    """Return the answer that tells of an error."""
    reply = NamekoRpcProtocol().encode_error(request, error)
    assert reply is not None
    assert (reply.subject, reply.correlation_id, reply.content_type) == ("1c2a", "c-1", "application/json")
    return json.loads(reply.body)


# --- requests ---------------------------------------------------------------------------------------------------


def test_a_request_is_arguments() -> None:
    assert decoded(b'{"args": ["order-1"], "kwargs": {"amount": 3}}') == Arguments(("order-1",), {"amount": 3})


@pytest.mark.parametrize(
    ("payload", "body"),
    [
        (Arguments(("order-1",), {"amount": 3}), b'{"args":["order-1"],"kwargs":{"amount":3}}'),
        ({"amount": 3}, b'{"args":[],"kwargs":{"amount":3}}'),
        (["order-1", 3], b'{"args":["order-1",3],"kwargs":{}}'),
        ((), b'{"args":[],"kwargs":{}}'),
    ],
    ids=["arguments", "object", "array", "nothing"],
)
def test_a_request_is_written_as_nameko_reads_it(payload: object, body: bytes) -> None:
    sent = NamekoRpcProtocol().encode(Message(subject="billing.charge", payload=payload))

    assert (sent.subject, sent.body, sent.content_type) == ("billing.charge", body, "application/json")


@pytest.mark.parametrize("payload", [None, "text", 1, b""], ids=repr)
def test_what_is_no_arguments_is_refused(payload: object) -> None:
    with pytest.raises(EncodeError, match="a call takes Arguments, an object or an array"):
        NamekoRpcProtocol().encode(Message(subject="billing.charge", payload=payload))


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{}", b'{"args":[]}', b'{"kwargs":{}}', b'{"args":{},"kwargs":{}}', b'{"args":[],"kwargs":null}', b"{"],
    ids=repr,
)
def test_a_malformed_request_is_told_as_one(body: bytes) -> None:
    with pytest.raises(DecodeError) as raised:
        decoded(body)

    error = json.loads(json.dumps(told(raised.value)))["error"]
    assert (error["exc_type"], error["exc_path"]) == ("MalformedRequest", "nameko.exceptions.MalformedRequest")


def test_a_pickle_is_not_read() -> None:
    with pytest.raises(DecodeError, match="is not JSON"):
        decoded(b"{}", "application/x-python-serialize")


# --- answers ----------------------------------------------------------------------------------------------------


def test_a_result_is_written_as_nameko_reads_it() -> None:
    reply = NamekoRpcProtocol().encode_reply(REQUEST, {"paid": 3})

    assert reply is not None
    assert (reply.subject, reply.correlation_id) == ("1c2a", "c-1")
    assert reply.body == b'{"result":{"paid":3},"error":null}'


def test_a_result_comes_back() -> None:
    assert answered({"result": {"paid": 3}, "error": None}) == {"paid": 3}


@pytest.mark.parametrize("answer", [1, [], {}, {"error": 1}, {"error": {"exc_path": "a.B"}, "result": 1}], ids=repr)
def test_what_is_no_answer_is_refused(answer: object) -> None:
    with pytest.raises(DecodeError):
        answered(answer)


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "written"),
    [
        (
            NoWorkerError("no worker handles 'billing.charge'"),
            {
                "exc_type": "MethodNotFound",
                "exc_path": "nameko.exceptions.MethodNotFound",
                "exc_args": ["charge"],
                "value": "charge",
            },
        ),
        (
            ArgumentsError(["b: is missing"]),
            {
                "exc_type": "IncorrectSignature",
                "exc_path": "nameko.exceptions.IncorrectSignature",
                "exc_args": ["b: is missing"],
                "value": "b: is missing",
            },
        ),
        (
            KeyError("k"),
            {"exc_type": "KeyError", "exc_path": "builtins.KeyError", "exc_args": ["k"], "value": "'k'"},
        ),
        (
            ValueError("bad", 3),
            {
                "exc_type": "ValueError",
                "exc_path": "builtins.ValueError",
                "exc_args": ["bad", 3],
                "value": "('bad', 3)",
            },
        ),
        (
            UnroutableError("a call of the handler's own"),
            {
                "exc_type": "UnroutableError",
                "exc_path": "kernel.errors.UnroutableError",
                "exc_args": ["a call of the handler's own"],
                "value": "a call of the handler's own",
            },
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_told_in_the_words_of_nameko(error: Exception, written: object) -> None:
    assert told(error) == {"result": None, "error": written}


def test_a_result_that_cannot_be_written_is_told_as_one() -> None:
    with pytest.raises(EncodeError, match=r"payload\.result\.a: object cannot be written") as raised:
        NamekoRpcProtocol().encode_reply(REQUEST, {"a": object()})

    error = json.loads(json.dumps(told(raised.value)))["error"]
    assert (error["exc_type"], error["exc_args"]) == ("UnserializableValueError", [])
    assert error["value"].startswith("Unserializable value: ")


@pytest.mark.parametrize(
    "error",
    [
        ValueError(float("nan"), float("inf"), 10**5000, "\ud800", b"\xff"),
        ValueError({"a": {"b": {"c": {"d": "deep"}}}}, [[[[["deep"]]]]]),
        ValueError(*range(1000)),
        ValueError("x" * 10**6),
        ValueError(HostileValue()),
        TextlessError(object()),
    ],
    ids=["numbers", "deep", "many", "long", "hostile", "textless"],
)
def test_any_error_can_be_told(error: Exception) -> None:
    with pytest.raises(RemoteError):
        answered(told(error))

    assert len(json.dumps(told(error))) < 20_000


def test_an_error_is_a_remote_error_unless_it_is_listed() -> None:
    answer = told(OutOfMoneyError("ada"))

    with pytest.raises(RemoteError) as remote:
        answered(answer)
    assert (remote.value.kind, remote.value.message) == ("OutOfMoneyError", "ada")
    with pytest.raises(OutOfMoneyError) as raised:
        answered(answer, ValueError, OutOfMoneyError)
    assert raised.value.owner == "ada"


@pytest.mark.parametrize(
    "error",
    [
        {"exc_type": "OutOfMoneyError", "exc_path": "elsewhere.OutOfMoneyError", "exc_args": ["ada"], "value": "x"},
        {"exc_type": "OutOfMoneyError", "exc_args": ["ada"], "value": "x"},
        {"exc_type": "OutOfMoneyError", "exc_path": f"{__name__}.OutOfMoneyError", "exc_args": [], "value": "x"},
        {"exc_type": "OutOfMoneyError", "exc_path": f"{__name__}.OutOfMoneyError", "exc_args": {"a": 1}, "value": "x"},
        {"exc_type": "OutOfMoneyError", "exc_path": f"{__name__}.OutOfMoneyError", "value": "x"},
    ],
    ids=["other-module", "no-path", "too-few", "no-array", "none"],
)
def test_an_error_that_is_not_exactly_the_listed_one_is_a_remote_error(error: dict[str, object]) -> None:
    with pytest.raises(RemoteError, match="OutOfMoneyError: x"):
        answered({"result": None, "error": error}, OutOfMoneyError)


def test_nobody_is_answered_who_did_not_ask() -> None:
    event = Envelope(subject="billing.charge")

    assert NamekoRpcProtocol().encode_reply(event, 1) is None
    assert NamekoRpcProtocol().encode_error(event, ValueError()) is None
