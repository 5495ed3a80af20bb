"""What the log looks like, and that nothing that is logged can break whoever logs it."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from kernel import Secret
from kernel._core.events import (
    ComponentFailed,
)
from kernel._log.log import Log, LogSettings
from kernel._log.render import MAX_FIELD, MAX_TRACEBACK
from kernel._log.sinks import Stream

from ._logs import UnprintableError, fail, of_events, raised, record, written

# --- lines ------------------------------------------------------------------------------------------------------------


def test_a_line_has_time_level_component_text_and_fields() -> None:
    line = written(lambda log: log.bind(component="driver/db").warning("slow", seconds=2, query="select 1"))

    time, rest = line.split(" ", 1)
    assert time.endswith("Z")
    assert rest == 'warning driver/db: slow seconds=2 query="select 1"\n'


def test_a_line_without_a_component_is_the_kernels() -> None:
    assert "info    kernel: hello\n" in written(lambda log: log.info("hello"))


def test_json_has_a_field_for_each_field() -> None:
    fields = record(lambda log: log.info("hello", number=1, none=None, nested={"a": [1.5, True]}))

    assert fields.pop("timestamp")
    assert fields == {"event": "hello", "level": "info", "number": 1, "none": None, "nested": {"a": [1.5, True]}}


@pytest.mark.parametrize(("level", "lines"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_nothing_below_the_level_is_written(level: str, lines: int) -> None:
    def write(log: Any) -> None:
        for name in ("debug", "info", "warning", "error"):
            getattr(log, name)("text")

    assert written(write, level=level).count("\n") == lines


@pytest.mark.parametrize(("level", "colour"), [("info", "32"), ("warning", "33"), ("error", "31"), ("critical", "0")])
def test_colour_is_around_the_line_and_on_it_alone(level: str, colour: str) -> None:
    line = written(lambda log: getattr(log, level)("text"), colour=True)

    assert line.startswith(f"\x1b[{colour}m")
    assert line.endswith("text\x1b[0m\n")


# --- hostile text -----------------------------------------------------------------------------------------------------

HOSTILE = "a\r\nb\x1b[31m\x00\u2028\ud800\x85"


@pytest.mark.parametrize("place", ["event", "key", "value", "component"])
def test_control_characters_never_reach_the_stream(place: str) -> None:
    writes: dict[str, Callable[[Any], object]] = {
        "event": lambda log: log.info(HOSTILE),
        "key": lambda log: log.info("x", **{HOSTILE: 1}),
        "value": lambda log: log.info("x", value=HOSTILE),
        "component": lambda log: log.bind(component=HOSTILE).info("x"),
    }

    line = written(writes[place])

    assert line[:-1].isprintable()
    assert r"a\r\nb\x1b[31m\x00\u2028\ud800\x85" in line
    assert written(writes[place], as_json=True).isascii()


def test_a_value_cannot_pass_for_another_field() -> None:
    line = written(lambda log: log.info("x", value='a\\" level="error'))

    assert line.endswith(r'value="a\\\" level=\"error"' + "\n")


def test_an_empty_value_is_seen() -> None:
    assert written(lambda log: log.info("x", value="")).endswith('value=""\n')


def test_several_values_are_told_apart() -> None:
    assert written(lambda log: log.info("x", value=("a b", 1))).endswith('value="a b; 1"\n')


def test_a_long_text_is_cut() -> None:
    huge = "x" * 1_000_000

    line = written(lambda log: log.info(huge, value=huge))
    fields = record(lambda log: log.info(huge, value=huge))

    assert len(line) < 3 * MAX_FIELD
    assert len(fields["event"]) == len(fields["value"]) == MAX_FIELD + 3


@pytest.mark.parametrize("as_json", [False, True])
def test_a_long_traceback_is_cut_in_its_middle(as_json: bool) -> None:
    event = ComponentFailed(component="driver/db", error=ValueError("x" * 1_000_000 + " the end"), restart_in=None)

    line = of_events(event, as_json=as_json)

    assert len(line) < 2 * MAX_TRACEBACK
    assert "ValueError: xxx" in line
    assert "characters left out" in line
    assert "the end" in line


def test_a_traceback_cannot_pass_for_a_record() -> None:
    event = ComponentFailed(component="driver/db", error=ValueError(f"x\n{HOSTILE}"), restart_in=None)

    first, *others = of_events(event).splitlines()

    assert "driver/db: failed" in first
    assert others
    assert all(line.startswith("    ") and line.isprintable() for line in others)


def cycle() -> list[object]:
    found: list[object] = []
    found.append(found)
    return found


def deep() -> list[object]:
    found: list[object] = []
    for _ in range(100_000):
        found = [found]
    return found


ODD = {
    "unprintable": UnprintableError,
    "nan": lambda: float("nan"),
    "infinite": lambda: [float("inf")],
    "huge-integer": lambda: 10**5000,
    "bytes": lambda: b"\xff",
    "cycle": cycle,
    "too-deep": deep,
    "keys-that-are-no-strings": lambda: {(1, 2): 3, UnprintableError(): 4},
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD.keys())
def test_any_object_can_be_logged(make: Callable[[], object]) -> None:
    value = make()

    assert "value=" in written(lambda log: log.info("x", value=value))
    assert "value" in record(lambda log: log.info("x", value=value))


def test_what_cannot_be_printed_is_named_by_its_class() -> None:
    assert written(lambda log: log.info("x", value=UnprintableError())).endswith(
        'value="<unprintable UnprintableError>"\n'
    )
    assert record(lambda log: log.info("x", value=UnprintableError()))["value"] == "<unprintable UnprintableError>"


def test_json_is_json_where_python_would_write_something_else() -> None:
    assert record(lambda log: log.info("x", value=float("nan")))["value"] == "nan"


def test_a_secret_is_not_shown() -> None:
    def write(log: Any) -> None:
        log.info("x", one=Secret("canary"), many=[Secret("canary")], named={"a": Secret("canary")})

    assert "canary" not in written(write) + written(write, as_json=True)


# --- exceptions -------------------------------------------------------------------------------------------------------


def given() -> dict[str, object]:
    error = raised()
    return {"exception": error, "tuple": (type(error), error, error.__traceback__)}


@pytest.mark.parametrize("exc_info", given().values(), ids=given().keys())
def test_exc_info_is_written_as_the_traceback(exc_info: object) -> None:
    assert "raise ValueError" in written(lambda log: log.error("x", exc_info=exc_info))
    assert "raise ValueError" in record(lambda log: log.error("x", exc_info=exc_info))["traceback"]


def test_exception_writes_the_traceback_of_what_is_handled() -> None:
    def write(log: Any) -> None:
        try:
            fail()
        except ValueError:
            log.exception("x")

    assert "raise ValueError" in written(write)


def test_no_exception_is_no_traceback() -> None:
    assert written(lambda log: log.info("x", exc_info=True)).endswith("x\n")


def test_an_exception_that_cannot_be_formatted_is_written_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_traceback(error: BaseException) -> str:
        raise RuntimeError("no traceback")

    monkeypatch.setattr("traceback.format_exception", no_traceback)

    assert "cannot be printed" in written(lambda log: log.error("x", exc_info=ValueError()))


# --- streams ----------------------------------------------------------------------------------------------------------


class Broken(io.StringIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left"), ValueError("closed"), KeyError()])
def test_a_stream_that_takes_nothing_costs_the_line_alone(error: Exception) -> None:
    Log(LogSettings(sink=Stream(Broken(error)))).logger().info("x")


def test_a_full_device_costs_the_line_alone() -> None:
    stream = open("/dev/full", "w")  # noqa: SIM115  closing it raises as well
    Log(LogSettings(sink=Stream(stream))).logger().info("x")

    with pytest.raises(OSError, match="No space"):
        stream.close()


def test_standard_error_is_looked_up_for_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(LogSettings()).logger()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.info("one")
    monkeypatch.setattr(sys, "stderr", None)
    log.info("two")

    assert "one" in stream.getvalue()
    assert "two" not in stream.getvalue()


def test_nothing_is_written_to_standard_output_if_there_is_no_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    Log(LogSettings()).logger().info("x")

    assert not capsys.readouterr().out


def test_lines_of_threads_are_not_mixed() -> None:
    stream = io.StringIO()
    log = Log(LogSettings(sink=Stream(stream), as_json=True)).logger()

    def write() -> None:
        for _ in range(200):
            log.info("x" * 100)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["x" * 100] * 800
