from __future__ import annotations

import functools
import inspect
import typing
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Never, Self

import attrs
import pytest

from kernel import Envelope, handles
from kernel._plan.injection import Offer, arguments_of, returned_by
from kernel._plan.signature import Role, Shape, inspect_worker
from kernel.abc import Delivery
from kernel.errors import ConversionError


class Store:
    pass


class FastStore(Store):
    pass


@attrs.frozen
class Order:
    number: int


@attrs.frozen
class Config:
    size: int = 3


def look(use: object, role: Role = Role.HANDLER, **offer: Any) -> Shape:
    found: list[tuple[tuple[str, ...], str]] = []
    given = Offer(**{"drivers": {"store": FastStore, "other": object}, **offer})
    shape = inspect_worker(use, role=role, offer=given, report=lambda at, text: found.append((at, text)))
    assert not found
    assert shape is not None
    return shape


def faults(use: object, role: Role = Role.HANDLER, **offer: Any) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    given = Offer(**{"drivers": {"store": FastStore, "other": object}, **offer})
    inspect_worker(use, role=role, offer=given, report=lambda at, text: found.append((".".join(at), text)))
    return found


def test_handles_only_marks() -> None:
    def function() -> None: ...

    assert handles("a")(function) is function


def test_marks_add_up_in_the_order_of_reading() -> None:
    class Worker:
        @handles("a")
        @handles("b", "c")
        async def created(self, payload: object) -> None: ...

    assert [handler.patterns for handler in look(Worker).handlers] == [("a", "b", "c")]


@pytest.mark.parametrize("subjects", [(), (len,)], ids=["empty", "bare"])
def test_handles_without_subjects_says_how_to_write_it(subjects: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match="in parentheses"):
        handles(*subjects)


def test_a_payload_is_converted_to_its_annotation() -> None:
    async def worker(order: Order) -> None: ...

    [handler] = look(worker).handlers

    assert handler.convert({"number": 3}) == Order(3)
    with pytest.raises(ConversionError):
        handler.convert({"number": "three"})


def test_a_parameter_annotated_as_any_takes_every_resource() -> None:
    class Worker:
        def __init__(self, store: Any) -> None: ...

        @handles("#")
        async def handle(self, payload: object) -> None: ...

    assert faults(Worker) == []


def test_an_unannotated_payload_stays_as_it_is() -> None:
    async def worker(order) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001

    payload = object()

    assert look(worker).handlers[0].convert(payload) is payload


def test_envelope_and_delivery_are_found_by_annotation_or_by_name() -> None:
    class Worker:
        @handles("a")
        async def annotated(self, payload: object, one: Envelope, two: Delivery) -> None: ...

        @handles("b")
        async def named(self, payload, envelope, delivery) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001

    annotated, named = look(Worker).handlers

    assert (annotated.envelope_parameter, annotated.delivery_parameter) == ("one", "two")
    assert (named.envelope_parameter, named.delivery_parameter) == ("envelope", "delivery")


def test_a_function_is_given_resources_beside_its_payload() -> None:
    async def fulfil(order: Order, store: Store, config: Config, envelope: Envelope, often: int = 1) -> None: ...

    shape = look(fulfil, config={"size": 4})

    assert shape.injection.drivers == {"store": "driver/store"}
    assert (shape.injection.config_parameter, shape.injection.config) == ("config", Config(4))
    assert shape.handlers[0].envelope_parameter == "envelope"
    assert not shape.runs


def test_a_function_that_nobody_calls_is_the_loop_and_given_all_its_parameters() -> None:
    async def loop(store: Store) -> None: ...

    shape = look(loop, Role.LOOP)

    assert (shape.runs, shape.handlers, shape.injection.drivers) == (True, (), {"store": "driver/store"})


def test_a_partial_of_an_async_function_is_a_function() -> None:
    async def fulfil(order: object, store: Store, size: int) -> None: ...

    assert look(functools.partial(fulfil, size=3)).is_function


def test_methods_are_handlers_in_the_order_of_their_definition_bases_first() -> None:
    class Base:
        @handles("a")
        async def zebra(self, payload: object) -> None: ...

    class Worker(Base):
        @handles("b")
        async def ape(self, payload: object) -> None: ...

    assert [handler.method for handler in look(Worker).handlers] == ["zebra", "ape"]


def test_a_method_overridden_without_the_mark_handles_no_more() -> None:
    class Base:
        @handles("a")
        async def created(self, payload: object) -> None: ...

        @handles("b")
        async def paid(self, payload: object) -> None: ...

    class Worker(Base):
        async def created(self, payload: object) -> None: ...

    assert [handler.method for handler in look(Worker).handlers] == ["paid"]


