"""Facts about the types of a worker's `config`: each is as strict as an attrs class, and none ends the check."""

# ruff: noqa: F821, PYI024, UP045, UP044
# Annotations as they may be written, sense or not.

from __future__ import annotations

import collections
import dataclasses
import enum
import fractions
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, Optional, Protocol, TypeVar

import annotated_types as at
import attrs
import msgspec
import pydantic
import pytest
import typing_extensions as te
from hypothesis import given
from hypothesis import strategies as st

from kernel import Secret
from kernel._plan.injection import Offer
from kernel._plan.signature import Role, inspect_worker

T = TypeVar("T")


@attrs.frozen
class Attrs:
    retries: int = 1
    root: Path = Path()


@dataclasses.dataclass(frozen=True)
class Data:
    retries: int = 1
    root: Path = Path()


class Typed(te.TypedDict):
    retries: te.NotRequired[int]
    root: te.NotRequired[Path]


class Named(NamedTuple):
    retries: int = 1
    root: Path = Path()


class Model(pydantic.BaseModel):
    retries: int = 1
    root: Path = Path()


class Struct(msgspec.Struct):
    retries: int = 1
    root: str = ""


class Secretive(pydantic.BaseModel):
    password: pydantic.SecretStr | None = None
    token: Secret | None = None
    plain: str = ""


@attrs.frozen
class SecretiveAttrs:
    token: Secret | None = None


class Interface(Protocol):
    a: int


class Plain:
    pass


