"""What a handler is given, read off its parameters: a payload or the arguments of a call, and what is about the delivery.

The part of `signature` that looks at one handler; it knows neither roles nor classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Final, get_args, get_origin

from .._convert.annotations import plain_type
from .._core.broker import Batch, Delivery
from .._core.envelope import Envelope
from .._core.spec import HandlerSpec
from .._manifest.tables import Report
from .binding import binder_of, converter, written
from .injection import VARIADIC, Argument, Offer, resolve
from .results import with_result

_EXTRAS: Final = {"envelope": Envelope, "delivery": Delivery, "batch": Batch}
_BY_NAME: Final = frozenset({"envelope", "delivery"})
"""Extras that need no annotation."""
NO_LIST: Final = object()
"""The item of what is no list."""


def read_handler(
    call: Callable[..., object],
    method: str,
    patterns: tuple[str, ...],
    arguments: Sequence[Argument],
    label: str,
    report: Report,
    warn: Report,
) -> tuple[HandlerSpec, list[Argument]]:
    """Return the handler and the parameters that are neither its payload nor about the delivery."""
    payload = next(iter(arguments), None)
    hint = payload.parameter.annotation if payload else Parameter.empty
    if payload is None or payload.parameter.kind not in {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}:
        report(("use",), f"{label} must take the payload as its first parameter, by position")
        annotation: object = Parameter.empty
    else:
        annotation = resolve(payload, label, report)
        if any(annotation is extra for extra in _EXTRAS.values()):
            text = f"the first parameter of {label} is given the payload"
            report(("use",), f"{text}, so it cannot be annotated {hint}; take that second")
            annotation = Parameter.empty
    extras, others = _split(arguments[1:], label, report)
    handler = HandlerSpec(
        method=method,
        patterns=patterns,
        convert=converter(annotation, label, report),
        envelope_parameter=extras.get("envelope"),
        delivery_parameter=extras.get("delivery"),
        batch_parameter=extras.get("batch"),
        item=_item_of(annotation),
    )
    return with_result(handler, call, arguments[:1], label, warn), others


def read_answer(
    call: Callable[..., object],
    method: str,
    patterns: tuple[str, ...],
    arguments: Sequence[Argument],
    given: Sequence[Argument],
    label: str,
    report: Report,
    warn: Report,
) -> HandlerSpec:
    """Return the handler of a call; no argument of the call goes to the parameters `given`."""
    extras, called = _split([argument for argument in arguments if argument not in given], label, report)
    _check_answer(arguments, called, label, report)
    named = [argument.name for argument in given if argument.parameter.kind is not Parameter.POSITIONAL_ONLY]
    handler = HandlerSpec(
        method=method,
        patterns=patterns,
        convert=binder_of(called, [*named, *extras.values()], label, report),
        parameters=written(called),
        envelope_parameter=extras.get("envelope"),
        delivery_parameter=extras.get("delivery"),
        batch_parameter=extras.get("batch"),
    )
    return with_result(handler, call, called, label, warn)


def offered(arguments: Sequence[Argument], offer: Offer) -> list[Argument]:
    """Return the parameters of a function that are the manifest's to give, and so no call's."""
    config = {"config"} if offer.config is not None else set[str]()
    names = {*offer.drivers, *offer.disabled, *offer.mapping, *offer.unusable, *config}
    given = [argument for argument in arguments if argument.name in names or argument.asks() is not None]
    return [argument for argument in given if argument.parameter.kind not in VARIADIC]


def _check_answer(arguments: Sequence[Argument], called: Sequence[Argument], label: str, report: Report) -> None:
    for argument in called:
        match argument.parameter.kind:
            case Parameter.POSITIONAL_ONLY if any(resolve(argument, label, _quiet) is cls for cls in _EXTRAS.values()):
                report(("use",), f'"{argument.name}" of {label} is given by name, so it cannot be positional-only')
            case Parameter.VAR_POSITIONAL:
                for other in arguments[: arguments.index(argument)]:
                    if other not in called:
                        text = f'"{other.name}" of {label} is given by name, but stands before "*{argument.name}"'
                        report(("use",), f"{text}, so that a call by position would fill it; write it after")
            case _:
                pass


def _quiet(_at: Sequence[str], _text: str) -> None:
    """Report nothing: what is wrong is reported by who needs the annotation."""


def _item_of(annotation: object) -> object:
    """Return the annotated type of a list's items, or `NO_LIST`."""
    plain = plain_type(annotation)
    if plain is not list and get_origin(plain) is not list:
        return NO_LIST
    return next(iter(get_args(plain)), object)


def _split(arguments: Sequence[Argument], label: str, report: Report) -> tuple[Mapping[str, str], list[Argument]]:
    extras: dict[str, str] = {}
    others: list[Argument] = []
    for argument in arguments:
        kind = _extra_kind(argument, label, report)
        if kind is None:
            others.append(argument)
        elif kind in extras:
            report(("use",), f'{label} asks for the {kind} twice: "{extras[kind]}" and "{argument.name}"')
        else:
            extras[kind] = argument.name
    return extras, others


def _extra_kind(argument: Argument, label: str, report: Report) -> str | None:
    if argument.parameter.kind in {*VARIADIC, Parameter.POSITIONAL_ONLY}:
        return None
    if not argument.is_annotated:
        return argument.name if argument.name in _BY_NAME else None
    # Another parameter's annotation matters to whoever injects it, and only if somebody does.
    annotation = resolve(argument, label, report if argument.name in _BY_NAME else _quiet)
    return next((kind for kind, cls in _EXTRAS.items() if annotation is cls), None)
