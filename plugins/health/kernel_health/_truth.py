"""What is answered to a probe: a snapshot becomes a status and a text. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, final

import attrs

from kernel import Snapshot, State

from ._config import TruthConfig

USABLE: Final = frozenset({State.READY, State.DEGRADED})
_TEXT: Final = "text/plain; charset=utf-8"
PAGE: Final = Path(__file__).with_name("page.html")
"""What a browser is shown: it asks for `status`, beside it, again and again."""
PATHS: Final = {
    "/live": "live",
    "/liveness": "live",
    "/ready": "ready",
    "/readiness": "ready",
    "/status": "status",
    "/page": "page",
}
"""Path -> what it asks for; `/liveness` and `/readiness` are what Shiva called them."""


@final
@attrs.frozen
class Answer:
    """What a client gets."""

    status: HTTPStatus
    body: bytes = attrs.field(repr=False)
    content_type: str = _TEXT


def answer(method: str, path: str, snapshot: Snapshot, config: TruthConfig) -> Answer:
    """Return the answer to a request for a path, without its prefix and query."""
    asked = PATHS.get(path)
    if asked is None or (asked == "page" and not config.page):
        return _text(HTTPStatus.NOT_FOUND, ["there are /live, /ready and /status"])
    if method not in {"GET", "HEAD"}:
        return _text(HTTPStatus.METHOD_NOT_ALLOWED, ["GET it"])
    if asked == "live":
        return _verdict("live", list(not_live(snapshot, config)))
    if asked == "ready":
        return _verdict("ready", not_ready(snapshot, config))
    if asked == "page":
        return Answer(HTTPStatus.OK, PAGE.read_bytes(), "text/html; charset=utf-8")
    return Answer(HTTPStatus.OK, json.dumps(status(snapshot, config)).encode(), "application/json")


def not_live(snapshot: Snapshot, config: TruthConfig) -> Iterator[str]:
    """Yield why the process is stuck, if it is."""
    if snapshot.busy > config.stall:
        yield f"the event loop is blocked for {snapshot.busy:.1f} s at {snapshot.blocked_at or 'unknown'}"


def not_ready(snapshot: Snapshot, config: TruthConfig) -> list[str]:
    """Return why no work may be sent now, if none may."""
    against = list(_against(snapshot, config))
    return against or ([] if snapshot.is_ready else ["the service starts"])


def _against(snapshot: Snapshot, config: TruthConfig) -> Iterator[str]:
    if snapshot.is_stopping:
        yield f"stopping: {snapshot.reason}"
    if snapshot.blocked_at:
        yield f"the event loop is blocked for {snapshot.busy:.1f} s at {snapshot.blocked_at}"
    if not snapshot.is_ready:
        for one in snapshot.components:
            if one.essential and one.state not in USABLE | {State.STOPPED}:
                waits = f", waits for {', '.join(one.waits_for)}" if one.waits_for else ""
                after = f", after {one.error}" if one.error and one.state is State.BACKOFF else ""
                yield f"{one.id} is {one.state.value}{f': {one.reason}' if one.reason else ''}{after}{waits}"
    for one in snapshot.components:
        if one.essential and one.state is State.DEGRADED:
            if not config.degraded_is_ready:
                yield f"{one.id} is degraded: {one.reason}"
            elif one.id.startswith("driver/") and one.seconds > config.degraded_timeout:
                yield f"{one.id} is degraded for {one.seconds:.0f} s, more than degraded_timeout: {one.reason}"


def status(snapshot: Snapshot, config: TruthConfig) -> dict[str, Any]:
    """Return a service as plain values."""
    plain = attrs.asdict(snapshot, value_serializer=_plain)
    live = not list(not_live(snapshot, config))
    ready = not not_ready(snapshot, config)
    return {"service": plain.pop("service"), "live": live, "ready": ready, **plain}


def _plain(_instance: object, _attribute: object, value: object) -> object:
    return value.value if isinstance(value, State) else round(value, 3) if isinstance(value, float) else value


def _verdict(word: str, against: list[str]) -> Answer:
    if against:
        return _text(HTTPStatus.SERVICE_UNAVAILABLE, [f"not {word}", *against])
    return _text(HTTPStatus.OK, [word])


def in_words(word: str, *, is_so: bool, reasons: list[str]) -> Answer:
    """Return a verdict with what speaks against it, also where it is for."""
    if is_so:
        return _text(HTTPStatus.OK, [word, *reasons])
    return _verdict(word, reasons or ["no process is there"])


def _text(code: HTTPStatus, lines: list[str]) -> Answer:
    return Answer(code, "".join(f"{line}\n" for line in lines).encode(errors="replace"))
