"""Handlers that are called like functions: what `kernel check` says of them, and how arguments reach parameters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from kernel import Arguments, Envelope, answers, handles
from kernel._cli.show import plan_as_json, plan_as_text
from kernel._core.spec import HandlerSpec
from kernel._manifest.manifest import from_mapping
from kernel._manifest.registry import Registry, discover
from kernel._plan.injection import Offer
from kernel._plan.plan import resolve
from kernel._plan.signature import Role, inspect_worker
from kernel.abc import Delivery
from kernel.errors import ArgumentsError, ConversionError, DecodeError
from kernel.testing import check_worker


class Store: ...


@attrs.frozen
class Order:
    sku: str
    quantity: int = 1


def look(use: object, **offer: Any) -> tuple[HandlerSpec, list[str], Mapping[str, str]]:
    """Return the only handler, what is wrong with it, and what its worker is given."""
    found: list[str] = []
    given = Offer(**{"drivers": {"store": Store}, **offer})
    shape = inspect_worker(use, role=Role.HANDLER, offer=given, report=lambda _, text: found.append(text))
    assert shape is not None
    [handler] = shape.handlers
    return handler, found, shape.injection.drivers


def bind(use: object, payload: object) -> Arguments:
    handler, found, _ = look(use)
    assert found == []
    bound = handler.convert(payload)
    assert isinstance(bound, Arguments)
    return bound


def problems(use: object, payload: object) -> tuple[str, ...]:
    with pytest.raises(ArgumentsError) as caught:
        bind(use, payload)
    return caught.value.problems


@answers("billing.charge")
async def charge(order: Order, amount: int = 3, *, note: str = "") -> None: ...


@answers("x")
async def anything(first: int, /, second: str = "", *rest: float, key: bool = False, **others: Order) -> None: ...


# --- the mark ---------------------------------------------------------------------------------------------------


def test_answers_only_marks() -> None:
    async def function() -> None: ...

    assert answers("a")(function) is function
    assert look(function)[0].patterns == ("a",)


@pytest.mark.parametrize("subjects", [(), (len,)], ids=["empty", "bare"])
def test_answers_without_subjects_says_how_to_write_it(subjects: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=r'such as @answers\("billing.charge"\)'):
        answers(*subjects)


@pytest.mark.parametrize(("inner", "outer"), [(answers, handles), (handles, answers)])
def test_one_function_takes_a_payload_or_arguments(inner: Callable[..., Any], outer: Callable[..., Any]) -> None:
    async def function(payload: object) -> None: ...

    with pytest.raises(TypeError, match="cannot both stand on"):
        outer("a")(inner("b")(function))


def test_a_worker_may_have_both_kinds_of_handlers() -> None:
    class Worker:
        @handles("paid")
        async def paid(self, payload: dict[str, int]) -> None: ...

        @answers("add")
        @staticmethod
        async def add(one: int, other: int) -> None: ...

    found: list[str] = []
    shape = inspect_worker(
        Worker, role=Role.HANDLER, offer=Offer(drivers={}), report=lambda _, text: found.append(text)
    )

    assert found == []
    assert shape is not None
    assert {handler.method: handler.parameters for handler in shape.handlers} == {
        "paid": None,
        "add": "(one: int, other: int)",
    }


# --- binding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        Arguments(({"sku": "tea"}, 5), {"note": "n"}),
        Arguments(({"sku": "tea"},), {"note": "n", "amount": 5}),
        Arguments((Order("tea"),), {"note": "n", "amount": 5}),
        {"order": {"sku": "tea"}, "amount": 5, "note": "n"},
        {"args": [{"sku": "tea"}, 5], "kwargs": {"note": "n"}},
        {"args": [{"sku": "tea"}], "kwargs": {"note": "n", "amount": 5}},
    ],
    ids=["positions", "both", "converted", "object", "shape", "shape-both"],
)
def test_arguments_come_in_several_shapes(payload: object) -> None:
    assert bind(charge, payload) == Arguments((), {"order": Order("tea"), "amount": 5, "note": "n"})


def test_an_array_is_given_by_position() -> None:
    assert bind(charge, [{"sku": "tea"}]) == bind(charge, ({"sku": "tea"},)) == Arguments((), {"order": Order("tea")})


def test_an_object_with_other_keys_beside_args_and_kwargs_is_given_by_name() -> None:
    @answers("x")
    async def worker(args: list[int], kwargs: dict[str, int], more: int = 0) -> None: ...

    payload = {"args": [1], "kwargs": {"a": 2}, "more": 3}

    assert bind(worker, payload) == Arguments((), payload)


@pytest.mark.parametrize("payload", [{"args": 1, "kwargs": {}}, {"args": [], "kwargs": []}])
def test_args_that_are_no_array_or_kwargs_that_are_no_object_are_given_by_name(payload: object) -> None:
    @answers("x")
    async def worker(args: object, kwargs: object) -> None: ...

    assert bind(worker, payload) == Arguments((), payload)


def test_defaults_are_the_functions_own() -> None:
    assert bind(charge, {"order": {"sku": "tea"}}).kwargs.keys() == {"order"}


def test_every_kind_of_parameter_is_converted() -> None:
    payload = Arguments((1, "two", 3, 4), {"key": True, "tea": {"sku": "t"}, "first": {"sku": "f"}})

    assert bind(anything, payload) == Arguments(
        (1, "two", 3.0, 4.0), {"key": True, "tea": Order("t"), "first": Order("f")}
    )


def test_what_is_not_annotated_is_taken_as_it_is() -> None:
    @answers("x")
    async def worker(one, *rest, **others) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003

    marker = object()

    assert bind(worker, Arguments((marker, marker), {"k": marker})) == Arguments((marker, marker), {"k": marker})


async def none() -> object:
    return locals()


async def plain(a, b=2) -> object:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return locals()


async def positional(a, b=2, /, c=3) -> object:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return locals()


async def named(a, *, b, c=3) -> object:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return locals()


async def rest(a, b=2, *c) -> object:  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002
    return locals()


async def others(a, /, b=2, **c) -> object:  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN003
    return locals()


async def everything(a, /, b, *c, d=4, **e) -> object:  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003
    return locals()


async def only_rest(*a) -> object:  # type: ignore[no-untyped-def]  # noqa: ANN002
    return locals()


CALLS = [
    Arguments(tuple(range(count)), dict.fromkeys(names, "k"))
    for count in range(5)
    for size in range(4)
    for names in itertools.combinations("abcdx", size)
]


async def outcome(function: Callable[..., Any], call: Arguments) -> object:
    try:
        return await function(*call.args, **call.kwargs)
    except TypeError:
        return "refused"


@pytest.mark.parametrize("function", [none, plain, positional, named, rest, others, everything, only_rest])
async def test_arguments_are_bound_as_python_binds_them(function: Callable[..., Any]) -> None:
    handler, found, _ = look(answers("x")(function))
    assert found == []
    got = {}
    for number, call in enumerate(CALLS):
        try:
            got[number] = await outcome(function, handler.convert(call))  # type: ignore[arg-type]
        except ArgumentsError:
            got[number] = "refused"

    assert got == {number: await outcome(function, call) for number, call in enumerate(CALLS)}


# --- what does not fit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({}, ["order: is missing"]),
        ([], ["order: is missing"]),
        ({"order": {"sku": "t"}, "colour": 1}, ["colour: is unexpected; there are: order, amount, note"]),
        ([{"sku": "t"}, 1, 2, 3], ["at most 2 can be given by position, got 4"]),
        (Arguments(({"sku": "t"},), {"order": 1}), ["order: is given twice, by position and by name"]),
        ({"order": {"sku": "t", "quantity": "2"}}, ['order.quantity: must be an integer, got "2"']),
        ({"order": 1, "amount": "x"}, ["order: must be an object, got 1", 'amount: must be an integer, got "x"']),
        (7, ["must be arguments: an object by name, or an array by position, got 7"]),
        (None, ["must be arguments: an object by name, or an array by position, got null"]),
        ({1: 2, "order": {"sku": "t"}}, ["1: is unexpected; there are: order, amount, note"]),
    ],
)
def test_what_does_not_fit_names_the_parameter(payload: object, expected: list[str]) -> None:
    assert list(problems(charge, payload)) == expected


def test_parts_of_variadic_parameters_have_their_place() -> None:
    payload = Arguments((1, "two", 3, "four"), {"tea": {"sku": 1}})

    assert problems(anything, payload) == ('rest[1]: must be a number, got "four"', "tea.sku: must be a string, got 1")


def test_what_can_only_be_given_by_position_says_so() -> None:
    @answers("x")
    async def worker(one: int, /) -> None: ...

    assert problems(worker, {"one": 1}) == ("one: must be given by position", "one: is missing")


def test_hostile_names_are_cut_and_escaped_and_not_all_listed() -> None:
    found = problems(charge, {f"\n{number}" + "x" * 10_000: 1 for number in range(1000)})

    assert len(found) == 21
    assert found[-1] == "and more"
    assert all(len(text) < 200 and text.isprintable() for text in found)


def test_wrong_arguments_are_a_wrong_payload_too() -> None:
    assert issubclass(ArgumentsError, ConversionError)
    assert issubclass(ArgumentsError, DecodeError)


# --- what the kernel gives ----------------------------------------------------------------------------------------


def test_envelope_and_delivery_are_no_arguments() -> None:
    @answers("x")
    async def worker(envelope: Envelope, order: int, delivery: Delivery) -> None: ...

    handler, found, _ = look(worker)

    assert found == []
    assert handler.parameters == "(order: int)"
    assert (handler.envelope_parameter, handler.delivery_parameter) == ("envelope", "delivery")
    assert handler.convert([1]) == Arguments((), {"order": 1})
    assert problems(worker, {"order": 1, "envelope": 2}) == ("envelope: is unexpected; there are: order",)


def test_no_call_sets_the_envelope_among_other_names() -> None:
    @answers("x")
    async def worker(*, envelope: Envelope, **others: int) -> None: ...

    assert bind(worker, {"more": 1}) == Arguments((), {"more": 1})
    assert problems(worker, {"envelope": 2}) == ("envelope: is unexpected; there are: nothing",)


def test_no_call_sets_what_is_injected() -> None:
    @answers("x")
    async def worker(order: int, store: Store, config: dict[str, int], **others: int) -> None: ...

    handler, found, drivers = look(worker, config={"size": 3})

    assert found == []
    assert drivers == {"store": "driver/store"}
    assert handler.parameters == "(order: int, **others: int)"
    with pytest.raises(ArgumentsError, match=r"store: is unexpected.*config: is unexpected"):
        handler.convert({"order": 1, "store": 2, "config": 3, "more": 4})


def test_no_call_sets_self() -> None:
    class Worker:
        @answers("x")
        async def method(self, **others: int) -> None: ...

        @answers("y")
        async def other(self, /, **others: int) -> None: ...

    shape = inspect_worker(Worker, role=Role.HANDLER, offer=Offer(drivers={}), report=lambda *_: None)
    assert shape is not None
    method, other = shape.handlers

    assert other.convert({"self": 1}) == Arguments((), {"self": 1})
    with pytest.raises(ArgumentsError, match="self: is unexpected; there are: nothing"):
        method.convert({"self": 1})


def test_config_is_an_argument_where_the_worker_has_none() -> None:
    @answers("x")
    async def worker(config: int) -> None: ...

    assert bind(worker, [3]) == Arguments((), {"config": 3})


def test_a_driver_that_is_disabled_is_no_argument() -> None:
    @answers("x")
    async def worker(cache: object) -> None: ...

    [problem] = look(worker, disabled=frozenset({"cache"}))[1]
    assert problem.endswith("worker has no default, and driver/cache is disabled")


async def test_the_check_of_workers_calls_as_the_kernel_does(autojump_clock: MockClock) -> None:
    seen: list[object] = []

    class Worker:
        @answers("x")
        async def charge(self, order: Order, /, *amounts: int, delivery: Delivery, **notes: str) -> None:
            await trio.lowlevel.checkpoint()
            seen.append((order, amounts, delivery.attempt, notes))

    call = Arguments(({"sku": "tea"}, 1, 2), {"note": "n"})
    await check_worker(Worker, samples={"charge": call})
    with pytest.raises(AssertionError, match="each handler takes its payload: ArgumentsError: order: is missing"):
        await check_worker(Worker, samples={"charge": Arguments()})

    assert seen[0] == (Order("tea"), (1, 2), 1, {"note": "n"})


# --- what kernel check says ---------------------------------------------------------------------------------------


def test_parameters_are_shown_as_python_writes_them() -> None:
    expected = "(first: int, /, second: str = ..., *rest: float, key: bool = ..., **others: Order)"

    assert look(anything)[0].parameters == expected


async def unconvertible(one: len) -> None: ...  # type: ignore[valid-type]


async def unresolvable(one: Missing, *rest: Absent) -> None: ...  # type: ignore[name-defined]  # noqa: F821


async def enveloped(envelope: Envelope, /) -> None: ...


async def squeezed(one: int, envelope: Envelope, *rest: int) -> None: ...


async def injected(store: Store, *rest: int) -> None: ...


async def doubled(one: Envelope, other: Envelope) -> None: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (unconvertible, ['"one" of unconvertible: payloads cannot be converted to <built-in function len>: ']),
        (
            unresolvable,
            [
                "the annotation of \"one\" of unresolvable cannot be resolved: name 'Missing' is not defined",
                "the annotation of \"rest\" of unresolvable cannot be resolved: name 'Absent' is not defined",
            ],
        ),
        (enveloped, ['"envelope" of enveloped is given by name, so it cannot be positional-only']),
        (squeezed, ['"envelope" of squeezed is given by name, but stands before "*rest", so that a call by']),
        (injected, ['"store" of injected is given by name, but stands before "*rest", so that a call by']),
        (doubled, ['doubled asks for the envelope twice: "one" and "other"']),
    ],
)
def test_a_signature_that_cannot_be_called_is_reported(function: object, expected: list[str]) -> None:
    found = look(answers("x")(function))[1]  # type: ignore[type-var]

    assert [text[: len(start)] for text, start in zip(found, expected, strict=True)] == expected


# --- what kernel plan shows ---------------------------------------------------------------------------------------


def test_the_plan_shows_what_can_be_called() -> None:
    class Desk:
        @handles("paid")
        async def paid(self, payload: object) -> None: ...

        @answers("billing.charge", "billing.pay")
        async def charge(self, order: int, note: str = "") -> None: ...

    registry = Registry((*discover().plugins, *Registry.of({"workers": {"desk": Desk}}).plugins))
    tables = {
        "drivers": {"queue": {"plugin": "memory"}},
        "dispatchers": {
            "incoming": {"plugin": "consumer", "driver": "queue", "protocol": "json", "queue": "q", "bindings": ["#"]},
        },
        "workers": {"desk": {"use": "desk", "dispatcher": "incoming"}},
    }
    plan = resolve(from_mapping(tables), registry)
    [desk] = [row for row in plan_as_json(plan, registry)["components"] if row["name"] == "desk"]  # type: ignore[attr-defined]

    assert "handles paid, billing.charge(order: int, note: str = ...), billing.pay(order: int, note: str = ...)" in (
        plan_as_text(plan, registry)
    )
    assert desk["handles"] == ["paid", "billing.charge", "billing.pay"]
    assert desk["calls"] == [
        {"subject": "billing.charge", "parameters": "(order: int, note: str = ...)"},
        {"subject": "billing.pay", "parameters": "(order: int, note: str = ...)"},
    ]
