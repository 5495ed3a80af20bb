"""The values that travel: what they are as values, and their ids."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

from kernel import Envelope, Message, new_id

FORKED = """
import os
from kernel import new_id
new_id()
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, new_id().encode())
    os._exit(0)
print(new_id(), os.read(reading, 32).decode())
os.wait()
"""


def test_an_id_is_32_hexadecimal_digits_and_never_comes_twice() -> None:
    ids = [new_id() for _ in range(1_000)]

    assert all(len(one) == 32 and int(one, 16) >= 0 for one in ids)
    assert len(set(ids)) == len(ids)


def test_threads_get_ids_of_their_own() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: new_id(), range(5_000)))

    assert len(set(ids)) == len(ids)


def test_a_process_that_was_forked_gives_out_none_of_the_ids_of_its_parent() -> None:
    ran = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True)

    parents, childs = ran.stdout.split()
    assert len(parents) == len(childs) == 32
    assert parents != childs


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (Envelope(subject="a", id="1"), Envelope(subject="a", id="1"), Envelope(subject="a", id="2")),
        (Message(subject="a", payload=1), Message(subject="a", payload=1), Message(subject="a", payload=2)),
    ],
)
def test_messages_are_values(one: object, same: object, other: object) -> None:
    assert one == same
    assert one != other


def test_a_copy_of_an_envelope_is_another_value() -> None:
    envelope = Envelope(subject="a", body=b"{}", priority=3)

    assert attrs.evolve(envelope, priority=4) == Envelope(subject="a", body=b"{}", priority=4, id=envelope.id)
    assert envelope.priority == 3
