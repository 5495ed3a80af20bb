"""What comes back from a process of a pool, as the service sees it."""

from __future__ import annotations

import logging
import pickle
from typing import cast

from ._child import Answer


def answer_of(data: bytes) -> Answer:
    """Return the answer that a process of ours has written; log here what was logged there."""
    answer = cast("Answer", pickle.loads(data))
    for name, level, text in answer.records:
        logging.getLogger(name).log(level, "%s", text)
    return answer


def failure_of(answer: Answer) -> str:
    """Return what was raised, in a line; empty if nothing was."""
    if answer.unwritable:
        return answer.unwritable
    return "" if answer.error is None else f"{type(answer.error).__name__}: {answer.error}"
