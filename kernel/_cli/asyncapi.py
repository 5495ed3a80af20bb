"""What a service takes and gives as an AsyncAPI document, version 3.0.0, whose schemas are of draft 07.

A channel is a subject, an operation is a component that takes or sends it, and a message is what is sent or answered.
Source: AsyncAPI Specification 3.0.0.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

from .._convert.strict import is_array, is_table
from .._core.spec import Plan
from .said import Definitions, Said, result_schema, said, sent_schema

Json: TypeAlias = dict[str, Any]

_VERSION: Final = "3.0.0"
_UNVERSIONED: Final = "0.0.0"
"""A manifest has no version, and a document must have one."""
_WILD: Final = {"*": "one word", "#": "any number of words, joined by dots"}


def contracts_as_asyncapi(plan: Plan) -> Json:
    """Return the document of a service."""
    definitions = Definitions("#/components/schemas/")
    document: Json = {
        "asyncapi": _VERSION,
        "info": {"title": plan.name, "version": _UNVERSIONED},
        "channels": {},
        "operations": {},
        "components": {"messages": {}, "schemas": {}},
    }
    for one in said(plan):
        _add(document, one, definitions)
    document["components"]["schemas"] = {name: _draft_07(schema) for name, schema in definitions.found.items()}
    return document


def _add(document: Json, one: Said, definitions: Definitions) -> None:
    kind, name = one.component.split("/", 1)
    subject = name if one.subject is None else one.subject
    operation = _free(document["operations"], f"{'receive' if one.takes else 'send'}.{name}.{subject}")
    channel = _channel(document["channels"], one, subject)
    message = _message(document, operation, _payload(one, definitions), one.summary)
    made: Json = {
        "action": "receive" if one.takes else "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [_put(document, channel, message)],
        "x-kernel": {"component": f"{kind}/{name}", "by": one.by},
    }
    if one.summary:
        made["summary"] = one.summary
    if one.is_answered:
        answer = _message(document, f"{operation}.reply", _draft_07(result_schema(one, definitions)), "")
        back = _free(document["channels"], f"{operation}.reply")
        document["channels"][back] = {"address": None, "messages": {}}
        made["reply"] = {"channel": {"$ref": f"#/channels/{back}"}, "messages": [_put(document, back, answer)]}
    document["operations"][operation] = made


def _payload(one: Said, definitions: Definitions) -> Json:
    made: Json = _draft_07(sent_schema(one, definitions))
    return made


def _channel(channels: Json, one: Said, subject: str) -> str:
    """Return the key of the channel of a subject, which all share that take or send it."""
    address = None if one.subject is None else _address(subject)
    for key, channel in channels.items():
        if address is not None and channel["address"] == address[0]:
            return str(key)
    key = _free(channels, subject)
    channels[key] = {"address": address[0] if address else None, "messages": {}}
    if address and address[1]:
        channels[key]["parameters"] = address[1]
    return key


def _address(pattern: str) -> tuple[str, Json]:
    """Return a pattern as an address with parameters in the place of its wildcards."""
    words: list[str] = []
    parameters: Json = {}
    for number, word in enumerate(pattern.split("."), 1):
        if word in _WILD:
            parameters[f"word{number}"] = {"description": _WILD[word]}
        words.append(f"{{word{number}}}" if word in _WILD else word)
    return ".".join(words), parameters


def _message(document: Json, name: str, payload: Json, summary: str) -> str:
    messages = document["components"]["messages"]
    key = _free(messages, name)
    messages[key] = {"name": key, "payload": payload} | ({"summary": summary} if summary else {})
    return key


def _put(document: Json, channel: str, message: str) -> Json:
    """Put a message into a channel, and return what refers to it there."""
    document["channels"][channel]["messages"][message] = {"$ref": f"#/components/messages/{message}"}
    return {"$ref": f"#/channels/{channel}/messages/{message}"}


def _free(taken: Json, wanted: str) -> str:
    """Return a key that may stand in a reference, and that nothing has yet."""
    base = re.sub(r"[^\w.-]", "_", wanted.replace("*", "any").replace("#", "all"), flags=re.ASCII)
    key, number = base, 1
    while key in taken:
        number += 1
        key = f"{base}_{number}"
    return key


def _draft_07(value: Any) -> Any:  # noqa: ANN401  JSON
    """Return a schema of 2020-12 as draft 07 has it, which is what AsyncAPI reads by default."""
    if is_array(value):
        return [_draft_07(item) for item in value]
    if not is_table(value):
        return value
    made: Json = {key: _draft_07(item) for key, item in value.items()}
    if isinstance(made.get("prefixItems"), list):
        rest = made.pop("items", None)
        made["items"] = made.pop("prefixItems")
        made |= {} if rest is None else {"additionalItems": rest}
    if "propertyName" in (made.get("discriminator") or ()):  # of OpenAPI; the options say it all
        del made["discriminator"]
    return made