def test_static_and_class_methods_may_handle() -> None:
    class Worker:
        @staticmethod
        @handles("a")
        async def static(payload: object) -> None: ...

        @classmethod
        @handles("b")
        async def of_class(cls, payload: object, envelope: Envelope) -> None: ...

    assert [handler.method for handler in look(Worker).handlers] == ["static", "of_class"]


def test_a_marked_property_is_no_handler() -> None:
    class Worker:
        @property
        @handles("a")
        def created(self) -> object:
            return None

    assert faults(Worker) == [("use", f"{Worker.__qualname__}.created is not a method, so it cannot handle messages")]


def test_an_async_call_handles_everything_unless_methods_are_marked() -> None:
    class Whole:
        async def __call__(self, payload: object) -> None: ...

    class Marked(Whole):
        @handles("a")
        async def created(self, payload: object) -> None: ...

    assert [(handler.method, handler.patterns) for handler in look(Whole).handlers] == [("__call__", ("#",))]
    assert [handler.method for handler in look(Marked).handlers] == ["created"]


@attrs.define
class OfAttrs:
    _store: Store
    config: Config = Config()

    async def run(self) -> None: ...


@dataclass
class OfDataclass:
    store: Store

    async def run(self) -> None: ...


@pytest.mark.parametrize("cls", [OfAttrs, OfDataclass])
def test_annotations_of_generated_constructors_are_resolved(cls: type[object]) -> None:
    assert look(cls, Role.LOOP).injection.drivers == {"store": "driver/store"}


@pytest.mark.parametrize("cls", [OfAttrs, OfDataclass])
def test_generated_constructors_are_checked_too(cls: type[object]) -> None:
    [(at, text)] = faults(cls, Role.LOOP, drivers={"store": dict})

    assert at == "use"
    assert "wants Store, but driver/store provides dict" in text


def test_a_default_is_kept_only_if_nothing_is_offered() -> None:
    class Worker:
        def __init__(self, store: Store | None = None, absent: object = None, config: Config = Config()) -> None: ...

        async def run(self) -> None: ...

    injection = look(Worker, Role.LOOP).injection

    assert (injection.drivers, injection.config_parameter) == ({"store": "driver/store"}, None)


def test_a_mapping_wins_over_the_name() -> None:
    class Worker:
        def __init__(self, store: object, config: object) -> None: ...

        async def run(self) -> None: ...

    injection = look(Worker, Role.LOOP, mapping={"store": "other", "config": "store"}).injection

    assert injection.drivers == {"store": "driver/other", "config": "driver/store"}


def test_any_keyword_can_be_mapped_to() -> None:
    class Worker:
        def __init__(self, **drivers: object) -> None: ...

        async def run(self) -> None: ...

    assert look(Worker, Role.LOOP, mapping={"cache": "store"}).injection.drivers == {"cache": "driver/store"}


@pytest.mark.parametrize("annotation", [dict, Mapping, dict[str, object], object, Any], ids=str)
def test_a_plain_config_is_the_table_itself(annotation: object) -> None:
    class Worker:
        def __init__(self, config: object) -> None: ...

        async def run(self) -> None: ...

    Worker.__init__.__annotations__["config"] = annotation

    assert look(Worker, Role.LOOP, config={"size": 1}).injection.config == {"size": 1}


@dataclass
class Sizes:
    size: int


def test_a_config_may_be_a_dataclass() -> None:
    class Worker:
        def __init__(self, config: Sizes) -> None: ...

        async def run(self) -> None: ...

    assert look(Worker, Role.LOOP, config={"size": 1}).injection.config == Sizes(1)
    assert faults(Worker, Role.LOOP, config={"size": "one"})[0][0] == "config.size"


def test_a_config_without_a_table_is_made_of_defaults() -> None:
    async def loop(config: Config) -> None: ...

    assert look(loop, Role.LOOP).injection.config == Config()


def test_an_undeclared_resource_fits_every_annotation() -> None:
    async def loop(other: Store) -> None: ...

    assert look(loop, Role.LOOP).injection.drivers == {"other": "driver/other"}


def test_generic_annotations_are_not_judged() -> None:
    async def loop(store: list[int]) -> None: ...

    assert look(loop, Role.LOOP).injection.drivers == {"store": "driver/store"}


