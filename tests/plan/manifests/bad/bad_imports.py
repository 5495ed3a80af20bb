"""Needs what is not installed."""

import no_such_distribution  # type: ignore[import-not-found]  # noqa: F401
