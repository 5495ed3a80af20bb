"""Raises when it is imported."""

import sys

LIMIT = int("many") if len(sys.argv) >= 0 else 0
