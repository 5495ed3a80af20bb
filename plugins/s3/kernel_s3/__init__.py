"""The driver `s3`: objects in Amazon's S3, or in what speaks its protocol."""

from __future__ import annotations

from ._config import S3Config as S3Config
from ._driver import S3Driver as S3Driver
from ._errors import ObjectMissingError as ObjectMissingError
from ._errors import ObjectTooLargeError as ObjectTooLargeError
from ._errors import S3Error as S3Error
from ._store import ObjectInfo as ObjectInfo
from ._store import ObjectStore as ObjectStore

__all__ = [
    "ObjectInfo",
    "ObjectMissingError",
    "ObjectStore",
    "ObjectTooLargeError",
    "S3Config",
    "S3Driver",
    "S3Error",
]
