"""What services and plugins are tested with."""

from __future__ import annotations

from ._cancel import cancel_at_checkpoint as cancel_at_checkpoint
from ._cancel import cancel_at_each_checkpoint as cancel_at_each_checkpoint
