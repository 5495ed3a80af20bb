"""Any value that AMQP can carry, for hypothesis."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st

unhurried = settings(deadline=None)
"""A busy machine is no failure."""
INT32 = 1 << 31
INT64 = 1 << 63

names = st.text(max_size=40).filter(lambda name: len(name.encode()) <= 128)
short_strings = st.text(max_size=60)
times = st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
decimals = st.builds(
    lambda number, places: Decimal(f"{number}E-{places}"), st.integers(-INT32, INT32 - 1), st.integers(0, 255)
)
plain = (
    st.none()
    | st.booleans()
    | st.integers(-INT64, INT64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | decimals
    | times
)
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
tables = st.dictionaries(names, values, max_size=6)

octets = st.integers(0, 255)
absent = st.none()
PROPERTIES = {
    "content_type": short_strings,
    "content_encoding": short_strings,
    "headers": tables,
    "delivery_mode": st.sampled_from([1, 2]),
    "priority": octets,
    "correlation_id": short_strings,
    "reply_to": short_strings,
    "expiration": short_strings,
    "message_id": short_strings,
    "timestamp": st.integers(0, 4_000_000_000),
    "type": short_strings,
    "user_id": short_strings,
    "app_id": short_strings,
}
properties = st.fixed_dictionaries({}, optional=PROPERTIES)
