"""Whether a contract and a handler agree: each argument under its name and in its place, each type, and the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Final, cast, final

import attrs

from .._convert.compatible import mismatches, parts_of, takes_anything
from .._core.contract import Clause
from .._core.envelope import Arguments
from .._core.spec import HandlerSpec
from .._core.words import listed, toml_path

_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_NAMED: Final = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_VARIADIC: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_UNSAID: Final = (Parameter.empty, object, Arguments)


def disagreements(clause: Clause, handler: HandlerSpec, *, is_published: bool) -> Iterator[str]:
    """Yield what of a contract a handler does not take, or does not give.

    Args:
        clause: What is sent, and what is expected to come back.
        handler: What gets it.
        is_published: Whether nobody waits for an answer.
    """
    if handler.signature is None:
        return
    yield from _sent(clause, handler, handler.signature)
    if not is_published:
        yield from _types("result", handler.signature.return_annotation, clause.signature.return_annotation)


def _sent(clause: Clause, handler: HandlerSpec, signature: Signature) -> Iterator[str]:
    mine, theirs = list(clause.signature.parameters.values()), list(signature.parameters.values())
    is_call = handler.parameters is not None
    if clause.takes_arguments and is_call:
        yield from _arguments(mine, _Callee.of(theirs))
    elif clause.takes_arguments:
        if not any(_is_unsaid(one) for one in theirs):
            yield "the contract sends arguments, and the handler takes a payload (@handles)"
    elif is_call:
        yield from _payload_as_arguments(mine[0], theirs)
    elif theirs:
        yield from _types("payload", _annotation(mine[0]), _annotation(theirs[0]))


def _payload_as_arguments(payload: Parameter, theirs: Sequence[Parameter]) -> Iterator[str]:
    """Hold a payload against a handler of calls, which takes an object by name."""
    annotation = _annotation(payload)
    parts = parts_of(annotation)
    if parts is not None:
        yield from _arguments([_as_argument(name, *part) for name, part in parts.items()], _Callee.of(theirs))
    elif not _is_unsaid(payload) and not takes_anything(annotation):
        faults = mismatches(annotation, dict[str, object]) and mismatches(annotation, list[object])
        if faults:
            yield "the contract sends a payload, and the handler takes arguments (@answers)"


def _as_argument(name: str, node: object, is_there: bool) -> Parameter:  # noqa: FBT001  as `parts_of` has it
    default = Parameter.empty if is_there else None
    if not name.isidentifier():  # no parameter is called so, but `**kwargs` takes it
        name = "_"
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=node, default=default)


def _is_unsaid(parameter: Parameter) -> bool:
    return any(parameter.annotation is one for one in _UNSAID)


# --- arguments ----------------------------------------------------------------------------------------------------


@final
@attrs.frozen(eq=False, repr=False)
class _Callee:
    """The parameters of a handler by the ways in which they are given."""

    all: Sequence[Parameter]
    by_position: Sequence[Parameter]
    by_name: Mapping[str, Parameter]
    rest: Parameter | None
    others: Parameter | None

    @classmethod
    def of(cls, parameters: Sequence[Parameter]) -> _Callee:
        variadic = {one.kind: one for one in parameters if one.kind in _VARIADIC}
        return cls(
            parameters,
            [one for one in parameters if one.kind in _POSITIONAL],
            {one.name: one for one in parameters if one.kind in _NAMED},
            variadic.get(Parameter.VAR_POSITIONAL),
            variadic.get(Parameter.VAR_KEYWORD),
        )

    def at(self, place: int) -> Parameter | None:
        """Return what is given in a place."""
        return self.by_position[place] if place < len(self.by_position) else self.rest

    def called(self, name: str) -> Parameter | None:
        """Return what is given under a name."""
        return self.by_name.get(name, self.others)


def _arguments(mine: Sequence[Parameter], callee: _Callee) -> Iterator[str]:
    reached: set[str] = set()
    positional = [one for one in mine if one.kind in _POSITIONAL]
    for one in mine:
        place = positional.index(one) if one in positional else None
        targets = _targets(one, place, callee)
        fault = _fault(one, place, callee)
        reached |= {target.name for target in targets}
        if fault:
            yield f"{one.name}: {fault}"
            continue
        for target in targets:
            yield from _types(one.name, _annotation(one), _annotation(target))
            if one.default is not Parameter.empty and _is_required(target):
                yield f"{one.name}: may be left out, and the handler needs it"
    for other in callee.all:
        if _is_required(other) and other.name not in reached:
            yield f"{other.name}: is missing in the contract, and the handler needs it"


def _targets(one: Parameter, place: int | None, callee: _Callee) -> list[Parameter]:
    """Return the handler's parameters that one of the contract's may reach."""
    match one.kind:
        case Parameter.VAR_POSITIONAL:
            found = [callee.rest]
        case Parameter.VAR_KEYWORD:
            found = [callee.others]
        case _:
            by_name = None if one.kind is Parameter.POSITIONAL_ONLY else callee.called(one.name)
            found = [None if place is None else callee.at(place), by_name]
    return list({each.name: each for each in found if each is not None}.values())


def _fault(one: Parameter, place: int | None, callee: _Callee) -> str:
    """Return why an argument of the contract reaches nothing, or not always the same; empty if it does."""
    if one.kind in _VARIADIC:
        stars = "*" if one.kind is Parameter.VAR_POSITIONAL else "**"
        return "" if _targets(one, place, callee) else f"the handler takes no {stars}{one.name}"
    there = None if place is None else callee.at(place)
    named = None if one.kind is Parameter.POSITIONAL_ONLY else callee.called(one.name)
    if there is None and named is None:
        return f"the handler takes no such argument; it takes: {listed(other.name for other in callee.all)}"
    return _fault_of_either(there, named) if one.kind is Parameter.POSITIONAL_OR_KEYWORD else ""


def _fault_of_either(there: Parameter | None, named: Parameter | None) -> str:
    """Return why an argument that may be given by position and by name does not reach the same either way."""
    if there is None:
        return 'the handler takes it by name alone; write it behind "*" in the contract'
    if named is None and there.kind in {Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL}:
        return 'the handler takes it by position alone; write "/" behind it in the contract'
    if named is None:
        return f'is called "{there.name}" by the handler'
    return "" if named is there or named.kind in _VARIADIC else "stands in another place in the handler"


def _is_required(parameter: Parameter) -> bool:
    return parameter.default is Parameter.empty and parameter.kind not in _VARIADIC


def _annotation(parameter: Parameter) -> object:
    return cast("object", parameter.annotation)


def _types(name: str, sent: object, taken: object) -> Iterator[str]:
    if any(one is Parameter.empty for one in (sent, taken)):
        return
    for at, text in mismatches(sent, taken):
        yield f"{toml_path((), (name, *at))}: {text}"
