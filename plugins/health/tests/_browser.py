"""A real Chromium without a screen, spoken to by a pipe: one page, looked at as a person would."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
CHROMIUM = shutil.which("chromium")
KEYS = {"Tab": 9, "Space": 32, "Enter": 13}


class Browser:
    """One page of a browser. Source: the Chrome DevTools Protocol."""

    def __init__(self, send: int, receive: int) -> None:
        self._send = send
        self._receive = receive
        self._received = b""
        self._number = 0
        self._session: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.call("Page.enable")
        self.call("Runtime.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Return what the browser answers."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            data = os.read(self._receive, 65_536)
            assert data, "the browser has ended"
            self._received += data
        line, _, self._received = self._received.partition(b"\0")
        made: dict[str, Any] = json.loads(line)
        return made

    def run(self, script: str) -> Any:
        """Return what an expression of JavaScript is; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, url: str, *, dark: bool = False, width: int = 1100, height: int = 660) -> None:
        """Show a page, and wait until it has asked the service."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=url)
        self.wait("document.querySelectorAll('tbody tr').length > 0")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        script = f"""new Promise((yes, no) => {{
            const until = Date.now() + 20000;
            (function look() {{
                let met = false;
                try {{ met = {condition}; }} catch (error) {{}}
                if (met) yes(); else if (Date.now() > until) no(new Error("in vain: " + document.body.innerText));
                else setTimeout(look, 20);
            }})();
        }})"""
        self.run(script)

    def press(self, key: str, text: str = "") -> None:
        """Press a key as a keyboard does."""
        code = KEYS[key]
        shown = " " if key == "Space" else key
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=shown, code=key, windowsVirtualKeyCode=code, **more)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def text(self) -> str:
        return str(self.run("document.body.innerText"))

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Run a browser while inside."""
    commands, out = os.pipe()
    into, answers = os.pipe()
    script = f'exec "$@" 3<&{commands} 4>&{answers}'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", CHROMIUM or "", *FLAGS, f"--user-data-dir={folder}"],
        pass_fds=(commands, answers),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(commands)
    os.close(answers)
    try:
        yield Browser(out, into)
    finally:
        os.killpg(process.pid, 9)
        process.wait()
        os.close(out)
        os.close(into)
