"""What the service refuses, as errors of this plugin: the client's own are translated here, and nowhere else."""

from __future__ import annotations

import importlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, final

from kernel.errors import KernelError, UnavailableError

_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_LATER: Final = frozenset({"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "RequestTimeTooSkewed"})


class S3Error(KernelError):
    """The service has refused a request."""

    def __init__(self, text: str, *, code: str, where: str) -> None:
        """Make one.

        Args:
            text: What is wrong.
            code: The service's word for it, such as `AccessDenied`.
            where: `bucket/key`.
        """
        super().__init__(text)
        self.code = code
        self.where = where


@final
class ObjectMissingError(S3Error):
    """There is no such object; or there is, and who asks must not know."""


@final
class ObjectTooLargeError(S3Error):
    """An object is longer than may be held in memory."""


@final
class PoolExhaustedError(UnavailableError):
    """All connections are in use, which says nothing of the service."""


@contextmanager
def translated(where: str) -> Generator[None]:
    """Raise what the client raises as errors of this plugin.

    Raises:
        ObjectMissingError: if there is no such object.
        PoolExhaustedError: if no connection became free in time.
        S3Error: for whatever else the service refuses.
        UnavailableError: if it cannot be reached, or cannot now.
        ValueError: for what no service would take, such as a name of a bucket with a slash in it.
    """
    known: Any = importlib.import_module("botocore.exceptions")  # heavy: `kernel check` needs none of it
    try:
        yield
    except known.ClientError as error:
        raise _refusal(error.response, where) from error
    except known.ParamValidationError as error:
        raise ValueError(f"{where}: {error}") from error
    except known.ConnectTimeoutError as error:
        raise _late(error, where) from error
    except (known.HTTPClientError, known.BotoCoreError, OSError) as error:
        raise UnavailableError(f"{where}: {error}") from error


def _late(error: Exception, where: str) -> UnavailableError:
    """Tell a pool without a free connection from a service that does not answer: to aiobotocore they are the same."""
    if type(error.__context__).__name__ != "PoolTimeout":  # of httpx, or of what takes its place
        return UnavailableError(f"{where}: {error}")
    return PoolExhaustedError(
        f"{where}: no connection became free within `connect_timeout`: all of `max_connections` are in use; raise"
        " `max_connections`, or ask less at a time"
    )


def _refusal(answer: dict[str, Any], where: str) -> KernelError:
    code, message = str(answer["Error"].get("Code", "")), str(answer["Error"].get("Message", ""))
    text = f"{where}: {message or code} ({code})"
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _MISSING:
        return ObjectMissingError(text, code=code, where=where)
    if status >= 500 or code in _LATER:
        return UnavailableError(text)
    return S3Error(text, code=code, where=where)
