"""Facts about the page on containers: its Dockerfile is built and run step by step, without a container.

The image is a folder with an environment of its own; what the package index would bring comes from this repository.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs
import pytest

from kernel.testing import free_port

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "howto" / "deploy-in-a-container.md").read_text(encoding="utf-8")
FILE: Final = re.compile(r"`(?P<name>[\w./-]+)`:\n\n```\w+\n(?P<content>.*?)^```", re.DOTALL | re.MULTILINE)
ONLY_IN_CONTAINERS: Final = ("FROM", "USER", "EXPOSE", "HEALTHCHECK", "WORKDIR")
SOON: Final = 60.0

pytestmark = pytest.mark.slow


def steps(dockerfile: str) -> Iterator[tuple[str, str]]:
    for line in filter(None, dockerfile.splitlines()):
        word, _, rest = line.partition(" ")
        yield word, rest


@attrs.define
class Image:
    """What a build made."""

    context: Path
    folder: Path
    command: list[str] = attrs.field(factory=list[str])
    environ: dict[str, str] = attrs.field(factory=dict[str, str])

    def build(self) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.folder / "python"], check=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST", "KERNEL"))}
        bin_ = self.folder / "python" / "bin"
        self.environ = {**kept, "PATH": f"{bin_}:{kept['PATH']}", "VIRTUAL_ENV": str(self.folder / "python")}
        for word, rest in steps((self.context / "Dockerfile").read_text(encoding="utf-8")):
            self._do(word, rest)

    def _do(self, word: str, rest: str) -> None:
        match word:
            case "COPY":
                *names, _target = rest.split()
                for name in names:
                    shutil.copy(self.context / name, self.folder)
            case "RUN" if rest.startswith("pip install"):
                self._install()
            case "RUN" if rest.startswith("useradd"):
                pass
            case "RUN":
                self._run(rest.split())
            case "CMD":
                self.command = json.loads(rest)
            case _:
                assert word in ONLY_IN_CONTAINERS, word

    def _install(self) -> None:
        [requirement] = (self.folder / "requirements.txt").read_text(encoding="utf-8").split()
        found = re.fullmatch(r"trio-kernel\[([\w,]+)\]>=0.1,<0.2", requirement)
        assert found, requirement
        extras = found[1].split(",")
        self._run(["uv", "pip", "install", "--quiet", ROOT, *(ROOT / "plugins" / extra for extra in extras)])

    def _run(self, command: Sequence[str | Path]) -> None:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environ, check=False, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    context, folder = tmp_path_factory.mktemp("context"), tmp_path_factory.mktemp("image")
    for name, content in FILE.findall(PAGE):
        (context / name).write_text(content, encoding="utf-8")
    built = Image(context, folder)
    built.build()
    return built


def get(port: int, path: str) -> tuple[int, str]:
    """Ask until somebody answers."""
    until = time.monotonic() + SOON
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > until:
                return error.code, ""
        except OSError:
            assert time.monotonic() < until
        time.sleep(0.05)


def test_what_the_page_says_is_built_and_answers_and_stops_in_order(image: Image) -> None:
    port, health = free_port(), free_port()
    environ = {**image.environ, "PORT": str(port), "HEALTH_PORT": str(health)}
    process = subprocess.Popen(image.command, cwd=image.folder, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        answers = [get(health, "/ready")[0], get(health, "/live")[0], get(port, "/")]
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=SOON)
    finally:
        process.kill()

    assert answers == [200, 200, (200, "open\n")]
    assert (process.returncode, "stopping reason=SIGTERM" in said) == (0, True), said


def test_the_runtime_waits_longer_than_the_grace_period(image: Image) -> None:
    [grace] = re.findall(r"^grace_period = ([\d.]+)", (image.context / "kernel.toml").read_text(), re.MULTILINE)
    [waits] = re.findall(r"^terminationGracePeriodSeconds: (\d+)$", PAGE, re.MULTILINE)

    assert float(waits) > float(grace)
