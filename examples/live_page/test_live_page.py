"""The page in a real browser: it calls, it shows what others do, and it comes back after a stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import open_websocket_url

from kernel import Listening

MANIFEST = Path(__file__).with_name("kernel.toml")
ROWS = "[...document.querySelectorAll('tbody tr')]"
LEFT = f"Object.fromEntries({ROWS}.map(row => [row.cells[0].innerText, row.cells[1].innerText]))"
SAID = "document.getElementById('said').innerText"
pytestmark = pytest.mark.slow
OpenBrowser = Callable[[], AbstractContextManager[Any]]


def at(address: str) -> dict[str, dict[str, Any]]:
    return {"dispatchers.web": {"plugin": "web", "bind": address}}


async def take(url: str, sku: str) -> Any:
    """Call as somebody else would."""
    async with open_websocket_url(url) as socket:
        await socket.send_message(json.dumps({"jsonrpc": "2.0", "method": "shelf.take", "params": [sku], "id": 1}))
        return json.loads(await socket.get_message())["result"]


async def test_a_page_calls_and_is_told_what_others_take(open_kernel: Any, open_browser: OpenBrowser) -> None:
    run = trio.to_thread.run_sync
    with open_browser() as page:
        async with open_kernel(MANIFEST, replace=at("127.0.0.1:0")) as service:
            address = (await service.wait_event(Listening)).address
            await run(lambda: page.call("Page.navigate", url=address + "/"))
            await run(page.wait, f"({LEFT}).tea === '3'")
            await run(page.run, "document.querySelector('button').click()")
            await run(page.wait, f"{SAID} === 'you have taken one tea, and leave 2'")
            assert await take(address.replace("http", "ws") + "/calls", "tea") == 1
            await run(page.wait, f"({LEFT}).tea === '1'")
            assert [await take(address.replace("http", "ws") + "/calls", "oil") for _ in range(3)] == [2, 1, 0]
            await run(page.run, "document.querySelectorAll('button')[1].click()")
            await run(page.wait, f"{SAID} === 'there are 0 of oil'")
        await run(page.wait, f"{SAID} === 'the connection is lost'")

        async with open_kernel(MANIFEST, replace=at(address.removeprefix("http://"))):
            await run(page.wait, f"{SAID} === 'connected' && ({LEFT}).tea === '3'")