class Metaclass(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError("not this class")


class Hostile(metaclass=Metaclass):
    pass


class Empty(enum.Enum):
    pass


class Odd(enum.Enum):
    A = object()


def configured(annotation: object, config: Mapping[str, object]) -> tuple[object, list[str]]:
    """Return what a worker with a parameter `config` of a type is given, and the problems."""

    class Worker:
        def __init__(self, config: object) -> None: ...

        async def run(self) -> None: ...

    Worker.__init__.__annotations__["config"] = annotation
    problems: list[str] = []
    shape = inspect_worker(
        Worker,
        role=Role.LOOP,
        offer=Offer(drivers={}, config=config),
        report=lambda at, text: problems.append(f"{'.'.join(at)}: {text}"),
    )
    assert shape is not None
    return shape.injection.config, problems


KINDS = [
    Attrs,
    Data,
    Typed,
    Named,
    Model,
    Struct,
    Optional[Data],
    Model | None,
    Optional[Typed],
]


@pytest.mark.parametrize("annotation", KINDS, ids=str)
def test_a_misspelt_key_is_refused(annotation: object) -> None:
    _, problems = configured(annotation, {"retires": 5})

    assert problems == ['config.retires: unknown key; did you mean "retries"? allowed: retries, root']


@pytest.mark.parametrize("annotation", KINDS, ids=str)
def test_a_path_is_made_of_a_string(annotation: object) -> None:
    config, problems = configured(annotation, {"root": "/srv"})
    root = config["root"] if isinstance(config, dict) else getattr(config, "root", None)

    assert problems == []
    assert str(root) == "/srv"


@pytest.mark.parametrize("annotation", [dict[str, int], Mapping[str, int]])
def test_the_items_of_a_mapping_are_checked(annotation: object) -> None:
    assert configured(annotation, {"a": "b"})[1] == ['config.a: must be an integer, got "b"']


@pytest.mark.parametrize("annotation", [dict, Mapping, Any, object])
def test_what_asks_for_no_types_is_given_the_table(annotation: object) -> None:
    assert configured(annotation, {"a": [1]}) == ({"a": [1]}, [])


def test_secrets_go_where_a_secret_is_asked_for_and_nowhere_else() -> None:
    config, problems = configured(Secretive, {"password": Secret("hunter2"), "token": Secret("canary")})

    assert problems == []
    assert isinstance(config, Secretive)
    assert config.password is not None
    assert config.password.get_secret_value() == "hunter2"
    assert config.token == Secret("canary")
    assert configured(SecretiveAttrs, {"token": Secret("a")}) == (SecretiveAttrs(Secret("a")), [])
    assert configured(Secretive, {"plain": Secret("a")})[1] == ["config.plain: Input should be a valid string"]
    assert configured(Attrs, {"root": Secret("a")})[1] == [
        "config.root: must be a path in a string; a secret cannot be used here"
    ]


def test_a_model_that_allows_other_keys_is_given_them() -> None:
    class Open(pydantic.BaseModel, extra="allow"):
        a: int = 0

    config, problems = configured(Open, {"b": 1})

    assert problems == []
    assert config == Open.model_validate({"b": 1})


ODD: list[object] = [
    Interface, Plain, Hostile, Empty, Odd, set[dict[str, int]], set[Data], set[Typed], frozenset[list[int]], complex,
    fractions.Fraction, re.Pattern, type, type[int], Callable, Callable[[int], int], Iterator[int], collections.ChainMap,
    T, Generic[T], Annotated[int, 3], Annotated[list[Data], at.Len(1)], Annotated[Plain, at.Gt(1)], "Nowhere",
    list["Nowhere"], typing.ForwardRef("Nowhere"), te.Never, te.Self, te.LiteralString, te.Unpack[tuple[int]],
    tuple[int, te.Unpack[tuple[str, ...]]], typing.Literal[b"x"], typing.Hashable, typing.Optional, typing.Union, typing.ClassVar[int],
    3, ..., None, (), [], {}, NotImplemented, lambda: 1, print, typing, Plain(), Secret, typing.IO[str], typing.Generic,
    tuple, list, dict, type, te.TypeGuard[int], te.ParamSpec("P"), te.NewType("N", Plain),
    te.TypeAliasType("A", "Nowhere"), dict[list[int], int], dict[Data, int], dict[Any, Any], collections.Counter, collections.namedtuple("N", "a b"),
    pydantic.SecretStr, pydantic.AnyUrl, pydantic.Json, pydantic.EmailStr, msgspec.Raw, msgspec.UNSET, enum.Enum, enum.Flag,
    typing.NamedTuple, te.TypedDict, typing.Protocol, BaseException, ExceptionGroup, bytes, memoryview, range, slice, property,
]  # fmt: skip
"""Annotations that somebody may write, sense or not."""
VALUES: list[object] = [
    None, True, 0, -1, 10**400, 1.5, float("nan"), "", "x", "\ud800", "\0", b"x", [], [1], [[1]], {}, {"a": 1}, {"a": {"b": []}},
    {1: 2}, Secret("canary"), (1, 2), {1}, Plain(), object, print, Data(), [Data()], Typed(),
]  # fmt: skip


def wrapped(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    wraps: list[Callable[[Any], object]] = [
        lambda one: list[one],
        lambda one: set[one],
        lambda one: dict[str, one],
        lambda one: dict[one, int],
        lambda one: tuple[one, int],
        lambda one: tuple[one, ...],
        lambda one: Optional[one],
        lambda one: one | int,
        lambda one: Annotated[one, at.Gt(1)],
        lambda one: collections.deque[one],
        lambda one: attrs.make_class("Made", {"x": attrs.field(type=one)}),
        lambda one: dataclasses.make_dataclass("Made", [("x", one)]),
        lambda one: te.TypedDict("Made", {"x": one}),  # type: ignore[operator]
        lambda one: NamedTuple("Made", [("x", one)]),
        lambda one: pydantic.create_model("Made", x=(one, ...)),
    ]

    def wrap(pair: tuple[Callable[[Any], object], object]) -> object:
        try:
            return pair[0](pair[1])
        except Exception:  # noqa: BLE001 -- what Python or a library refuses to write is nobody's annotation
            return pair[1]

    return st.tuples(st.sampled_from(wraps), inner).map(wrap)


ANNOTATIONS = st.recursive(
    st.sampled_from([*ODD, Attrs, Data, Typed, Named, Model, Struct, int, str]), wrapped, max_leaves=4
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@given(ANNOTATIONS, st.sampled_from(VALUES))
def test_no_annotation_ends_the_check(annotation: object, value: object) -> None:
    _, problems = configured(annotation, {"x": value, "a": value, "retries": value})

    assert all("canary" not in problem for problem in problems)
