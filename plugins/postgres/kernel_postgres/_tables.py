"""The two tables that the driver keeps in the database: messages to be sent, and ids of messages that were handled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, cast

import trio

from kernel import Envelope

CREATE: Final = """
SELECT pg_advisory_xact_lock(7463128990315);
CREATE TABLE IF NOT EXISTS kernel_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    exchange text NOT NULL,
    mandatory boolean NOT NULL,
    message_id text NOT NULL,
    subject text NOT NULL,
    body bytea NOT NULL,
    outside jsonb NOT NULL,
    written timestamptz NOT NULL DEFAULT clock_timestamp(),
    deadline timestamptz,
    due timestamptz NOT NULL DEFAULT '-infinity',
    attempts integer NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS kernel_inbox (
    scope text NOT NULL,
    message_id text NOT NULL,
    handled timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, message_id)
);
CREATE INDEX IF NOT EXISTS kernel_inbox_handled ON kernel_inbox (handled);
CREATE INDEX IF NOT EXISTS kernel_outbox_untried ON kernel_outbox (id) WHERE attempts = 0;
CREATE INDEX IF NOT EXISTS kernel_outbox_tried ON kernel_outbox (due) WHERE attempts > 0;
"""
"""One transaction, and one process at a time: PostgreSQL may refuse what two make at once. Source: its documentation of
CREATE TABLE, and of advisory locks; the number is that of these tables, and nobody else's."""

SEND: Final = """
INSERT INTO kernel_outbox (exchange, mandatory, message_id, subject, body, outside, deadline)
VALUES (%s, %s, %s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s))
"""
ONCE: Final = """
INSERT INTO kernel_inbox (scope, message_id) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING true
"""
FORGET: Final = "DELETE FROM kernel_inbox WHERE handled < now() - make_interval(secs => %s)"

ONE_RELAY: Final = "SELECT pg_try_advisory_xact_lock(7463128990316)"
_MESSAGE: Final = """
SELECT id, exchange, mandatory, message_id, subject, body, outside, attempts,
    extract(epoch FROM clock_timestamp() - written)::float8, extract(epoch FROM deadline - clock_timestamp())::float8
FROM kernel_outbox
"""
UNTRIED: Final = f"{_MESSAGE} WHERE attempts = 0 ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"
"""What was not tried yet comes first: any number of messages that can never be sent holds up none of these."""
TRIED: Final = (
    f"{_MESSAGE} WHERE attempts > 0 AND due <= clock_timestamp() ORDER BY due LIMIT %s FOR UPDATE SKIP LOCKED"
)
WAITING: Final = """
SELECT count(*), count(*) FILTER (WHERE attempts > 0),
    coalesce(extract(epoch FROM clock_timestamp() - min(written)), 0)::float8
FROM kernel_outbox
"""
SENT: Final = "DELETE FROM kernel_outbox WHERE id = ANY(%s)"
POSTPONE: Final = """
UPDATE kernel_outbox SET attempts = attempts + 1, due = clock_timestamp() + make_interval(secs => %s) WHERE id = %s
"""

CREATE_LEASES: Final = """
DO $$ BEGIN
    PERFORM pg_advisory_xact_lock(7463128990317);
    CREATE TABLE IF NOT EXISTS kernel_lease (name text PRIMARY KEY, version bigint NOT NULL, value text NOT NULL);
END $$
"""
READ_LEASE: Final = """
SELECT coalesce(version, 0), coalesce(value, ''), extract(epoch FROM clock_timestamp())::float8
FROM (SELECT 1) AS one LEFT JOIN kernel_lease ON name = %s
"""
FIRST_LEASE: Final = """
INSERT INTO kernel_lease (value, name, version) VALUES (%s, %s, 1) ON CONFLICT DO NOTHING RETURNING version
"""
NEXT_LEASE: Final = """
UPDATE kernel_lease SET version = version + 1, value = %s WHERE name = %s AND version = %s RETURNING version
"""


def written(envelope: Envelope, *, exchange: str, mandatory: bool) -> tuple[object, ...]:
    """Return the parameters of `SEND`. Times are kept as those of the database, which all processes share."""
    outside = {
        "headers": dict(envelope.headers),
        "content_type": envelope.content_type,
        "reply_to": envelope.reply_to,
        "correlation_id": envelope.correlation_id,
        "priority": envelope.priority,
        "delay": envelope.delay,
    }
    left = None if envelope.deadline == math.inf else envelope.deadline - trio.current_time()
    return exchange, mandatory, envelope.id, envelope.subject, envelope.body, json.dumps(outside), left


def read(message_id: str, subject: str, body: bytes, outside: object, age: float, left: float | None) -> Envelope:
    """Return what was written `age` seconds ago, and has so many seconds `left`."""
    values = cast("Mapping[str, Any]", outside)
    return Envelope(
        id=message_id,
        subject=subject,
        body=bytes(body),
        headers=values["headers"],
        content_type=values["content_type"],
        reply_to=values["reply_to"],
        correlation_id=values["correlation_id"],
        priority=values["priority"],
        delay=max(0.0, values["delay"] - max(0.0, age)),
        deadline=math.inf if left is None else trio.current_time() + left,
    )
