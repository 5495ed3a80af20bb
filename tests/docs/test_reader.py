"""Facts about documents that are read in a fresh clone, with the commands as printed, in the folder that is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ._reader import Command, Reader, commands_of

ROOT = Path(__file__).parents[2]
SKIPPED = {
    "pip install uv && uv run pytest": "these are the tests that this one is part of",
}
STATUSES = {
    "uv run kernel check --set dispatchers.incoming.quue=orders": 2,
    """uv run kernel check --set 'drivers.orders.interceptors=["timing:Timing"]'""": 2,
    "uv run kernel check --set kernel.grace_period=12.0": 2,
    "uv run kernel run --set workers.packer.timeout=120.0": 3,
    "uv run --no-project kernel check --set drivers.journal.max_line_bytes=0": 2,
    "uv run kernel check kernel.toml -- --skew coffee": 2,
    "uv run kernel run --set workers.clerk.use=legacy:count": 1,
    "CREDENTIALS_DIRECTORY=none uv run kernel check": 2,
    "uv run kernel check --set drivers.place='{plugin = \"memory\"}'": 2,
    "uv run kernel exec kernel.toml shop:missing --least 5": 2,
    "uv run kernel check kernel.toml warehouse.toml": 2,
    "uv run kernel exec kernel.toml shop:missing --least many": 2,
}

pytestmark = pytest.mark.slow


SLEEP = '        print("packing", flush=True)\n        await trio.sleep(60)\n'
"""What step 4 of the tutorial puts into `pack` and takes out again."""


def sleep_in_pack(folder: Path) -> None:
    code = (folder / "shop.py").read_text(encoding="utf-8")
    head = "    async def pack(self, order: Order):\n"
    assert head in code
    assert SLEEP in (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    (folder / "shop.py").write_text(code.replace(head, head + SLEEP), encoding="utf-8")


def wake_pack(folder: Path) -> None:
    code = (folder / "shop.py").read_text(encoding="utf-8")
    (folder / "shop.py").write_text(code.replace(SLEEP, ""), encoding="utf-8")


def copy_unit(folder: Path) -> None:
    shutil.copy(ROOT / "docs/howto/kernel.service", folder / "orders.service")


BEFORE: Mapping[str, Callable[[Path], None]] = {
    "uv run kernel run --set workers.packer.timeout=120.0": sleep_in_pack,
    "uv run kernel check --set kernel.grace_period=12.0": wake_pack,
    "systemd-analyze security --offline=yes orders.service | tail -1": copy_unit,
}
PLAYED_APART = {"deploy-in-a-container": "test_container.py builds and runs its image, for which a reader needs Docker"}
HOW_TOS = sorted(path.stem for path in (ROOT / "docs/howto").glob("*.md") if path.stem not in PLAYED_APART)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `git clone` would bring, with what is changed and not committed yet."""
    folder = tmp_path_factory.mktemp("reader") / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A shell with a Python of its own, whose pip installs nothing into anybody else's."""
    folder = tmp_path_factory.mktemp("shell")
    subprocess.run([sys.executable, "-m", "venv", folder / "python"], check=True)
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST", "KERNEL", "UV_"))
    }
    for name in ("VIRTUAL_ENV", "UV", "FORCE_COLOR", "CI"):
        kept.pop(name, None)
    own = {"NO_COLOR": "1", "READER": str(folder), "KERNEL_CONTROL_DIR": str(folder / "run")}  # no services of others
    return {**kept, **own, "PATH": f"{folder / 'python' / 'bin'}:{kept['PATH']}"}


def reader(folder: Path, environ: Mapping[str, str]) -> Reader:
    folder.mkdir(exist_ok=True)
    return Reader(folder, environ, SKIPPED, STATUSES, BEFORE)


def test_the_readme_and_the_tutorial_do_what_they_say(clone: Path, environ: dict[str, str]) -> None:
    somebody = reader(clone, environ)

    somebody.read(ROOT / "README.md")
    somebody.read(ROOT / "docs/tutorial.md")


@pytest.mark.parametrize("name", HOW_TOS)
def test_a_how_to_does_what_it_says(clone: Path, environ: dict[str, str], name: str) -> None:
    somebody = reader(clone / name, environ)
    somebody.read(ROOT / "docs" / "howto" / f"{name}.md")
    assert somebody.typed, "nothing of it was tried"


def test_the_example_that_the_tutorial_ends_at_does_what_it_says(clone: Path, environ: dict[str, str]) -> None:
    somebody = reader(clone, environ)
    somebody.type("pip install uv")
    somebody.type("uv run kernel check examples/orderdesk/kernel.toml")  # the first command makes the environment

    somebody.read(ROOT / "examples" / "orderdesk" / "README.md")


@pytest.mark.parametrize(
    ("printed", "output", "met"),
    [
        ("", "whatever\n", True),
        ("a\nb", "a\nb\n", True),
        ("a\nb", "a\nx\nb\n", True),
        ("a\nb", "b\na\n", False),
        ("a ... c", "a b c", True),
        ("a.c", "abc", False),
        ("a", "ab", False),
    ],
)
def test_what_is_printed_is_compared_line_by_line(printed: str, output: str, met: bool) -> None:
    assert Command("x", printed).is_met(output) == met


def test_a_block_of_roots_is_not_typed() -> None:
    assert list(commands_of("# systemctl daemon-reload\n")) == []
    assert list(commands_of("$ a\n1\n$ b\n")) == [Command("a", "1"), Command("b", "")]


@pytest.mark.parametrize("line", ["uv run kernel new tea", "uv run kernel new-plugin pot --kind driver"])
def test_what_a_skeleton_says_to_type_next_works_in_the_clone(clone: Path, environ: dict[str, str], line: str) -> None:
    somebody = reader(clone, environ)
    somebody.type("pip install uv")

    said = somebody.type(line).split("Next:")[1]
    for following in filter(None, map(str.strip, said.splitlines())):
        somebody.type(following)
