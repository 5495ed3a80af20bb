"""What a message inherits from the one that is being handled when it is sent."""

from __future__ import annotations

from collections.abc import Mapping

from kernel import carried, current_delivery
from kernel.abc import Protocol


def continued(protocol: Protocol, headers: Mapping[str, object]) -> Mapping[str, object]:
    """Return the caller's headers, over those that the protocol continues from the current delivery, if there is one.

    Between the two are those that whoever traces has everything take along.
    """
    delivery = current_delivery()
    inherited = protocol.continued(delivery.envelope) if delivery is not None else None
    along = carried()
    return {**(inherited or {}), **along, **headers} if inherited or along else headers
