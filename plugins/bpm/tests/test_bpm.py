"""What is written is byte for byte what Shiva writes, as its own `RoutedPublisher` printed it at one moment."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import pytest
from kernel_bpm import BpmConfig, BpmProtocol, Routed

from kernel import Arguments, Envelope, Message
from kernel.errors import DecodeError, EncodeError, RemoteError
from kernel.testing import fake_context

ID: Final = "de897640-1439-4eeb-a2a9-da14f081f55e"
NOW: Final = datetime(2021, 3, 10, 11, 0, 26, 816493, tzinfo=UTC)

PUBLISHED: Final = (
    '{"system_from":"catalog","system_to":"bpm","object":"location","action":"all","reference_id":"71967781",'
    '"message_id":"de897640-1439-4eeb-a2a9-da14f081f55e",'
    '"params":{"data":[{"id":"T_CN","name":"Гуанчжоу"}],"a":1.5},'
    '"priority":1,"api_version":"1.0","datetime_created":"2021-03-10T11:00:26"}'
).encode()
"""`publish("bpm", "location", "all", {"data": [...], "a": 1.5}, reference_id="71967781")`."""

PLAIN: Final = (
    b'{"system_from":"catalog","system_to":"bpm","object":"location","action":"all",'
    b'"reference_id":"de897640-1439-4eeb-a2a9-da14f081f55e","message_id":"de897640-1439-4eeb-a2a9-da14f081f55e",'
    b'"params":{},"priority":1,"api_version":"1.0","datetime_created":"2021-03-10T11:00:26"}'
)
"""`publish("bpm", "location", "all")`."""

REQUEST: Final = (
    b'{"system_from":"catalog","system_to":"bpm","object":"location","action":"all","reference_id":"71967781",'
    b'"message_id":"m-1","params":{"a":1},"priority":1,"api_version":"1.0","datetime_created":"2021-03-10T11:00:26"}'
)

REPLY: Final = (
    b'{"system_from":"bpm","system_to":"catalog","object":"location","action":"all_reply","reference_id":"71967781",'
    b'"message_id":"de897640-1439-4eeb-a2a9-da14f081f55e",'
    b'"params":{"status":{"success":true,"request_id":"m-1","errors":[]},"stored":2,"ok":true},'
    b'"priority":1,"api_version":"1.0","datetime_created":"2021-03-10T11:00:26"}'
)
"""`publish_reply({"stored": 2, "ok": True})` to `REQUEST`."""

REPLY_WITH_STATUS: Final = (
    b'{"system_from":"bpm","system_to":"catalog","object":"location","action":"all_reply","reference_id":"71967781",'
    b'"message_id":"de897640-1439-4eeb-a2a9-da14f081f55e","params":{"status":"own"},'
    b'"priority":1,"api_version":"1.0","datetime_created":"2021-03-10T11:00:26"}'
)
"""`publish_reply({"status": "own"})` to `REQUEST`."""

FAILED: Final = (
    b'{"system_from":"bpm","system_to":"catalog","object":"location","action":"all_reply","reference_id":"71967781",'
    b'"message_id":"de897640-1439-4eeb-a2a9-da14f081f55e",'
    b'"params":{"status":{"success":false,"request_id":"m-1","errors":["no"]}},'
    b'"priority":1,"api_version":"1.0","datetime_created":"2021-03-10T11:00:26"}'
)
"""`publish_reply({}, success=False, errors=["no"])` to `REQUEST`."""


def protocol(**config: str) -> BpmProtocol:
    """Return a protocol at that moment, with that id."""
    return BpmProtocol(config=BpmConfig(system="catalog", **config), now=lambda: NOW, new_id=lambda: ID)


def published(payload: object, subject: str = "location.all", **config: str) -> Envelope:
    return protocol(**config).encode(Message(subject=subject, payload=payload))


def request(body: bytes = REQUEST, reply_to: str = "") -> Envelope:
    return Envelope(subject="elsewhere", body=body, reply_to=reply_to, correlation_id="c-1")


# --- publishing -------------------------------------------------------------------------------------------------


def test_a_message_is_written_as_shiva_writes_it() -> None:
    params = {"data": [{"id": "T_CN", "name": "Гуанчжоу"}], "a": 1.5}

    sent = published(Routed(system_to="bpm", params=params, reference_id="71967781"))

    assert (sent.subject, sent.body) == ("location.all", PUBLISHED)
    assert (sent.content_type, dict(sent.headers), sent.id) == ("", {}, ID)


@pytest.mark.parametrize("payload", [{}, None, Routed(), Arguments()], ids=repr)
def test_without_params_it_refers_to_itself(payload: object) -> None:
    assert published(payload, system_to="bpm").body == PLAIN


def test_a_route_key_of_its_own_changes_where_it_goes_and_not_what_it_says() -> None:
    sent = published(Routed(system_to="bpm", route_key="other.key"))

    assert (sent.subject, sent.body) == ("other.key", PLAIN)


def test_a_reply_can_be_published_by_hand() -> None:
    by_hand = Routed(system_to="catalog", reference_id="71967781", request_id="m-1", params={"stored": 2, "ok": True})

    sent = BpmProtocol(config=BpmConfig(system="bpm"), now=lambda: NOW, new_id=lambda: ID).encode(
        Message(subject="location.all_reply", payload=by_hand)
    )

    assert sent.body == REPLY


def test_the_service_is_the_system_where_none_is_configured() -> None:
    sent = BpmProtocol(context=fake_context(service="shop")).encode(Message(subject="a.b", payload={}))

    assert b'"system_from":"shop"' in sent.body


def test_every_message_has_an_id_and_a_time_of_its_own() -> None:
    first, second = (BpmProtocol().encode(Message(subject="a.b", payload={})) for _ in range(2))

    assert first.id != second.id
    assert first.id.encode() in first.body


def test_arguments_by_name_are_the_params() -> None:
    assert published(Arguments(kwargs={"count": 3})).body == published({"count": 3}).body
    assert b'"params":{"args":[1],"kwargs":{"count":3}}' in published(Arguments((1,), {"count": 3})).body


@pytest.mark.parametrize("subject", ["shiva", "", ".bench", "shiva."])
def test_a_subject_without_object_and_action_is_refused(subject: str) -> None:
    with pytest.raises(EncodeError, match=r'must be "<object>\.<action>"'):
        published({}, subject)


@pytest.mark.parametrize("payload", [1, "text", [1], Routed(params=[1])], ids=repr)
def test_params_must_be_an_object(payload: object) -> None:
    with pytest.raises(EncodeError, match="params must be written as an object"):
        published(payload)


def test_success_without_a_request_is_refused_rather_than_lost() -> None:
    with pytest.raises(EncodeError, match="say request_id too"):
        published(Routed(success=False, errors=["no"]))


# --- replies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "body"),
    [
        ({"stored": 2, "ok": True}, REPLY),
        ({"status": "own"}, REPLY_WITH_STATUS),
        (Routed(success=False, errors=["no"]), FAILED),
    ],
    ids=["dict", "status", "failed"],
)
def test_a_reply_is_written_as_shiva_writes_it(result: object, body: bytes) -> None:
    reply = protocol().encode_reply(request(), result)

    assert reply is not None
    assert (reply.subject, reply.body) == ("location.all_reply", body)


@pytest.mark.parametrize("result", [None, {}, "", 0, False], ids=repr)
def test_an_empty_result_is_no_reply(result: object) -> None:
    assert protocol().encode_reply(request(), result) is None


def test_an_empty_result_is_a_reply_to_who_waits_for_one() -> None:
    reply = protocol().encode_reply(request(reply_to="replies"), None)

    assert reply is not None
    assert (reply.subject, reply.correlation_id) == ("replies", "c-1")
    assert protocol().decode_reply(reply) == {}


def test_a_reply_to_a_request_that_says_little_says_who_replies_and_null() -> None:
    reply = protocol().encode_reply(request(b'{"object":"a","action":"b","params":{}}'), {"x": 1})

    assert reply is not None
    assert reply.body.startswith(b'{"system_from":"catalog","system_to":null,"object":"a","action":"b_reply"')


def test_a_result_that_is_no_object_is_refused() -> None:
    with pytest.raises(EncodeError, match="params must be written as an object"):
        protocol().encode_reply(request(), [1])


def test_nobody_is_told_of_an_error_who_did_not_ask() -> None:
    assert protocol().encode_error(request(), ValueError("x")) is None


@pytest.mark.parametrize("body", [REQUEST, b"{"], ids=["request", "unreadable"])
def test_an_error_is_told_in_the_status(body: bytes) -> None:
    reply = protocol().encode_error(request(body, reply_to="replies"), ValueError("bad: worse"))

    assert reply is not None
    assert b'"success":false' in reply.body
    with pytest.raises(RemoteError) as raised:
        protocol().decode_reply(reply)
    assert (raised.value.kind, raised.value.message) == ("ValueError", "bad: worse")


@pytest.mark.parametrize(
    ("errors", "text"), [(b'["no","never"]', "no; never"), (b"[]", ""), (b"7", "")], ids=["two", "none", "number"]
)
def test_a_failed_reply_of_anybody_is_a_remote_error(errors: bytes, text: str) -> None:
    body = FAILED.replace(b'["no"]', errors)

    with pytest.raises(RemoteError) as raised:
        protocol().decode_reply(request(body))
    assert (raised.value.kind, raised.value.message) == ("Error", text)


# --- reading ----------------------------------------------------------------------------------------------------


def test_the_subject_is_that_of_the_body_and_not_the_routing_key() -> None:
    message = protocol().decode(request())

    assert (message.subject, message.payload) == ("location.all", {"a": 1})


def test_a_reply_that_is_consumed_has_its_status() -> None:
    message = protocol().decode(request(REPLY))

    assert message.subject == "location.all_reply"
    assert message.payload == {
        "status": {"success": True, "request_id": "m-1", "errors": []},
        "stored": 2,
        "ok": True,
    }


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[]", "not an object"),
        (b'{"action":"b","params":{}}', '"object" of the body'),
        (b'{"object":1,"action":"b","params":{}}', '"object" of the body'),
        (b'{"object":"a","action":"","params":{}}', '"action" of the body'),
        (b'{"object":"a","action":"b"}', 'no "params"'),
        (b'{"object":"a","object":"b","action":"b","params":{}}', "occurs twice"),
        (b"[" * 100_000, "max_depth"),
        (b"\xff", "not UTF-8"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_message_of_shiva_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        protocol().decode(request(body))
