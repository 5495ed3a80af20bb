"""What a message of Shiva says besides its params: `Routed`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import attrs

_NO_PARAMS: Mapping[str, object] = {}


@final
@attrs.frozen(kw_only=True)
class Routed:
    """A payload to publish, or a result to return, that says more than its params.

    Published, it is what Shiva's `RoutedPublisher.publish` takes. Returned by a handler, only `params`, `success` and
    `errors` count: the rest of a reply follows from its request.
    """

    params: object = attrs.field(factory=dict[str, object], repr=False)
    """What is written as an object of JSON."""
    system_to: str = ""
    """Whom it is for; empty is the one of the protocol's configuration."""
    reference_id: str = ""
    """What it belongs to; empty is the id of the message itself."""
    route_key: str = ""
    """The subject that the broker routes by; empty is `<object>.<action>`."""
    request_id: str = ""
    """The id of the message that this one is a reply to, to publish a reply by hand; a reply has a `status`."""
    success: bool = True
    """Of a reply: what its `status` says."""
    errors: Sequence[object] = attrs.field(default=(), repr=False)
    """Of a reply: what its `status` says went wrong."""
