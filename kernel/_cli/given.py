"""The manifest that a command line names, and what changes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, TypeVar

import click

if TYPE_CHECKING:
    from .._manifest.registry import Registry
    from .source import Source

CommandT = TypeVar("CommandT", bound=Callable[..., object])

DEFAULT_MANIFEST: Final = "kernel.toml"


def takes_manifest(command: CommandT) -> CommandT:
    """Add the arguments MANIFEST and, after --, those of the service, and what changes a manifest."""
    return click.argument("words", nargs=-1, metavar="[MANIFEST] [-- OPTIONS OF THE SERVICE]")(takes_changes(command))


def takes_changes(command: CommandT) -> CommandT:
    """Add the options --overlay and --set."""
    overlays = click.option(
        "--overlay",
        "overlays",
        multiple=True,
        metavar="FILE",
        help="Lay a file over the manifest, key by key; may be given often.",
    )
    overrides = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="TABLE.KEY=VALUE",
        help="Replace a value of the manifest; may be given often. VALUE is TOML, or a string as it stands.",
    )
    return overlays(overrides(command))


def path_of(given: str | None) -> str:
    """Return the manifest that is meant: one that is given, that of the environment, or the one that is here."""
    return given or os.environ.get("KERNEL_MANIFEST") or DEFAULT_MANIFEST


def split(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the manifests of a command line, and what follows them for the service."""
    at = next((number for number, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:at], words[at:]


def source_of(words: Sequence[str], overlays: Sequence[str], overrides: Sequence[str]) -> Source:
    """Return where one manifest is, and what changes it."""
    from .source import Source  # noqa: PLC0415  `--help` needs none of it

    manifests, arguments = split(words)
    if len(manifests) > 1:
        raise click.UsageError(f"Got unexpected extra argument ({manifests[1]})")
    path = path_of(manifests[0] if manifests else None)
    return Source(path=path, overlays=tuple(overlays), overrides=tuple(overrides), arguments=tuple(arguments))


def beside(path: str) -> AbstractContextManager[None]:
    """Return what finds the modules beside a manifest while inside."""
    from .._convert.folder import folder_of, on_path  # noqa: PLC0415  as above

    return on_path(folder_of(path))


def installed() -> Registry:
    """Return the plugins that are installed."""
    from .._manifest.registry import discover  # noqa: PLC0415  as above

    return discover()
