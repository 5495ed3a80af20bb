"""What a plugin's command has in common with the kernel's own; public through `kernel`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from .given import DEFAULT_MANIFEST, beside, installed, source_of, takes_changes

if TYPE_CHECKING:
    from .._core.spec import Plan


def manifest_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add the options --manifest, --overlay and --set to a command of a plugin.

    Args:
        command: Is given besides its own parameters `read_plan`, a function without parameters that returns the `Plan`
            of the manifest that is meant, or raises `InvalidError`, which the command leaves to the kernel. Without
            --manifest that is `$KERNEL_MANIFEST` or `kernel.toml`, as everywhere.
    """

    @click.option(
        "--manifest", metavar="FILE", help=f"The manifest that names it; {DEFAULT_MANIFEST} if none is given."
    )
    @takes_changes
    @wraps(command)
    def run(*, manifest: str | None, overlays: Sequence[str], overrides: Sequence[str], **others: Any) -> object:  # noqa: ANN401
        def read_plan() -> Plan:
            source = source_of([manifest] if manifest else [], overlays, overrides)
            with beside(source.path):
                return source.resolve(installed())

        return command(read_plan=read_plan, **others)

    return run
