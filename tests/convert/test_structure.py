"""Facts about making attrs objects of tables."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NewType, TypeVar

import attrs
import pytest
from attrs import validators as v
from typing_extensions import TypeAliasType

from kernel import Secret
from kernel._convert.structure import structure
from kernel._core.policies import Restart, RestartPolicy, RetryPolicy

T = TypeVar("T")
Name = NewType("Name", str)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"
    ONE = 1


@attrs.frozen(kw_only=True)
class Inner:
    a: int
    b: str = "x"


@attrs.frozen(kw_only=True)
class Other:
    c: int


def made(cls: type[T], value: Mapping[str, object], also_allowed: Sequence[str] = ()) -> T:
    """Make an object without problems."""
    problems: list[object] = []
    result = structure(value, cls, report=lambda at, text: problems.append((at, text)), also_allowed=also_allowed)
    assert problems == []
    assert result is not None
    return result


def refused(cls: type[object], value: Mapping[str, object], also_allowed: Sequence[str] = ()) -> list[str]:
    """Return the problems of a value, each `path: text`."""
    problems: list[str] = []
    result = structure(
        value, cls, report=lambda at, text: problems.append(f"{'.'.join(at)}: {text}"), also_allowed=also_allowed
    )
    assert result is None
    return problems


def holder(annotation: object, **options: Any) -> type[Any]:
    """Return an attrs class with one field, `x`, of a type."""
    return attrs.make_class("Holder", {"x": attrs.field(type=annotation, **options)}, frozen=True)  # type: ignore[arg-type]


# --- types ------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (bool, True, True),
        (int, 3, 3),
        (float, 3, 3.0),
        (float, 0.5, 0.5),
        (str, "a", "a"),
        (Name, "a", "a"),
        (Annotated[int, "unit"], 3, 3),
        (TypeAliasType("Count", int), 3, 3),
        (datetime, NOW, NOW),
        (date, NOW.date(), NOW.date()),
        (time, NOW.time(), NOW.time()),
        (Path, "a/b", Path("a/b")),
        (Path, Path("a"), Path("a")),
        (Secret, Secret("s"), Secret("s")),
        (Secret | None, Secret("s"), Secret("s")),
        (Color, "red", Color.RED),
        (Color, Color.RED, Color.RED),
        (Literal["a", 1], 1, 1),
        (int | None, None, None),
        (int | str, "a", "a"),
        (Inner | Other, {"c": 1}, Other(c=1)),
        (list[int], [1], [1]),
        (list, [1, "a"], [1, "a"]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, str], [1, "a"], (1, "a")),
        (Sequence[str], ["a"], ("a",)),
        (set[int], [1, 1], {1}),
        (frozenset[Color], ["red"], frozenset({Color.RED})),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict, {"a": [1]}, {"a": [1]}),
        (Mapping[Color, Inner], {"red": {"a": 1}}, {Color.RED: Inner(a=1)}),
        (Inner, {"a": 1}, Inner(a=1)),
        (Inner, Inner(a=1), Inner(a=1)),
        (tuple[Inner, ...], [{"a": 1}, {"a": 2, "b": "y"}], (Inner(a=1), Inner(a=2, b="y"))),
        (object, {"a": Secret("s")}, {"a": Secret("s")}),
        (Any, [1], [1]),
        (type[Exception], KeyError, KeyError),
        (type, int, int),
        (type[Exception], "KeyError", KeyError),
        (type[Exception], "json:JSONDecodeError", json.JSONDecodeError),
        (type[Exception] | None, "KeyError", KeyError),
        (tuple[type[Exception], ...], ["KeyError", "json.decoder:JSONDecodeError"], (KeyError, json.JSONDecodeError)),
        (Callable[..., object], "json:dumps", json.dumps),
        (Callable[[int], int], abs, abs),
        (bytes, b"a", b"a"),
    ],
)
def test_a_field_takes_values_of_its_type(annotation: object, value: object, expected: object) -> None:
    x = made(holder(annotation), {"x": value}).x

    assert x == expected
    assert type(x) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (bool, 1, "must be true or false, got 1"),
        (int, True, "must be an integer, got true"),
        (int, 1.0, "must be an integer, got 1.0"),
        (int, "1", 'must be an integer, got "1"; write 1, without quotes'),
        (float, True, "must be a number, got true"),
        (float, "0.5", 'must be a number, got "0.5"; write 0.5, without quotes'),
        (float, "5 min", 'must be a number, got "5 min"; write seconds: 300'),
        (int, "1e3", 'must be an integer, got "1e3"'),
        (bool, "Yes", 'must be true or false, got "Yes"; write true, without quotes'),
        (float, 10**400, "must be a number, got a huge integer"),
        (str, 1, 'must be a string, got 1; write "1", in quotes'),
        (str, b"ab", "must be a string, got 2 bytes"),
        (str, NOW, "must be a string, got 2026-01-02T03:04:05"),
        (str, object(), "must be a string, got object"),
        (str | None, 1, 'must be a string, got 1; write "1", in quotes'),
        (datetime, NOW.date(), "must be a date and time, got 2026-01-02"),
        (date, NOW, "must be a date, got 2026-01-02T03:04:05"),
        (time, "03:04", 'must be a time of day, got "03:04"'),
        (Path, 1, "must be a path in a string, got 1"),
        (Path, "a\0b", "must be a path in a string, got 'a\\x00b'"),
        (Color, "gren", 'must be "red", "blue" or 1, got "gren"'),
        (Color, True, 'must be "red", "blue" or 1, got true'),
        (Literal["a", "b"], "c", 'must be "a" or "b", got "c"'),
        (Literal[1], True, "must be 1, got true"),
        (int | str, [], "must be an integer or a string, got an array"),
        (list[int] | Inner | None, 1, "must be an array or a table, got 1"),
        (list[int], "abc", 'must be an array, got "abc"; write ["abc"]'),
        (tuple[int, str], [1], "must be an array of 2, got 1"),
        (dict[str, int], [], "must be a table, got an array"),
        (Inner, "a", 'must be a table, got "a"; a table is written { key = value }'),
        (type[Exception], "int", 'must be a class derived from Exception, got "int"'),
        (type[Exception], "json:dumps", 'must be a class derived from Exception, got "json:dumps"'),
        (type[Exception], "KeyErr", 'must be "module:Name"'),
        (type[Exception], "jsn:JSONDecodeError", 'there is no module "jsn"'),
        (type[Exception], "json:JSONDecodeErr", '"json" has no "JSONDecodeErr"; did you mean "JSONDecodeError"?'),
        (Callable[..., object], "json:__doc__", 'must be a function, got "json:__doc__"'),
        (type[Exception], int, "must be a class derived from Exception, got type"),
        (bytes, "a", 'must be bytes as base64 in a string, got "a"'),
        (Secret | str, 1, 'must be a secret: { env = "NAME" } or { file = "/path" } or a string, got 1'),
        (str, "a" * 70, None),
        (int, "a" * 70, f'must be an integer, got "{"a" * 60}..."'),
        (int, "a\n\x1b[0m", "must be an integer, got 'a\\n\\x1b[0m'"),
    ],
)
def test_a_field_refuses_all_other_values(annotation: object, value: object, text: str | None) -> None:
    if text is None:
        made(holder(annotation), {"x": value})
    else:
        assert refused(holder(annotation), {"x": value}) == [f"x: {text}"]


@pytest.mark.parametrize("value", ["canary", 1, ["canary"], {"env": "A", "x": "canary"}])
def test_a_secret_takes_no_plain_value_and_does_not_show_it(value: object) -> None:
    text = 'x: must be a secret: write { env = "NAME" } or { file = "/path/to/it" }'

    assert refused(holder(Secret), {"x": value}) == [text]
    assert refused(holder(Secret | None), {"x": value}) == [text]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [(str, "a string"), (Path, "a path in a string"), (int, "an integer"), (bytes, "bytes as base64 in a string")],
)
def test_a_plain_field_takes_no_secret(annotation: object, words: str) -> None:
    text = f"x: must be {words}; a secret cannot be used here"

    assert refused(holder(annotation), {"x": Secret("canary")}) == [text]


# --- keys -------------------------------------------------------------------------------------------------------


def test_every_problem_of_a_table_is_reported_with_its_path() -> None:
    @attrs.frozen(kw_only=True)
    class Config:
        name: str
        port: int = attrs.field(default=1, validator=v.ge(1))
        inner: Inner | None = None
        inners: tuple[Inner, ...] = ()
        weights: dict[str, int] = attrs.field(factory=dict)

    value = {
        "prot": 1,
        "port": 0,
        "inner": {"b": 1, "c": 2},
        "inners": [{"a": "1"}, 3],
        "weights": {"a": "1", "b": 2},
    }

    assert refused(Config, value) == [
        'prot: unknown key; did you mean "port"? allowed: name, port, inner, inners, weights',
        "name: is missing; it must be a string",
        "inner.c: unknown key; allowed: a, b",
        "inner.a: is missing; it must be an integer",
        'inner.b: must be a string, got 1; write "1", in quotes',
        'inners.0.a: must be an integer, got "1"; write 1, without quotes',
        "inners.1: must be a table, got 3; a table is written { key = value }",
        'weights.a: must be an integer, got "1"; write 1, without quotes',
        "port: must be at least 1, got 0",
    ]


def test_a_missing_key_says_what_belongs_there() -> None:
    @attrs.frozen
    class Config:
        a: Color
        b: Literal["x", "y"]
        c: tuple[int, ...]
        d: dict[str, int]
        e: Inner | None
        f: bytes

    assert refused(Config, {}) == [
        'a: is missing; it must be "red", "blue" or 1',
        'b: is missing; it must be "x" or "y"',
        "c: is missing; it must be an array",
        "d: is missing; it must be a table",
        "e: is missing; it must be a table",
        "f: is missing; it must be bytes as base64 in a string",
    ]


def test_a_table_for_a_union_with_one_table_is_read_as_that() -> None:
    assert refused(holder(list[int] | Inner), {"x": {"b": "y"}}) == ["x.a: is missing; it must be an integer"]


def test_keys_taken_out_by_somebody_else_are_suggested() -> None:
    found = refused(Inner, {"a": 1, "start_timout": 1}, also_allowed=["start_timeout"])

    assert found == ['start_timout: unknown key; did you mean "start_timeout"? allowed: a, b']


def test_a_table_without_fields_allows_nothing() -> None:
    @attrs.frozen
    class Empty:
        hidden: int = attrs.field(default=1, init=False)

    assert made(Empty, {}) == Empty()
    assert refused(Empty, {"hidden": 1}) == ["hidden: unknown key; allowed: nothing"]


def test_a_private_field_has_its_alias_as_key() -> None:
    @attrs.frozen
    class Config:
        _size: int = attrs.field(validator=v.ge(1))

    assert made(Config, {"size": 2}) == Config(2)
    assert refused(Config, {"size": 0}) == ["size: must be at least 1, got 0"]


def test_types_that_cannot_be_resolved_are_the_fault_of_the_plugin() -> None:
    @attrs.frozen
    class Config:
        x: Nowhere  # type: ignore[name-defined]  # noqa: F821 -- the fault

    [found] = refused(Config, {"x": 1})

    assert "Config cannot be resolved, a fault of the plugin: name 'Nowhere' is not defined" in found


def test_a_generic_class_without_arguments_takes_anything_for_its_parameter() -> None:
    @attrs.frozen
    class Box(Generic[T]):
        content: T

    assert made(Box, {"content": "a"}) == Box("a")


# --- validators -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "validator", "value", "text"),
    [
        (int, v.ge(1), 0, "must be at least 1, got 0"),
        (int, v.gt(1), 1, "must be more than 1, got 1"),
        (int, v.le(5), 6, "must be at most 5, got 6"),
        (int, v.lt(5), 5, "must be less than 5, got 5"),
        (float, v.and_(v.ge(0), v.le(1)), 2, "must be at most 1, got 2.0"),
        (float | None, v.optional(v.gt(0)), 0, "must be more than 0, got 0.0"),
        (str, v.in_(("a", "b")), "c", "must be one of 'a', 'b', got 'c'"),
        (str, v.in_(["a"]), "c", "must be one of 'a', got 'c'"),
        (str, v.in_({"a"}), "c", "must be one of 'a', got 'c'"),
        (str, v.matches_re("[a-z]+"), "A", "must match [a-z]+, got 'A'"),
        (str, v.min_len(2), "a", "must have a length of at least 2, got 1"),
        (str, v.max_len(2), "abc", "must have a length of at most 2, got 3"),
        (tuple[int, ...], v.deep_iterable(v.ge(1)), [1, 0], "must be at least 1, got 0"),
        (str, v.in_(("a",)), "c" * 400, f"must be one of 'a', got '{'c' * 59}..."),
    ],
)
def test_what_attrs_validators_say_is_put_in_plain_words(
    annotation: object, validator: Any, value: object, text: str
) -> None:
    assert refused(holder(annotation, validator=validator), {"x": value}) == [f"x: {text}"]


def test_a_validator_of_ones_own_is_reported_at_its_field() -> None:
    @attrs.frozen(kw_only=True)
    class Config:
        low: int = 0
        high: int = attrs.field()

        @high.validator
        def _check(self, attribute: attrs.Attribute[int], value: int) -> None:
            if value < self.low:
                raise ValueError(f"must not be below low ({self.low})")

    assert refused(Config, {"low": 3, "high": 2}) == ["high: must not be below low (3)"]
    assert refused(Config, {"low": "3", "high": 2}) == ['low: must be an integer, got "3"; write 3, without quotes']
    assert made(Config, {"high": 2}) == Config(high=2)


def test_every_validator_that_refuses_is_reported() -> None:
    assert refused(RetryPolicy, {"attempts": 0, "jitter": 2, "backoff_factor": 0.5}) == [
        "backoff_factor: must be at least 1, got 0.5",
        "jitter: must be at most 1, got 2.0",
        "attempts: must be at least 1, got 0",
    ]


def test_a_class_that_refuses_as_a_whole_is_reported_at_its_table() -> None:
    @attrs.frozen
    class Config:
        inner: Picky

    assert refused(Config, {"inner": {"a": 1, "b": 1}}) == ["inner: a and b must differ"]
    assert refused(Picky, {"a": 1, "b": 1}) == [": a and b must differ"]


@attrs.frozen
class Picky:
    a: int
    b: int

    def __attrs_post_init__(self) -> None:
        if self.a == self.b:
            raise ValueError("a and b must differ")


def test_an_exception_without_a_text_is_reported_by_its_name() -> None:
    def fail(instance: object, attribute: object, value: object) -> None:
        raise TypeError

    assert refused(holder(int, validator=fail), {"x": 1}) == ["x: TypeError"]


def test_converters_are_applied_before_validators() -> None:
    cls = holder(str, converter=str.upper, validator=v.in_(("A", "B")))

    assert made(cls, {"x": "a"}).x == "A"
    assert refused(cls, {"x": "c"}) == ["x: must be one of 'A', 'B', got 'C'"]


def test_a_converter_that_refuses_is_reported() -> None:
    assert refused(holder(str, converter=int), {"x": "c"}) == [": invalid literal for int() with base 10: 'c'"]


def test_a_converter_that_wants_the_object_is_left_to_it() -> None:
    converter = attrs.Converter(lambda value, self_: value * 2, takes_self=True)  # type: ignore[misc]
    cls = holder(int, converter=converter, validator=v.le(5))

    assert made(cls, {"x": 2}).x == 4
    assert refused(cls, {"x": 10}) == ["x: must be at most 5, got 10"]


# --- the kernel's own tables ------------------------------------------------------------------------------------


def test_the_restart_table_is_read() -> None:
    policy = made(RestartPolicy, {"policy": "on_failure", "max_restarts": 2, "window": 10})

    assert policy == RestartPolicy(policy=Restart.ON_FAILURE, max_restarts=2, window=10.0)
    assert refused(RestartPolicy, {"policy": "alwys"}) == [
        'policy: must be "always", "on_failure" or "never", got "alwys"'
    ]


def test_the_retry_table_takes_resolved_exceptions() -> None:
    assert made(RetryPolicy, {"on": [KeyError]}) == RetryPolicy(on=(KeyError,))
    assert refused(RetryPolicy, {"on": [KeyError, "x"]}) == ['on.1: must be "module:Name"']
