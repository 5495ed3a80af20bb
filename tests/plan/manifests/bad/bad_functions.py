"""Filters and translators with one fault each, and good ones for manifests whose fault lies elsewhere."""

from __future__ import annotations

from functools import partial


def wants(payload: object) -> bool:
    return bool(payload)


def wants_two(payload: object, other: object) -> bool:
    return bool(payload) and bool(other)


def wants_nothing() -> bool:
    return False


def wants_named(*, payload: object) -> bool:
    return bool(payload)


async def waits(payload: object) -> bool:
    return bool(payload)


def yields(payload: object):  # noqa: ANN201
    yield payload


async def yields_later(payload: object):  # noqa: ANN201
    yield payload


class Order:
    def __init__(self, payload: object) -> None: ...


class Waiting:
    async def __call__(self, payload: object) -> bool:
        return bool(payload)


waiting = Waiting()
number = 3
by_half = partial(wants_two, other=True)
in_c = max  # it does not say what it takes
