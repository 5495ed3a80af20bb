"""Where the manifest of a command is, and all that the command line says about it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import attrs

from .._convert.folder import folder_of, on_path
from .._core.fields import ByFields
from .._core.spec import Plan
from .._manifest.layers import read_layers
from .._manifest.manifest import Manifest, load, outline
from .._manifest.names import name_in
from .._manifest.overrides import override
from .._manifest.paths import find
from .._manifest.registry import Registry
from .._plan.plan import resolve
from .._plan.read import read_plan
from ..errors import ManifestError
from .collecting import without_collecting
from .console import complain

if TYPE_CHECKING:
    from .._plan.options import ServiceOption

_STEADY: Final = 100_000_000
"""Nanoseconds for which a file has not been written to that is complete."""
_TRIES: Final = 10
_SILENCE: Final = 5.0
"""Seconds that a manifest may be read for without a word."""
_HELP: Final = frozenset({"--help", "-h"})


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Source(ByFields):
    """One manifest, as a command line names it."""

    path: str
    overlays: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    """What follows `--`."""

    @property
    def asks_for_help(self) -> bool:
        """Whether the options of the service are to be listed."""
        return not _HELP.isdisjoint(self.arguments)

    def load(self) -> Manifest:
        """Read the manifest.

        Raises:
            ManifestError: listing every problem, if there is any.
        """
        return load(
            self.path, environ=os.environ, overrides=self.overrides, overlays=self.overlays, arguments=self.arguments
        )

    def seen(self) -> tuple[str, bool]:
        """Return what its service is called, and whether that is to listen for orders, as far as can be seen.

        Nothing is imported for it, and the manifest may be wrong.
        """
        tables: Mapping[str, object] = {}
        with suppress(ManifestError):
            layer = read_layers(Path(self.path), file=self.path, overlays=self.overlays)
            tables, _ = override(layer.tables, self.overrides, [])
        return name_in(tables, folder_of(self.path)), find(tables, ("kernel", "control")) is not False

    def resolve(self, registry: Registry, manifest: Manifest | None = None) -> Plan:
        """Read the manifest and make a plan of it. Its folder has to be on the path, for its modules to be found.

        Args:
            registry: What is installed.
            manifest: What `load` has returned, if it was asked before.

        Raises:
            InvalidError: listing every problem, if there is any.
        """
        with without_collecting(), _telling_what_hangs(self.path):
            return read_plan(self.load, registry) if manifest is None else resolve(manifest, registry)

    def resolve_again(self, registry: Registry) -> Plan:
        """`resolve`, for a service that runs. Blocks.

        What is still being written is waited for, a second at most: an editor may have written half of a file.

        Raises:
            InvalidError: listing every problem, if there is any.
        """
        for _ in range(_TRIES):
            before = self._stamps()
            if all(time.time_ns() - changed > _STEADY for _, changed in before):
                break
            time.sleep(_STEADY / 1e9)
        return read_plan(self.load, registry)  # the collector stays as it is: what hangs here would hold it still

    def _stamps(self) -> list[tuple[int, int]]:
        """Return what tells whether files have changed, and when they did; of those that are there."""
        found: list[tuple[int, int]] = []
        for path in (self.path, *self.overlays):
            with suppress(OSError):
                status = os.stat(path)
                found.append((status.st_size, status.st_mtime_ns))
        return found

    def help(self, registry: Registry) -> str:
        """Return what may follow `--`, for people.

        Raises:
            ManifestError: if the manifest cannot be read.
        """
        from .._plan.options import options_of  # noqa: PLC0415  only who asks for help pays for it

        with on_path(folder_of(self.path)):
            manifest = outline(self.path, overrides=self.overrides, overlays=self.overlays)
            return "\n".join(_lines(self.path, options_of(manifest, registry)))


def _tell_what_hangs(path: str, ident: int) -> None:
    from .._core.stacks import where_in_thread  # noqa: PLC0415  trio, which who reads a manifest needs not

    complain(f"kernel: still reading {path}, at {where_in_thread(ident)}")


@contextmanager
def _telling_what_hangs(path: str) -> Generator[None]:
    """Say at which line it is what takes longer inside than anybody would wait in silence, such as an import."""
    ident = threading.get_ident()
    teller = threading.Timer(_SILENCE, partial(_tell_what_hangs, path, ident))
    teller.daemon = True
    teller.start()
    try:
        yield
    finally:
        teller.cancel()


def _lines(path: str, options: Sequence[ServiceOption]) -> Iterator[str]:
    if not options:
        yield f"{path} takes no options after --"
        return
    yield f"Options of {path}, after --:"
    names = [f"{option.name} {option.type.upper()}".rstrip() for option in options]
    width = max(map(len, names))
    for name, option in zip(names, options, strict=True):
        default = f"[default: {option.default}]" if option.default else "[required]"
        yield f"  {name:{width}}  {option.help}{'  ' * bool(option.help)}{default}"