def test_an_annotation_that_nobody_needs_may_be_unresolvable() -> None:
    async def worker(payload: object, extra: Nowhere = None) -> Nowhere: ...  # type: ignore[name-defined]  # noqa: F821

    assert look(worker).handlers


@attrs.frozen
class Unfinished:
    part: Nowhere  # type: ignore[name-defined]  # noqa: F821


def test_a_payload_whose_fields_cannot_be_resolved_is_a_problem() -> None:
    async def worker(payload: Unfinished) -> None: ...

    [(at, text)] = faults(worker)

    assert at == "use"
    assert "name 'Nowhere' is not defined" in text


def test_a_config_that_no_table_becomes_is_a_problem() -> None:
    async def loop(config: Never) -> None: ...

    [(at, _)] = faults(loop, Role.LOOP, config={"size": 1})

    assert at == "config"


def test_what_a_hosting_dispatcher_is_given_may_be_any_object() -> None:
    application = object()

    shape = look(application, Role.HOSTED)

    assert shape.use() is application
    assert (shape.is_function, shape.handlers, shape.runs, shape.is_context) == (False, (), False, False)


def test_a_plain_function_for_a_hosting_dispatcher_is_called_with_what_it_asks_for() -> None:
    def application(store: Store) -> object:
        return store

    shape = look(application, Role.HOSTED)

    assert (shape.use, shape.is_function) == (application, False)
    assert shape.injection.drivers == {"store": "driver/store"}


def test_a_hosted_class_may_have_a_run_of_another_meaning() -> None:
    class Application:
        def run(self, host: str) -> None: ...

    assert not look(Application, Role.HOSTED).runs


def test_a_hosted_class_may_have_a_loop_and_a_context() -> None:
    class Application:
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *_: object) -> None: ...

        async def run(self) -> None: ...

    shape = look(Application, Role.HOSTED)

    assert (shape.runs, shape.is_context) == (True, True)


def test_a_class_without_a_readable_signature_is_a_problem() -> None:
    [(at, text)] = faults(dict, Role.LOOP)[:1]

    assert at == "use"
    assert "cannot be read" in text


class HasSize(typing.Protocol):
    size: int


def test_an_annotation_that_cannot_be_compared_is_not_judged() -> None:
    async def loop(store: HasSize) -> None: ...

    assert look(loop, Role.LOOP).injection.drivers == {"store": "driver/store"}


def test_names_of_extras_do_not_matter_when_they_are_annotated_otherwise() -> None:
    class Worker:
        @handles("a")
        async def created(self, payload: object, envelope: int = 0) -> None: ...

    assert look(Worker).handlers[0].envelope_parameter is None


class Nothing:
    pass


class Documented:
    """Documented(size)
    --

    Looks like a class of C.
    """


class Derived(Documented):
    pass


class Constructed(Nothing):
    def __init__(self, store: Store) -> None:
        self.store = store


class Allocated:
    def __new__(cls, store: Store) -> Self:
        return super().__new__(cls)


class Calling(type):
    def __call__(cls, store: Store) -> object:
        return super().__call__()


class Called(metaclass=Calling):
    pass


class Abstract(ABC):  # noqa: B024  its metaclass is what matters
    pass


class Generically(typing.Generic[typing.TypeVar("T")]):
    pass


class Described:
    __signature__ = inspect.Signature([inspect.Parameter("store", inspect.Parameter.KEYWORD_ONLY, annotation=Store)])


@pytest.mark.parametrize(
    "cls", [Nothing, Documented, Derived, Constructed, Allocated, Called, Abstract, Generically, Described, Config]
)
def test_a_class_asks_for_what_inspect_says(cls: type[object]) -> None:
    asked = [argument.parameter for argument in arguments_of(cls, "it", lambda _at, _text: None)]

    assert asked == list(inspect.signature(cls).parameters.values())


def answers(payload: object) -> int:
    return 1


def decorated(payload: object) -> str:
    return ""


class Partly:
    def _method(self, payload: object, *, number: int = 1) -> int:
        return number

    method = functools.partialmethod(_method, number=2)


functools.update_wrapper(decorated, answers)
pretending = functools.wraps(answers)(lambda payload: None)
pretending.__signature__ = inspect.Signature(return_annotation=bytes)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "use", [answers, decorated, pretending, Partly.method, functools.partial(answers, 1), Nothing, Partly()._method]
)
def test_a_function_answers_what_inspect_says(use: Any) -> None:
    returned = returned_by(use)

    assert (returned.parameter.annotation if returned else inspect.Signature.empty) == inspect.signature(
        use
    ).return_annotation
