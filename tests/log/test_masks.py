"""What is inside of a secret is found in the log by its value, however it is written there."""

from __future__ import annotations

import base64
import json
import logging
import urllib.parse
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from kernel import Secret
from kernel._core.masks import Masks

from ._logs import captured, record, written

PLAIN = "yellow-feathers"
ODD = 'yel"low\\ feäthers/+&€'
LINES = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEAyellow\nfeathers0123456789ab\n-----END KEY-----"


def masks(*texts: str) -> Masks:
    return Masks.of(map(Secret, texts))


FORMS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: f"user={text} at h",
    "repr": lambda text: f"ValueError({text!r})",
    "repr-of-bytes": lambda text: f"{text.encode()!r}",
    "json": lambda text: json.dumps({"password": text}),
    "json-in-repr": lambda text: repr(json.dumps({"password": text})),
    "repr-in-json": lambda text: json.dumps({"error": f"ValueError({text!r})"}),
    "url": lambda text: f"amqp://h/?x={urllib.parse.quote(text, safe='')}",
    "path": lambda text: f"/x/{urllib.parse.quote(text)}",
    "form": lambda text: urllib.parse.urlencode({"x": text}),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "basic-1": lambda text: "Basic " + base64.b64encode(f"u:{text}".encode()).decode(),
    "basic-2": lambda text: "Basic " + base64.b64encode(f"us:{text}".encode()).decode(),
    "basic-3": lambda text: "Basic " + base64.b64encode(f"use:{text}".encode()).decode(),
    "in-url-base64": lambda text: base64.urlsafe_b64encode(f"{text}?>?".encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("secret", [PLAIN, ODD], ids=["plain", "odd"])
def test_a_secret_is_found_in_every_form(secret: str, form: Callable[[str], str]) -> None:
    text = form(secret)

    masked = masks(secret).applied(text)

    assert "***" in masked
    assert not any(part in masked for part in ("yellow", "feathers", "ellow-f", "low\\\\", "thers", "eWVsbG93", "ZWF0"))


ESCAPES: list[Callable[[Any], str]] = [
    repr,
    json.dumps,
    lambda value: json.dumps(value, ensure_ascii=False),
    lambda value: repr(str(value).encode(errors="surrogatepass")),
    lambda value: repr([{"value": value}]),
    lambda value: json.dumps({"value": [value]}),
]


@pytest.mark.parametrize("seed", range(20))
def test_a_secret_is_found_however_often_what_it_stands_in_was_escaped(seed: int) -> None:
    random = Random(seed)
    for _ in range(200):
        secret = "pw4aZ" + "".join(random.choices("aZ0\"\\'\n\t üé€😀/+&\x00$", k=random.randrange(3, 20)))
        text = random.choice(["", "x ", "pw=", "\\", '"', "a\n"]) + secret + random.choice(["", "; y", "\\", '"', "'"])
        escapes = random.choices(ESCAPES, k=random.randrange(6))
        for escape in escapes:
            text = escape(text)

        masked = masks(secret).applied(text)

        assert "***" in masked, (secret, text)
        assert "pw4" not in masked, (secret, text)
        if escapes and escapes[-1] in (ESCAPES[1], ESCAPES[2], ESCAPES[5]):
            json.loads(masked)


def test_a_run_of_backslashes_is_gone_through_once() -> None:
    for secret in ('\\"abcdefghijkl', '"abcdefgh"ijklm', 'üabcdefgh"ijklm\\'):
        masks(secret).applied("\\" * 1_000_000 + "abcdefghijkl abcdefghij")  # from each of them: for hours


def test_each_line_of_a_long_secret_is_one() -> None:
    masked = masks(LINES).applied(f"  {LINES.splitlines()[1]}\n    feathers0123456789ab\n")

    assert masked == "  ***\n    ***\n"


@pytest.mark.parametrize("text", ["", " ", "a", "1234", "    ", "\n\n\n\n\n\n"])
def test_a_secret_that_is_too_short_to_be_told_from_chance_masks_nothing(text: str) -> None:
    line = "2026-11-28T12:34:56.123456Z info    worker/a: a \n\n\n\n\n\n 1234"

    assert masks(text).applied(line) == line


def test_a_short_secret_is_masked_as_a_word_alone() -> None:
    assert masks("order").applied("order=order reorder orders order.created") == "***=*** reorder orders ***.created"
    assert masks("order").applied(json.dumps({"a": "\norder €order"})) == r'{"a": "\n*** \u20ac***"}'


def test_the_longest_secret_is_masked_first() -> None:
    assert masks("yellow-feathers", "yellow-feathers-of-a-canary").applied("yellow-feathers-of-a-canary") == "***"


def test_nothing_is_looked_for_without_secrets() -> None:
    line = "anything"

    assert Masks().applied(line) is line


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "say",
    [
        lambda log: log.info("with %s", PLAIN),
        lambda log: log.info("x", password=PLAIN, nested={"a": [PLAIN]}),
        lambda log: log.info("x", **{PLAIN: 1}),
        lambda log: log.error("x", exc_info=ValueError(f"no {PLAIN}")),
        lambda log: log.info("x", value="x" * 1990 + PLAIN + "x" * 1000),
        lambda log: log.error("x", exc_info=ValueError("x" * 24_900 + PLAIN + "x" * 50_000)),
    ],
    ids=["event", "value", "key", "traceback", "cut", "cut-traceback"],
)
def test_no_part_of_a_secret_is_in_the_log(say: Callable[[Any], object], as_json: bool) -> None:
    line = written(say, as_json=as_json, masks=masks(PLAIN))

    assert "***" in line
    assert not any(part in line for part in ("yellow", "feathers"))


def test_a_secret_is_masked_in_what_others_log() -> None:
    text = captured(lambda: logging.getLogger("shop").info("with %s", PLAIN), masks=masks(PLAIN))

    assert text.endswith("shop: with ***\n")


def test_json_stays_json_when_something_in_it_is_masked() -> None:
    fields = record(lambda log: log.info("x", value=f'a {ODD} "b"'), masks=masks(ODD))

    assert fields["value"] == 'a *** "b"'
