"""What the log looks like, and that nothing that is logged can break whoever logs it."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from kernel import Ack, DeadLetter, Retry, Return, Secret
from kernel._events import (
    ComponentFailed,
    DeliverySettled,
    DrainTimedOut,
    Event,
    EventHub,
    KernelReady,
    KernelStopped,
    Listening,
    LoopBlocked,
    SettleFailed,
    StateChanged,
    StopRequested,
    StopTimedOut,
)
from kernel._lifecycle import State
from kernel._log import MAX_FIELD, MAX_TRACEBACK, LogSettings, capture_logging, log_events, open_log
from kernel.errors import StartupError


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def written(write: Callable[[Any], object], **settings: Any) -> str:
    stream = io.StringIO()
    write(open_log(LogSettings(stream=stream, **settings)))
    return stream.getvalue()


def record(write: Callable[[Any], object], **settings: Any) -> dict[str, Any]:
    text = written(write, as_json=True, **settings)
    assert text.count("\n") == 1
    fields: dict[str, Any] = json.loads(text)
    return fields


def of_events(*events: Event, **settings: Any) -> str:
    def write(log: Any) -> None:
        hub = EventHub()
        log_events(hub, log)
        for event in events:
            hub.emit(event)
        assert hub.dropped == 0

    return written(write, **settings)


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


def test_a_long_traceback_is_cut() -> None:
    event = ComponentFailed(component="driver/db", error=ValueError("x" * 1_000_000), restart_in=None)

    assert len(of_events(event)) < 2 * MAX_TRACEBACK
    assert len(of_events(event, as_json=True)) < 2 * MAX_TRACEBACK


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


def fail() -> None:
    raise ValueError("why")


def raised() -> BaseException:
    try:
        fail()
    except ValueError as error:
        return error
    raise AssertionError


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
    open_log(LogSettings(stream=Broken(error))).info("x")


def test_a_full_device_costs_the_line_alone() -> None:
    stream = open("/dev/full", "w")  # noqa: SIM115  closing it raises as well
    open_log(LogSettings(stream=stream)).info("x")

    with pytest.raises(OSError, match="No space"):
        stream.close()


def test_standard_error_is_looked_up_for_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(LogSettings())
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
    open_log(LogSettings()).info("x")

    assert not capsys.readouterr().out


def test_lines_of_threads_are_not_mixed() -> None:
    stream = io.StringIO()
    log = open_log(LogSettings(stream=stream, as_json=True))

    def write() -> None:
        for _ in range(200):
            log.info("x" * 100)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["x" * 100] * 800


# --- events -----------------------------------------------------------------------------------------------------------


def settled(outcome: Any, error: BaseException | None = None) -> DeliverySettled:
    return DeliverySettled(
        component="dispatcher/work",
        worker="worker/w",
        delivery_id="1",
        subject="a.b",
        attempt=2,
        outcome=outcome,
        error=error,
        seconds=0.1234,
    )


def moved(state: State, reason: str = "") -> StateChanged:
    return StateChanged(component="driver/db", old=State.STARTING, new=state, reason=reason)


KERNEL = "kernel"
LINES = {
    "ready": (moved(State.READY), "info    driver/db: ready"),
    "degraded": (moved(State.DEGRADED, "gone"), "warning driver/db: degraded reason=gone"),
    "other-state": (moved(State.STOPPED), "debug   driver/db: stopped"),
    "failed": (
        ComponentFailed(component="driver/db", error=ValueError("why"), restart_in=None),
        'error   driver/db: failed error="ValueError: why"',
    ),
    "restarts": (
        ComponentFailed(component="driver/db", error=ValueError("why"), restart_in=1.234),
        'error   driver/db: failed, restarts in_s=1.23 error="ValueError: why"',
    ),
    "listening": (
        Listening(component="dispatcher/web", address="http://127.0.0.1:1"),
        "info    dispatcher/web: listening address=http://127.0.0.1:1",
    ),
    "kernel-ready": (KernelReady(component=KERNEL, seconds=0.5), "info    kernel: ready seconds=0.5"),
    "stopping": (StopRequested(component=KERNEL, reason="SIGTERM"), "info    kernel: stopping reason=SIGTERM"),
    "stopped": (
        KernelStopped(component=KERNEL, status=3, seconds=0.5),
        "info    kernel: stopped status=3 seconds=0.5",
    ),
    "drained": (
        DrainTimedOut(component="dispatcher/work", culprits=("delivery 1 at a.py:1", "delivery 2 at a.py:2")),
        'warning dispatcher/work: drain_timeout is over, cancelled culprits="delivery 1 at a.py:1; delivery 2 at a.py:2"',
    ),
    "left": (
        StopTimedOut(component="worker/w", where="a.py:1"),
        "warning worker/w: stop_timeout is over, left behind where=a.py:1",
    ),
    "blocked": (
        LoopBlocked(component=KERNEL, seconds=1.26, where="a.py:1"),
        "warning kernel: the event loop goes on blocked_s=1.3 where=a.py:1",
    ),
    "not-settled": (
        SettleFailed(component="dispatcher/work", delivery_id="1", error=OSError("gone")),
        'warning dispatcher/work: not settled delivery=1 error="OSError: gone"',
    ),
    "done": (
        settled(Ack()),
        "debug   dispatcher/work: done worker=worker/w delivery=1 attempt=2 subject=a.b seconds=0.123",
    ),
    "answered": (
        settled(Ack(), ValueError("why")),
        'warning dispatcher/work: answered with an error worker=worker/w delivery=1 attempt=2 error="ValueError: why"',
    ),
    "retried": (
        settled(Retry(1.5, "why")),
        "warning dispatcher/work: failed, tries again worker=worker/w delivery=1 attempt=2 in_s=1.5 error=why",
    ),
    "returned": (
        settled(Return()),
        "info    dispatcher/work: returned to its source worker=worker/w delivery=1 attempt=2",
    ),
    "dead": (
        settled(DeadLetter("why")),
        "error   dispatcher/work: dead-lettered worker=worker/w delivery=1 attempt=2 subject=a.b reason=why",
    ),
}


@pytest.mark.parametrize(("event", "line"), LINES.values(), ids=LINES.keys())
def test_an_event_is_a_line(event: Event, line: str) -> None:
    assert of_events(event, level="debug").splitlines()[0].partition(" ")[2] == line


def test_a_dead_letter_has_the_traceback_of_what_its_handler_raised() -> None:
    assert "raise ValueError" in of_events(settled(DeadLetter("why"), raised()))


@pytest.mark.parametrize(
    ("error", "level", "shown"),
    [(StartupError("no"), "info", False), (StartupError("no"), "debug", True), (ValueError("no"), "info", True)],
)
def test_what_is_wrong_with_the_configuration_is_one_line(error: Exception, level: str, shown: bool) -> None:
    lines = of_events(ComponentFailed(component="driver/db", error=error, restart_in=None), level=level).splitlines()

    assert lines[0].endswith(f'failed error="{type(error).__name__}: no"')
    assert (len(lines) > 1) == shown


def test_deliveries_that_go_well_are_for_debugging() -> None:
    assert not of_events(settled(Ack()))


def test_events_of_plugins_are_theirs_to_log() -> None:
    @attrs.frozen(kw_only=True)
    class Own(Event):
        pass

    assert not of_events(Own(component="driver/db"), level="debug")


# --- the standard library's logging -----------------------------------------------------------------------------------


@pytest.fixture
def root() -> Any:
    """The root logger; a test that leaves it changed would change the others."""
    logger = logging.getLogger()
    before = logger.level, list(logger.handlers)
    yield logger
    logger.setLevel(before[0])
    logger.handlers[:] = before[1]


def captured(write: Callable[[logging.Logger], object], **settings: Any) -> str:
    def capture(log: Any) -> None:
        with capture_logging(log):
            handlers = logging.getLogger().handlers
            del handlers[:-1]  # pytest's own raise what a record raises
            write(logging.getLogger("shop.orders"))

    return written(capture, **settings)


@pytest.mark.usefixtures("root")
def test_records_of_logging_reach_the_log_with_the_name_of_their_logger() -> None:
    def write(logger: logging.Logger) -> None:
        logger.info("orders: %s", "2 fulfilled")

    assert captured(write).endswith("info    shop.orders: orders: 2 fulfilled\n")
    assert json.loads(captured(write, as_json=True))["logger"] == "shop.orders"


@pytest.mark.parametrize(
    ("number", "level"),
    [(5, "debug"), (10, "debug"), (15, "debug"), (20, "info"), (30, "warning"), (40, "error"), (50, "error")],
)
def test_levels_of_logging_are_those_of_the_log(root: Any, number: int, level: str) -> None:
    root.setLevel(1)
    stream = io.StringIO()
    log = open_log(LogSettings(stream=stream, level="debug"))
    with capture_logging(log):
        root.handlers[-1].setLevel(1)
        logging.getLogger("shop").log(number, "text")

    assert f" {level:7} shop: text\n" in stream.getvalue()


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
@pytest.mark.usefixtures("root")
def test_logging_below_the_level_of_the_log_is_not_written(level: str) -> None:
    def write(logger: logging.Logger) -> None:
        for number in (10, 20, 30, 40):
            logger.log(number, "text")

    assert captured(write, level=level).count("\n") == 4 - ["debug", "info", "warning", "error"].index(level)


@pytest.mark.usefixtures("root")
def test_an_exception_of_logging_has_its_traceback() -> None:
    def write(logger: logging.Logger) -> None:
        try:
            fail()
        except ValueError:
            logger.exception("x")

    assert "raise ValueError" in captured(write)


@pytest.mark.usefixtures("root")
def test_per_cent_signs_and_arguments_that_do_not_fit_break_nothing() -> None:
    def write(logger: logging.Logger) -> None:
        logger.info("100 %")
        logger.info("%d", "no number")  # noqa: PLE1206, RUF100  the mistake under test
        logger.info(UnprintableError(), 1)

    lines = captured(write).splitlines()

    assert lines[0].endswith("shop.orders: 100 %")
    assert lines[1].endswith("shop.orders: %d (its arguments cannot be printed)")
    assert lines[2].endswith("shop.orders: <unprintable UnprintableError> (its arguments cannot be printed)")


def test_logging_is_as_it_was_afterwards_even_if_the_run_raised(root: Any) -> None:
    before = root.level, list(root.handlers)
    log = open_log(LogSettings(stream=io.StringIO()))
    with pytest.raises(ValueError, match="why"), capture_logging(log):
        fail()

    assert (root.level, root.handlers) == before


def test_a_logger_that_is_set_up_already_keeps_its_level_and_handlers(root: Any) -> None:
    own = io.StringIO()
    root.addHandler(logging.StreamHandler(own))
    root.setLevel(logging.DEBUG)
    stream = io.StringIO()
    with capture_logging(open_log(LogSettings(stream=stream))):
        logging.getLogger("shop").debug("detail")

    assert own.getvalue() == "detail\n"
    assert not stream.getvalue()
