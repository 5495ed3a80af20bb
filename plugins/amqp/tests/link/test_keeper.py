from __future__ import annotations

from typing import Any, cast

import pytest
from kernel_amqp.link.keeper import Keeper

NOTHING = cast("Any", None)


def keeper(*, initial: float, most: float) -> Keeper:
    return Keeper("the connection", NOTHING, NOTHING, NOTHING, initial, most, lambda: None)


@pytest.mark.parametrize(("failures", "most"), [(0, 0.5), (1, 0.5), (2, 1.0), (3, 2.0), (9, 10.0), (10_000, 10.0)])
def test_each_try_to_connect_again_waits_for_a_time_of_chance_also_the_first(failures: int, most: float) -> None:
    waits = [keeper(initial=0.5, most=10.0)._wait(failures) for _ in range(400)]

    assert 0 <= min(waits) < 0.1 * most
    assert 0.9 * most < max(waits) <= most
