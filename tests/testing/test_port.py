"""Ports for servers that have to be told their own."""

from __future__ import annotations

import random
import secrets
import socket

import pytest

from kernel.testing import _port, free_port


def test_whoever_asks_the_system_for_any_port_never_gets_one_of_these() -> None:
    ours = [free_port() for _ in range(200)]

    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_connection(one.getsockname()) as other:
        handed_out = {one.getsockname()[1], other.getsockname()[1]}

    assert max(ours) < min(handed_out)
    assert len(set(ours)) == len(ours)


def test_processes_whose_tests_have_one_seed_get_others() -> None:
    drawn: list[list[int]] = []
    for _ in range(2):
        random.seed(1)
        drawn.append([free_port() for _ in range(20)])

    assert drawn[0] != drawn[1]


def test_one_that_somebody_has_or_got_before_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = free_port(), free_port()
    monkeypatch.setattr(_port, "_given", set[int]())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        offered = iter([taken.getsockname()[1], first, first, second])
        monkeypatch.setattr(secrets, "choice", lambda _: next(offered))

        assert [free_port(), free_port()] == [first, second]


def test_if_none_is_free_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(secrets, "choice", lambda _: taken.getsockname()[1])

        with pytest.raises(OSError, match="none of 100 ports from 20000 to 31999 is free"):
            free_port()
