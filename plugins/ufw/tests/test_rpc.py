"""Calls: requests, answers and errors, as micro-framework 2.0.16 and 2.1.1 write and read them."""

from __future__ import annotations

import json

import pytest
from kernel_ufw import TargetNotFoundError, UfwRpcConfig, UfwRpcProtocol

from kernel import Arguments, Envelope, Message
from kernel.errors import ArgumentsError, DecodeError, EncodeError, NoWorkerError, RemoteError

REQUEST = Envelope(subject="my_service.Class.method", reply_to="ufw-reply-1", correlation_id="c-1")
NO_TARGET = "Class.method does not exist or is not exposed through a RPC method."

# Printed by `format_rpc_command` and `format_rpc_response` of micro-framework, the answers as kombu then writes them.
COMMAND = rb"""{"command": "Class.method", "command_args": [1, "\u00e9"], "command_kwargs": {"b": [2]}}"""
DATA = rb'''"{\"data\": {\"a\": 1}, \"exception\": null}"'''
OLD_ERROR = rb'''"{\"data\": null, \"exception\": {\"exception\": \"KeyError\", \"message\": \"'k'\"}}"'''
ERROR = OLD_ERROR.replace(b"}}", rb""", \"args\": [\"k\"], \"kwargs\": {}, \"module\": null}}""")
OLD_NO_TARGET = (
    rb'''"{\"data\": null, \"exception\": {\"exception\": \"RPCTargetDoesNotExist\", \"message\": \"x\"}}"'''
)


class OutOfMoneyError(Exception):
    def __init__(self, owner: str, *, missing: int = 0) -> None:
        super().__init__(owner)
        self.owner, self.missing = owner, missing


class TextlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def decoded(body: bytes, subject: str = "my_service.Class.method") -> Message:
    return UfwRpcProtocol().decode(Envelope(subject=subject, body=body, content_type="application/json"))


def answered(body: bytes, *exceptions: type[Exception]) -> object:
    protocol = UfwRpcProtocol(config=UfwRpcConfig(exceptions=exceptions))
    return protocol.decode_reply(Envelope(subject="ufw-reply-1", body=body))


def told(error: Exception) -> Envelope:
    """Return the answer that tells of an error."""
    reply = UfwRpcProtocol().encode_error(REQUEST, error)
    assert reply is not None
    return reply


def written(error: Exception) -> dict[str, object]:
    """Return what an answer says of an error."""
    answer: dict[str, dict[str, object]] = json.loads(json.loads(told(error).body))
    assert answer["data"] is None
    return answer["exception"]


# --- requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [COMMAND, json.dumps(COMMAND.decode()).encode()], ids=["object", "in-a-string"])
def test_a_request_is_arguments(body: bytes) -> None:
    message = decoded(body)

    assert (message.subject, message.payload) == ("my_service.Class.method", Arguments((1, "é"), {"b": [2]}))


def test_a_request_may_leave_out_its_arguments() -> None:
    assert decoded(b'{"command":"Class.method"}').payload == Arguments()


def test_a_request_without_a_routing_key_is_about_its_command() -> None:
    assert decoded(COMMAND, subject="").subject == "Class.method"


def test_a_request_is_written_as_micro_framework_reads_it() -> None:
    sent = UfwRpcProtocol().encode(Message(subject=REQUEST.subject, payload=Arguments((1, "é"), {"b": [2]})))

    assert (sent.subject, sent.content_type) == ("my_service.Class.method", "application/json")
    assert json.loads(sent.body) == json.loads(COMMAND)
    assert list(json.loads(sent.body)) == list(json.loads(COMMAND))


@pytest.mark.parametrize(
    "subject", ["my_service.__list_targets__", "my_service._broadcast.__list_targets__"], ids=["short", "long"]
)
def test_a_command_about_targets_goes_where_every_process_listens(subject: str) -> None:
    sent = UfwRpcProtocol().encode(Message(subject=subject, payload=Arguments()))

    assert sent.subject == "my_service._broadcast.__list_targets__"
    assert json.loads(sent.body)["command"] == "__list_targets__"
    assert UfwRpcProtocol().decode(sent).subject == sent.subject


@pytest.mark.parametrize(("payload", "args", "kwargs"), [({"b": 2}, [], {"b": 2}), ([1], [1], {}), ((), [], {})])
def test_an_object_or_an_array_is_arguments_too(payload: object, args: object, kwargs: object) -> None:
    body = json.loads(UfwRpcProtocol().encode(Message(subject="s.t", payload=payload)).body)

    assert (body["command_args"], body["command_kwargs"]) == (args, kwargs)


@pytest.mark.parametrize(("subject", "payload"), [("s.t", "text"), ("s.t", None), ("s", ()), ("s.", ()), (".t", ())])
def test_what_names_no_target_or_is_no_arguments_is_refused(subject: str, payload: object) -> None:
    with pytest.raises(EncodeError):
        UfwRpcProtocol().encode(Message(subject=subject, payload=payload))


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"command":1}',
        b'{"command":"Class.method","command_args":{}}',
        b'{"command":"Class.method","command_kwargs":[]}',
        b'{"command":"Class.other"}',
        b'"{"',
        b'"\\"{}\\""',
    ],
    ids=repr,
)
def test_a_malformed_request_is_told_as_one(body: bytes) -> None:
    with pytest.raises(DecodeError) as raised:
        decoded(body)

    error = written(raised.value)
    assert (error["exception"], error["module"]) == ("RPCMalformedMessage", "micro_framework.exceptions")


