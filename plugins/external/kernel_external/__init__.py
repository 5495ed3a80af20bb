"""Calls into any library, for kernel: the driver `external`."""

from __future__ import annotations

from ._driver import ExternalDriver as ExternalDriver
from ._external import External as External
from ._external import ExternalConfig as ExternalConfig

__all__ = ["External", "ExternalConfig", "ExternalDriver"]
