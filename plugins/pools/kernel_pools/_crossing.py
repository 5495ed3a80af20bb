"""What a worker is given in another process: its arguments as bytes, secrets among them, and back.

`pickle` takes no secret, wherever it would go. These bytes have one way: by the pipe between a service and a process of
its own. They are kept by nobody, and stand in no error.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, final

from typing_extensions import override


@final
class _Writer(pickle.Pickler):
    def __init__(self, to: io.BytesIO, text_of: Callable[[Any], str]) -> None:
        from kernel import Secret  # noqa: PLC0415  a process without secrets needs nothing of it

        super().__init__(to, pickle.HIGHEST_PROTOCOL)
        self._secret = Secret
        self._text_of = text_of

    @override
    def persistent_id(self, obj: object) -> str | None:
        return self._text_of(obj) if isinstance(obj, self._secret) else None


@final
class _Reader(pickle.Unpickler):
    @override
    def persistent_load(self, pid: str) -> object:
        from kernel import Secret  # noqa: PLC0415  as above

        return Secret(pid)


def write(value: object) -> bytes:
    """Return a value as bytes; a secret is what its file has now.

    Raises:
        Exception: whatever the value's own code raises, or `pickle`.
    """
    return _write(value, lambda secret: secret.fresh())


def read(data: bytes) -> Any:  # noqa: ANN401  it is what was written
    """Return what `write` was given; a secret stays what it was then."""
    return _Reader(io.BytesIO(data)).load()


def refusal(value: object) -> str:
    """Return why a value cannot be written and read again; empty if it can. Secrets are left out."""
    try:
        read(_write(value, lambda _: ""))
    except Exception as error:  # noqa: BLE001  the value's own code
        return f"{type(error).__name__}: {error}"
    return ""


def _write(value: object, text_of: Callable[[Any], str]) -> bytes:
    to = io.BytesIO()
    _Writer(to, text_of).dump(value)
    return to.getvalue()
