"""What several processes of a service answer together: each tells what it would say, and whoever is asked says all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from kernel.abc import Context

from ._config import TruthConfig
from ._truth import PATHS, Answer, answer, in_words, not_live, not_ready, status


def truth_of_one(context: Context, config: TruthConfig) -> str:
    """Return what a process tells the others of itself."""
    snapshot = context.snapshot()
    told = status(snapshot, config)
    return json.dumps({**told, "not_live": list(not_live(snapshot, config)), "not_ready": not_ready(snapshot, config)})


def answer_of_all(method: str, path: str, context: Context, config: TruthConfig) -> Answer:
    """Return the answer to a request for a path; it waits for a second at most, for processes that do not tell.

    Live is a service of which no process is stuck, and ready one of which at least one process is.
    """
    asked, crew = PATHS.get(path), context.crew
    if crew.size == 1 or method not in {"GET", "HEAD"} or asked not in {"live", "ready", "status"}:
        return answer(method, path, context.snapshot(), config)
    told = {number: json.loads(text) for number, text in crew.collect(context.id).items()}
    if asked == "status":
        return Answer(HTTPStatus.OK, json.dumps(_status(context, told)).encode(), "application/json")
    reasons = _reasons(told, f"not_{asked}", crew.size)
    is_so = not reasons if asked == "live" else any(one["ready"] for one in told.values())
    return in_words(asked, is_so=is_so, reasons=reasons)


def _reasons(told: Mapping[int, Any], key: str, size: int) -> list[str]:
    reasons = [f"process {number}: {text}" for number, one in sorted(told.items()) for text in one[key]]
    if key == "not_ready":
        reasons += [f"process {number}: is not there" for number in range(size) if number not in told]
    return reasons


def _status(context: Context, told: Mapping[int, Any]) -> dict[str, Any]:
    return {
        "service": context.service,
        "live": all(one["live"] for one in told.values()),
        "ready": any(one["ready"] for one in told.values()),
        "processes": {str(number): one for number, one in sorted(told.items())},
    }
