"""Plays mutated conversations with RabbitMQ to the AMQP core: no exception may leave it, and no input may hold it up.

Uses the harness of the plugin's tests, `fuzzing.py` in `plugins/amqp/tests/core`. The same seed is the same input:
what failed is played again with `--one`. With `--record` a conversation is recorded from the RabbitMQ on this machine.

    uv run python benchmarks/fuzz_amqp.py [--inputs 1000000] [--seed 0]
    uv run python benchmarks/fuzz_amqp.py --one 4711
    uv run python benchmarks/fuzz_amqp.py --record
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import time
import traceback
import uuid
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent / "plugins" / "amqp" / "tests" / "core"))

from fuzzing import FOLDER, Client, load, outcome, pack, try_one
from kernel_amqp.core import Closed

HANG: Final = 2.0
"""CPU seconds after which an input counts as one that holds the core up."""
SHOWN: Final = 5


class HangError(Exception):
    """An input took too long."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first input; the others count up")
    parser.add_argument("--one", type=int, metavar="SEED", help="play only this input and show what it means")
    parser.add_argument("--record", action="store_true", help="record a conversation with RabbitMQ on 127.0.0.1:5672")
    arguments = parser.parse_args()
    if arguments.record:
        record()
    elif arguments.one is not None:
        show(arguments.one)
    else:
        sys.exit(not survives(arguments.seed, arguments.inputs))


def survives(first: int, inputs: int) -> bool:
    conversations, outcomes, failures = load(), Counter[str](), 0
    signal.signal(signal.SIGVTALRM, on_alarm)
    slowest, began = (0.0, first), time.perf_counter()
    for seed in range(first, first + inputs):
        signal.setitimer(signal.ITIMER_VIRTUAL, HANG)
        start = time.process_time()
        try:
            outcomes[outcome(try_one(seed, conversations))] += 1
        except Exception as error:  # noqa: BLE001  whatever it is: it is what is looked for
            failures += 1
            outcomes["HANG" if isinstance(error, HangError) else f"EXCEPTION {type(error).__name__}"] += 1
            if failures <= SHOWN:
                print(f"input {seed}:", traceback.format_exc(), sep="\n", file=sys.stderr)
        slowest = max(slowest, (time.process_time() - start, seed))
        if (seed - first + 1) % 50_000 == 0:
            print(f"{seed - first + 1:,} inputs, {failures} failures", file=sys.stderr)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    report(inputs, time.perf_counter() - began, slowest, outcomes)
    return failures == 0


def report(inputs: int, seconds: float, slowest: tuple[float, int], outcomes: Counter[str]) -> None:
    print(f"{inputs:,} inputs in {seconds:.0f} s; the slowest, {slowest[1]}, took {slowest[0] * 1000:.1f} ms of CPU")
    for name, count in outcomes.most_common():
        print(f"{count:>12,}  {name}")
    bad = sum(count for name, count in outcomes.items() if name.startswith("EXCEPTION"))
    print(f"{bad:>12,}  exceptions\n{outcomes['HANG']:>12,}  hangs")


def on_alarm(_number: int, _frame: FrameType | None) -> None:
    raise HangError(f"took more than {HANG} s")


def show(seed: int) -> None:
    for event in try_one(seed, load()).told:
        print(event)


def record() -> None:
    """Talk to the broker as `Client` does, and keep what it sent, cut where the client had something to say."""
    client, segments, segment = Client(queue=f"fuzz-{uuid.uuid4()}"), list[bytes](), b""
    client.core.start()
    with socket.create_connection(("127.0.0.1", 5672), timeout=5.0) as connection:
        while not (client.told and isinstance(client.told[-1], Closed)):
            data = client.core.data_to_send()
            if data and segment:
                segments, segment = [*segments, segment], b""
            connection.sendall(data)
            received = connection.recv(65536)
            segment += received
            client.react(client.take(received))
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"rabbitmq-{len(list(FOLDER.iterdir()))}.bin"
    path.write_bytes(pack([*segments, segment]))
    print(f"{path}: {len(segments) + 1} segments, {sum(map(len, segments)) + len(segment):,} bytes")


if __name__ == "__main__":
    main()
