"""The page in a real browser: what it shows, that it moves, and that everybody can use it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from kernel_health import HealthConfig
from kernel_health._server import ProbeServer
from kernel_health._truth import PAGE, answer

from kernel import ComponentSnapshot, Snapshot, State
from kernel._manifest.registry import Registry, discover
from kernel.testing import open_kernel

from ._browser import CHROMIUM, Browser, browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
SCREENSHOT = Path(__file__).parents[3] / "docs" / "page.png"
CONFIG = HealthConfig(page=True)
CANARY = "yellow-feathers"


def component(id_: str, state: State = State.READY, **more: Any) -> ComponentSnapshot:
    return ComponentSnapshot(id=id_, state=state, **{"seconds": 4210.0, **more})


READY = Snapshot(
    service="shop",
    is_ready=True,
    seconds=93_784.0,
    stop_budget=22.0,
    grace_period=25.0,
    components=(
        component("driver/queue"),
        component("driver/orders"),
        component("driver/cache", State.DEGRADED, reason="one of two links is lost", seconds=12.0),
        component("worker/customer"),
        component(
            "worker/packer", State.BACKOFF, reason="restart in 0.80 s", restarts=3, seconds=0.4,
            error="ValueError: no boxes of size 7 are left", essential=False,
        ),
        component("worker/report", State.CREATED, waits_for=("worker/packer",), seconds=0.4),
        component("dispatcher/incoming", in_flight=3, slots=10, taken=40),
        component("dispatcher/web", in_flight=7, slots=100, taken=1000),
    ),
)  # fmt: skip


class Service:
    """What the page asks; a test sets what it says."""

    def __init__(self) -> None:
        self.snapshot = READY
        self.answers = True
        self.url = ""

    def respond(self, method: str, path: str) -> Any:
        if not self.answers:
            raise RuntimeError("no answer")
        return answer(method, path, self.snapshot, CONFIG)


@contextmanager
def serving(service: Service) -> Iterator[Service]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = ProbeServer([listener], service.respond, 8, 20.0, lambda: 0.05)
    server.start()
    service.url = f"http://127.0.0.1:{listener.getsockname()[1]}/page"
    try:
        yield service
    finally:
        server.stop()
        listener.close()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def service() -> Iterator[Service]:
    with serving(Service()) as made:
        yield made


def row(chromium: Browser, id_: str) -> list[str]:
    script = f"[...document.getElementById('row-{id_}').children].map(cell => cell.innerText.trim())"
    cells: list[str] = chromium.run(script)
    return cells


def test_the_page_is_off_unless_it_is_asked_for() -> None:
    assert answer("GET", "/page", READY, HealthConfig()).status is HTTPStatus.NOT_FOUND
    assert answer("GET", "/page", READY, CONFIG).status is HTTPStatus.OK


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "http:" not in text
    assert "https:" not in text
    assert len(text) < 20_000


@pytest.mark.slow
def test_every_component_is_shown_with_its_state_in_words(chromium: Browser, service: Service) -> None:
    chromium.open(service.url)

    assert chromium.run("document.title") == "● shop"
    assert row(chromium, "driver/queue") == ["driver/queue", "● ready", "1 h 10 min", "", "", "", ""]
    assert row(chromium, "driver/cache")[1:3] == ["▲ degraded", "12 s"]
    assert row(chromium, "driver/cache")[6] == "one of two links is lost"
    assert row(chromium, "worker/packer")[5:] == ["3", "restart in 0.80 s; not essential"]
    assert row(chromium, "dispatcher/incoming")[3] == "3 of 10"
    assert row(chromium, "worker/report")[6] == "waits for worker/packer"
    assert "1 d 2 h old; a stop takes at most 22.0 s of 25.0 s" in chromium.text()
    assert (
        "worker/packer, started again 3 times, now backoff\nValueError: no boxes of size 7 are left" in chromium.text()
    )


@pytest.mark.slow
def test_what_changes_is_shown_without_a_reload(chromium: Browser, service: Service) -> None:
    chromium.open(service.url)
    chromium.run("window.mark = 1")
    *others, web = READY.components
    service.snapshot = attrs.evolve(READY, components=(*others, attrs.evolve(web, taken=2000, in_flight=100)))
    chromium.wait("Number(document.getElementById('row-dispatcher/web').children[4].innerText) > 10")
    service.snapshot = attrs.evolve(READY, is_ready=False, is_stopping=True, reason="SIGTERM", stopping_for=5.0)
    chromium.wait("document.getElementById('alarm').innerText.includes('ends within 20 s')")

    assert "▽ stopping: SIGTERM" in chromium.text()
    assert chromium.run("window.mark") == 1


@pytest.mark.slow
def test_a_blocked_loop_and_a_service_that_is_silent_are_alarms(chromium: Browser, service: Service) -> None:
    chromium.open(service.url)
    service.snapshot = attrs.evolve(READY, is_ready=False, busy=12.0, blocked_at="shop.py:7")
    chromium.wait("document.getElementById('alarm').innerText.includes('blocked for 12 s at shop.py:7')")
    service.answers = False
    chromium.wait("document.getElementById('alarm').innerText.includes('does not answer')")

    assert chromium.run("document.getElementById('alarm').getAttribute('role')") == "alert"


@pytest.mark.slow
def test_hostile_text_is_text(chromium: Browser, service: Service) -> None:
    hostile = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
    bad = component("worker/a", State.FAILED, reason=hostile, error=hostile)
    service.snapshot = attrs.evolve(READY, service=hostile, components=(bad,))
    chromium.open(service.url)

    assert hostile in chromium.text()
    assert chromium.run("document.querySelectorAll('img').length") == 0
    assert "owned'" in chromium.run("document.title")  # its text, not what it says


@pytest.mark.slow
def test_it_can_be_used_with_a_keyboard_alone(chromium: Browser, service: Service) -> None:
    chromium.open(service.url)
    focused = "document.activeElement.id || document.activeElement.getAttribute('aria-label')"
    order = []
    for _ in range(4):
        chromium.press("Tab")
        order.append(chromium.run(focused))
        outline = chromium.run("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
    chromium.run("document.getElementById('find').focus()")
    chromium.type("packer")
    found = chromium.run("[...document.querySelectorAll('tbody tr')].filter(row => !row.hidden).map(row => row.id)")
    chromium.run("document.getElementById('find').value = ''")
    chromium.press("Tab")
    chromium.press("Space", " ")
    in_trouble = chromium.run("[...document.querySelectorAll('tbody tr')].filter(row => !row.hidden).length")
    chromium.press("Tab")
    chromium.press("Enter", "\r")
    held = chromium.run("document.getElementById('hold').getAttribute('aria-pressed')")

    assert order == ["find", "trouble", "hold", "Components"]
    assert found == ["row-worker/packer"]
    assert in_trouble == 3
    assert held == "true"


CONTRAST = """(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = colour => { const [r, g, b] = parse(colour).slice(0, 3).map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
  const paper = node => { for (; node; node = node.parentElement) { const c = parse(getComputedStyle(node).backgroundColor); if (c.length < 4 || c[3] > 0) return getComputedStyle(node).backgroundColor; } return "rgb(255,255,255)"; };
  let least = 100;
  for (const node of document.querySelectorAll("body *")) {
    if (![...node.childNodes].some(one => one.nodeType === 3 && one.data.trim()) || !node.getClientRects().length) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(paper(node))];
    least = Math.min(least, (Math.max(a, b) + .05) / (Math.min(a, b) + .05));
  }
  return least;
})()"""


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_stands_out_from_its_paper(chromium: Browser, service: Service, dark: bool) -> None:
    failed = component("worker/gone", State.FAILED, reason="x", error="ValueError: x")
    moving = [component(f"worker/{state.value}", state) for state in State]
    service.snapshot = attrs.evolve(READY, components=(*READY.components, failed, *moving))
    chromium.open(service.url, dark=dark)
    paper = chromium.run("getComputedStyle(document.body).backgroundColor")

    assert chromium.run(CONTRAST) >= 4.5  # WCAG 2.2, 1.4.3
    assert paper == ("rgb(15, 18, 22)" if dark else "rgb(255, 255, 255)")


@pytest.mark.slow
def test_a_screen_reader_is_told_what_is_what(chromium: Browser, service: Service) -> None:
    chromium.open(service.url)
    nodes = chromium.call("Accessibility.getFullAXTree")["nodes"]
    roles = [
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
    ]

    assert ("heading", "shop") in roles
    assert ("searchbox", "Find") in roles
    assert ("checkbox", "only what is not ready") in roles
    assert ("button", "Hold") in roles
    assert ("columnheader", "State") in roles
    assert ("rowheader", "driver/queue") in roles
    assert ("cell", "● ready") in roles
    assert ("region", "Components") in roles
    assert "status" in {role for role, _ in roles}
    assert chromium.run("document.documentElement.lang") == "en"


@pytest.mark.slow
def test_it_fits_on_a_small_screen(chromium: Browser, service: Service) -> None:
    chromium.open(service.url, width=360, height=640)

    assert chromium.run("document.documentElement.scrollWidth") <= 360


@pytest.mark.slow
def test_the_picture_in_the_documents_is_of_this_page(chromium: Browser, service: Service, tmp_path: Path) -> None:
    """`KERNEL_SCREENSHOT=1` makes it anew; fonts differ between machines, so that pixels are not compared."""
    chromium.open(service.url)
    *others, incoming, web = READY.components
    moved = attrs.evolve(incoming, taken=41), attrs.evolve(web, taken=1230)
    service.snapshot = attrs.evolve(READY, components=(*others, *moved))
    chromium.wait("Number(document.getElementById('row-dispatcher/web').children[4].innerText) > 10")
    made = SCREENSHOT if os.environ.get("KERNEL_SCREENSHOT") else tmp_path / "page.png"
    chromium.screenshot(made)

    assert SCREENSHOT.read_bytes()[:24] == made.read_bytes()[:24]  # a PNG of the same size
    assert SCREENSHOT.stat().st_size < 150_000


@pytest.mark.slow
async def test_no_secret_is_on_the_page(chromium: Browser) -> None:
    async def fails() -> None:
        await trio.lowlevel.checkpoint()
        raise ConnectionError(f"refused by redis://shop:{CANARY}@cache")

    manifest = {
        "kernel": {"name": "shop"},
        "dispatchers": {"health": {"plugin": "health", "bind": "127.0.0.1:0", "page": True}},
        "workers": {
            "fails": {"use": "fails", "essential": False, "restart": {"policy": "never"}},
            "stays": {"use": "stays"},
        },
    }
    given = Registry.of({"workers": {"fails": fails, "stays": trio.sleep_forever}})
    registry = Registry((*discover().plugins, *given.plugins))
    async with open_kernel(manifest, registry=registry, expected=ConnectionError) as service:
        [address] = [event.address for event in service.events if hasattr(event, "address")]
        await trio.to_thread.run_sync(lambda: chromium.open(f"{address}/page"))
        text = await trio.to_thread.run_sync(chromium.text)

    assert "redis://" in text
    assert CANARY not in text