# --- answers ----------------------------------------------------------------------------------------------------


def test_a_result_is_json_in_a_string_of_json() -> None:
    reply = UfwRpcProtocol().encode_reply(REQUEST, {"a": 1})

    assert reply is not None
    assert (reply.subject, reply.correlation_id, reply.content_type) == ("ufw-reply-1", "c-1", "application/json")
    assert reply.body == rb'"{\"data\":{\"a\":1},\"exception\":null}"'


@pytest.mark.parametrize("body", [DATA, json.loads(DATA).encode()], ids=["twice", "once"])
def test_a_result_comes_back(body: bytes) -> None:
    assert answered(body) == {"a": 1}


@pytest.mark.parametrize(
    "body", [b"1", b"[]", b"{}", b'"x"', b'"{}"', b'{"exception":1}', b'{"exception":{}}'], ids=repr
)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        answered(body)


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "name", "message", "args", "module"),
    [
        (KeyError("k"), "KeyError", "'k'", ["k"], None),
        (ValueError("bad", 3), "ValueError", "('bad', 3)", ["bad", 3], None),
        (json.JSONDecodeError("m", "doc", 0), "JSONDecodeError", "m: line 1 column 1 (char 0)", None, "json.decoder"),
        (ArgumentsError(["b: is missing"]), "TypeError", "b: is missing", ["b: is missing"], None),
        (NoWorkerError("x"), "RPCTargetDoesNotExist", NO_TARGET, [NO_TARGET], "micro_framework.exceptions"),
        (TargetNotFoundError("x"), "RPCTargetDoesNotExist", "x", ["x"], "micro_framework.exceptions"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_told_in_the_words_of_micro_framework(
    error: Exception, name: str, message: str, args: object, module: str | None
) -> None:
    found = written(error)

    assert list(found) == ["exception", "message", "args", "kwargs", "module"]
    assert (found["exception"], found["message"], found["module"]) == (name, message, module)
    assert found["args"] == (args or [message])


@pytest.mark.parametrize("body", [OLD_ERROR, ERROR], ids=["2.0", "2.1"])
def test_an_error_of_either_version_is_a_remote_error_unless_it_is_listed(body: bytes) -> None:
    with pytest.raises(RemoteError, match="KeyError: 'k'"):
        answered(body)
    with pytest.raises(KeyError):
        answered(body, ValueError, KeyError)


def test_an_error_without_its_class_here_is_a_remote_error() -> None:
    with pytest.raises(RemoteError, match="RPCTargetDoesNotExist: x"):
        answered(OLD_NO_TARGET, KeyError)


def test_an_error_of_ones_own_comes_back_as_itself() -> None:
    with pytest.raises(OutOfMoneyError) as raised:
        answered(told(OutOfMoneyError("ada")).body, OutOfMoneyError)

    assert raised.value.owner == "ada"


@pytest.mark.parametrize(
    ("changed", "missing"),
    [({"kwargs": {"missing": 3}}, 3), ({"args": [], "kwargs": {"owner": "ada"}}, 0)],
    ids=["by-name", "only-by-name"],
)
def test_arguments_by_name_make_an_error_again(changed: dict[str, object], missing: int) -> None:
    body = {"data": None, "exception": {**written(OutOfMoneyError("ada")), **changed}}

    with pytest.raises(OutOfMoneyError) as raised:
        answered(json.dumps(body).encode(), OutOfMoneyError)
    assert (raised.value.owner, raised.value.missing) == ("ada", missing)


@pytest.mark.parametrize(
    "changed",
    [{"module": "elsewhere"}, {"module": None}, {"args": []}, {"args": {"a": 1}}, {"kwargs": {"other": 1}}],
    ids=["module", "no-module", "too-few", "no-array", "other-name"],
)
def test_an_error_that_is_not_exactly_the_listed_one_is_a_remote_error(changed: dict[str, object]) -> None:
    body = {"data": None, "exception": {**written(OutOfMoneyError("ada")), **changed}}

    with pytest.raises(RemoteError, match="OutOfMoneyError: ada"):
        answered(json.dumps(body).encode(), OutOfMoneyError)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(float("nan"), 10**5000, "\ud800", b"\xff"),
        ValueError([[[[[1]]]]]),
        ValueError("x" * 10**6),
        TextlessError(),
    ],
    ids=["odd", "deep", "long", "textless"],
)
def test_any_error_can_be_told(error: Exception) -> None:
    with pytest.raises(RemoteError):
        answered(told(error).body)


def test_a_result_that_cannot_be_written_is_named() -> None:
    with pytest.raises(EncodeError, match=r"payload\.data\.a: object cannot be written"):
        UfwRpcProtocol().encode_reply(REQUEST, {"a": object()})


def test_nobody_is_answered_who_did_not_ask() -> None:
    event = Envelope(subject="s.t")

    assert UfwRpcProtocol().encode_reply(event, 1) is None
    assert UfwRpcProtocol().encode_error(event, ValueError()) is None
