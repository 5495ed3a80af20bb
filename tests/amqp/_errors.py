"""Finds in what a service failed with the error that is the cause."""

from __future__ import annotations


def cause_of(error: BaseException, kind: type[BaseException]) -> BaseException:
    """Return the error of that type, however deep it lies."""
    pending: list[BaseException] = [error]
    for one in pending:
        if isinstance(one, kind):
            return one
        below = (*getattr(one, "exceptions", ()), one.__cause__, one.__context__)
        pending += [cause for cause in below if cause is not None and cause not in pending]
    raise AssertionError(f"no {kind.__name__} in {error!r}")
