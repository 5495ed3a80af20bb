"""What a message inherits from the one that is being handled when it is sent."""

from __future__ import annotations

from collections.abc import Mapping

from kernel import current_delivery
from kernel.abc import Protocol


def continued(protocol: Protocol, headers: Mapping[str, object]) -> Mapping[str, object]:
    """Return the caller's headers, over those that the protocol continues from the current delivery, if there is one."""
    delivery = current_delivery()
    inherited = protocol.continued(delivery.envelope) if delivery is not None else None
    return {**inherited, **headers} if inherited else headers
