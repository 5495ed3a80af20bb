"""The tables, and what tells a file of this broker from any other."""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x6B726E6C
"""At byte 68 of the file; "krnl"."""
VERSION: Final = 1
"""Of the schema, as `user_version`. A file with a greater one was written by a later version of the plugin."""
PREFIX: Final = "kernel_"
"""Of every table of the broker; all other names belong to the workers."""

READY: Final = 0
DELAYED: Final = 1
CLAIMED: Final = 2
BEHIND: Final = 3
"""Waits for another message of its key."""

TABLES: Final = f"""
CREATE TABLE kernel_meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    last INTEGER NOT NULL,        -- no number given to an entry or a place is greater
    topology INTEGER NOT NULL     -- grows when exchanges, queues or bindings change
);
INSERT INTO kernel_meta VALUES (1, 0, 0);
CREATE TABLE kernel_exchange (
    name TEXT PRIMARY KEY,
    durable INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE kernel_queue (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    durable INTEGER NOT NULL,
    exclusive INTEGER NOT NULL,
    max_length INTEGER,
    overflow TEXT NOT NULL,
    ttl REAL,
    dead_letters TEXT NOT NULL,
    partition_by TEXT NOT NULL,
    deduplication_window REAL NOT NULL,
    owner INTEGER,                -- the holder that an exclusive queue goes away with
    waiting INTEGER NOT NULL      -- entries that are ready, delayed or behind others
);
CREATE TABLE kernel_binding (
    exchange TEXT NOT NULL,
    pattern TEXT NOT NULL,
    queue INTEGER NOT NULL,
    PRIMARY KEY (exchange, pattern, queue)
) WITHOUT ROWID;
-- Where a message stands. Apart from what it says, so that a claim does not write the body again.
CREATE TABLE kernel_entry (
    seq INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL,
    state INTEGER NOT NULL,
    rank INTEGER NOT NULL,        -- 9 - priority
    place INTEGER NOT NULL,       -- first come, first served
    attempts INTEGER NOT NULL,
    redelivered INTEGER NOT NULL,
    expires REAL,                 -- times are seconds since 1970
    deadline REAL,
    due REAL,                     -- end of the delay
    holder INTEGER,
    key TEXT                      -- what orders it, if anything does
);
CREATE INDEX kernel_entry_ready ON kernel_entry (queue, rank, place) WHERE state = {READY};
CREATE INDEX kernel_entry_expires ON kernel_entry (expires)
    WHERE state IN ({READY}, {BEHIND}) AND expires IS NOT NULL;
CREATE INDEX kernel_entry_due ON kernel_entry (due) WHERE state = {DELAYED};
CREATE INDEX kernel_entry_delayed ON kernel_entry (queue, place) WHERE state = {DELAYED};
CREATE INDEX kernel_entry_claimed ON kernel_entry (holder) WHERE state = {CLAIMED};
CREATE INDEX kernel_entry_behind ON kernel_entry (queue, key, place) WHERE state = {BEHIND};
CREATE INDEX kernel_entry_oldest ON kernel_entry (queue, place) WHERE state = {BEHIND};
CREATE TABLE kernel_lane (
    queue INTEGER NOT NULL,
    key TEXT NOT NULL,
    first INTEGER NOT NULL,       -- the entry that the others of its key wait for
    PRIMARY KEY (queue, key)
) WITHOUT ROWID;
CREATE TABLE kernel_content (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    subject TEXT NOT NULL,
    body BLOB NOT NULL,
    headers TEXT NOT NULL,        -- JSON, or empty
    content_type TEXT NOT NULL,
    reply_to TEXT NOT NULL,
    correlation_id TEXT NOT NULL
);
-- Processes that have claims or exclusive queues, and until when they are believed to live.
CREATE TABLE kernel_holder (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    until REAL NOT NULL
);
CREATE TABLE kernel_once (
    scope TEXT NOT NULL,
    id TEXT NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (scope, id)
) WITHOUT ROWID;
CREATE INDEX kernel_once_until ON kernel_once (until);
CREATE TABLE kernel_seen (
    queue INTEGER NOT NULL,
    id TEXT NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (queue, id)
) WITHOUT ROWID;
CREATE INDEX kernel_seen_until ON kernel_seen (until);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""
