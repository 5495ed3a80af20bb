"""What a handler promises to answer, read off the annotation of what it returns.

An annotation that was never read before must not keep a service from starting: one that means nothing in a message is a
warning, and its results are sent as they are.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from inspect import Parameter
from typing import Any, Final, TypeAlias, cast

import attrs

from .._convert.annotations import UNIONS, plain_type
from .._convert.payload import outgoing_converter
from .._core.envelope import Ack, DeadLetter, Retry, Return
from .._core.spec import HandlerSpec
from .._manifest.tables import Report
from .injection import Argument, returned_by

Check: TypeAlias = Callable[[object], object]

_OUTCOMES: Final[frozenset[object]] = frozenset({Ack, Retry, DeadLetter, Return})
_NEVER: Final[frozenset[object]] = frozenset({typing.NoReturn, typing.Never})
_ANYTHING: Final[frozenset[object]] = frozenset({Parameter.empty, Any, object})
_AT: Final = ("result",)


def with_result(
    handler: HandlerSpec, call: Callable[..., object], arguments: Sequence[Argument], label: str, warn: Report
) -> HandlerSpec:
    """Return a handler with what it answers, and with its signature as others see it.

    Args:
        handler: What is known of it.
        call: The function or method.
        arguments: Those parameters that what is sent goes to.
        label: What to call it in warnings.
        warn: Takes what keeps the result from being checked.
    """
    gives = _annotation(call, label, warn)
    check = _check(gives, label, warn)
    parameters = [argument.resolved() for argument in arguments]
    signature = inspect.Signature(parameters, return_annotation=gives, __validate_parameters__=False)
    return attrs.evolve(handler, check_result=check, signature=signature)


def _annotation(call: Callable[..., object], label: str, warn: Report) -> object:
    """Return what a call answers, without the outcomes; `Parameter.empty` if that is not said."""
    returned = returned_by(call)
    if returned is None:
        return Parameter.empty
    try:
        return without_outcomes(returned.annotation())
    except Exception as error:  # noqa: BLE001  annotations are code: they may raise anything
        warn(("use",), f"what {label} returns is not checked: its annotation cannot be resolved: {error}")
        return Parameter.empty


def without_outcomes(annotation: object) -> object:
    """Return a type without what settles a delivery and is never sent; `Parameter.empty` if nothing is left."""
    plain = plain_type(annotation)
    if _is_outcome(plain) or plain in _NEVER:
        return Parameter.empty
    if typing.get_origin(plain) not in UNIONS:
        return annotation
    options = typing.get_args(plain)
    left = [option for option in map(without_outcomes, options) if option is not Parameter.empty]
    if len(left) == len(options):
        return annotation
    return _union(left) if left else Parameter.empty


def _is_outcome(plain: object) -> bool:
    if typing.get_origin(plain) is type:
        return any(one in _OUTCOMES for one in typing.get_args(plain))
    return isinstance(plain, type) and plain in _OUTCOMES


def _union(options: Sequence[object]) -> object:
    return cast("Any", typing.Union)[tuple(options)]


def _check(annotation: object, label: str, warn: Report) -> Check | None:
    if any(annotation is one for one in _ANYTHING):
        return None
    try:
        return outgoing_converter(_AT, types.NoneType if annotation is None else annotation)
    except TypeError as error:
        warn(("use",), f"what {label} returns is not checked: {error}")
        return None
