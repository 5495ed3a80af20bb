"""The example of the README does what the README says, as it is printed there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
import trio

from kernel import Ack, DeliverySettled, State
from kernel.testing import open_kernel

from ._cluster import PASSWORD, Cluster

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
async def test_the_example_does_what_it_says(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.query("DROP TABLE IF EXISTS kernel_outbox, kernel_inbox, stock")
    for name, content in re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)^```", README, re.DOTALL | re.MULTILINE):
        (tmp_path / name).write_text(content, encoding="utf-8")
    address = cluster.dsn.replace("tester@", f"tester:{quote(PASSWORD)}@")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    printed = ""
    async with open_kernel(tmp_path / "kernel.toml", environ={"SHOP_DSN": address}) as service:
        with trio.fail_after(20):
            while printed.count("carried tea, ") < 2:
                await trio.sleep(0.05)
                printed += capsys.readouterr().out
        states = {one.state for one in service.kernel.snapshot().components}
        outcomes = [event.outcome for event in service.events if isinstance(event, DeliverySettled)]
        [relay] = [one for one in service.kernel.snapshot().components if one.id == "worker/relay"]

    assert "carried tea, 999 left" in printed
    assert states <= {State.READY, State.STOPPED}
    assert set(map(type, outcomes)) == {Ack}
    assert relay.backlog is not None
    assert relay.backlog.failed == 0
