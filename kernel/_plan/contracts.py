"""A class that a manifest names as the contract of a driver -> its subjects, and what checks what is sent under each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from inspect import Parameter
from pathlib import Path
from types import FunctionType, NoneType
from typing import Final, Generic, Protocol

import attrs

from .._convert.imports import NotImportableError, import_object
from .._convert.payload import outgoing_converter
from .._core.broker import Delivery
from .._core.caller import Caller, Sender
from .._core.contract import Clause, Contract, client_class
from .._core.envelope import Envelope
from .._core.marks import ANSWERS, HANDLES, mark_of, patterns_of, words_of
from .._core.router import check_pattern, is_exact
from .._manifest.tables import Report, SenderTable, under
from .binding import binder_of, converter
from .ground import Ground, Wiring, plugin_of
from .injection import Argument, arguments_of, resolve, returned_by
from .wiring import reads_contracts

_NO_BASES: Final[frozenset[object]] = frozenset({object, Protocol, Generic})


def with_contracts(ground: Ground, wiring: Wiring) -> Wiring:
    """Return what is wired with the contracts of its drivers."""
    named = {
        name: table.contract
        for name, wired in wiring.drivers.items()
        if isinstance(table := wired.entry.table, SenderTable) and table.contract is not None
    }
    read = {name: _of_driver(ground, wiring, name, path) for name, path in named.items()}
    own = {name: one for name, one in read.items() if one is not None}
    return attrs.evolve(wiring, contracts={**ground.lent_contracts, **own})


def _of_driver(ground: Ground, wiring: Wiring, name: str, path: str) -> Contract | None:
    driver, entry = wiring.driver_class(name), wiring.drivers[name].entry
    if driver is None or reads_contracts(driver):
        return None
    report = under(ground.report, *entry.at, "contract")
    if not driver.sends or not issubclass(driver.provides, Caller | Sender):
        report((), f'has no effect: plugin "{plugin_of(entry)}" sends nothing that it could be held against')
        return None
    is_published = not issubclass(driver.provides, Caller)
    return read_contract(path, is_published=is_published, directory=ground.manifest.directory, report=report)


def read_contract(path: str, *, is_published: bool, directory: Path | None, report: Report) -> Contract | None:
    """Import a contract and look at it; None if there is none, which has been reported.

    Args:
        path: `module:Class`.
        is_published: Whether what is sent is published, and not called.
        directory: Searched first for the module.
        report: Takes the problems.
    """
    found = _imported(path, directory, report)
    if found is None:
        return None
    clauses = list(_clauses(found, report, is_published=is_published))
    if not clauses:
        if not _members(found):
            report((), f'"{path}" promises nothing: write async methods, one for each subject')
        return None
    try:
        client = client_class(found, clauses, is_published=is_published)
        object.__new__(client)
    except Exception as error:  # noqa: BLE001  the class's own code, such as `__init_subclass__`
        report((), f'"{path}" cannot be derived from: {error}')
        return None
    _check_subjects(clauses, found, report)
    by_subject = {clause.subject: clause for clause in clauses}
    return Contract(name=path, cls=found, clauses=by_subject, is_published=is_published, client_class=client)


def _imported(path: str, directory: Path | None, report: Report) -> type[object] | None:
    try:
        found = import_object(path, directory=directory)
    except NotImportableError as error:
        report((), str(error))
        return None
    if isinstance(found, type):
        return found
    report((), f'"{path}" is no class: write one with an async method for each subject')
    return None


def _clauses(cls: type[object], report: Report, *, is_published: bool) -> Iterator[Clause]:
    for name, member in _members(cls).items():
        label = f"{cls.__qualname__}.{name}"
        if not isinstance(member, FunctionType):
            report((), f"{label} is no method: a contract has async methods, and names with an underscore in front")
        elif inspect.isasyncgenfunction(member):
            report((), f"{label} has a `yield`, but there is one answer to a call: write `...` in its place")
        elif not inspect.iscoroutinefunction(member):
            report((), f'{label} is awaited by those who call it, so it must be written "async def"')
        else:
            yield from _clause(cls, name, member, report, is_published=is_published)


def _members(cls: type[object]) -> Mapping[str, object]:
    """Return what a class has that is neither private nor everybody's."""
    found: dict[str, object] = {}
    for base in reversed(cls.__mro__):
        if base not in _NO_BASES:
            found |= dict.fromkeys(_annotated(base))
            found |= vars(base)
    return {name: member for name, member in found.items() if not name.startswith("_")}


def _annotated(cls: type[object]) -> Iterable[str]:
    """Return the names that a class annotates; from Python 3.14 on that is its own code, which may raise."""
    try:
        return inspect.get_annotations(cls)
    except Exception:  # noqa: BLE001  names that only type checkers know
        return ()


def _clause(
    cls: type[object], name: str, method: FunctionType, report: Report, *, is_published: bool
) -> Iterator[Clause]:
    label = f"{cls.__qualname__}.{name}"
    arguments = arguments_of(method, label, _at_table(report))
    if not arguments or arguments[0].parameter.kind not in _ONE:
        report((), f'{label} is a method: its first parameter is "self"')
    sent = [argument for argument in arguments[1:] if not any(argument.resolved().annotation is cls for cls in _GIVEN)]
    for argument in arguments[1:]:
        if argument not in sent:
            text = f'"{argument.name}" of {label} is given by the kernel to whoever handles it, and cannot be sent'
            report((), f"{text}: leave it out of the contract")
    mark = mark_of(method) or (HANDLES if is_published else ANSWERS)
    gives = _gives(method, label, report, is_published=is_published)
    check = _check(sent, mark, label, report)
    parameters = [argument.resolved() for argument in sent]
    subjects = patterns_of(method) or (".".join([*words_of(cls), name]),)
    for subject in subjects[:1]:
        yield Clause(
            method=name,
            subject=subject,
            takes_arguments=mark == ANSWERS,
            check=check,
            convert=converter(gives, f"what {label} returns", _at_table(report), at=["result"]),
            signature=inspect.Signature(parameters, return_annotation=gives, __validate_parameters__=False),
        )
    if len(subjects) > 1:
        report((), f"{label} is sent under one subject, and is marked with several")


def _check(arguments: Sequence[Argument], mark: str, label: str, report: Report) -> Callable[[object], object]:
    if mark == ANSWERS:
        return binder_of(arguments, (), label, _at_table(report), make=outgoing_converter)
    if len(arguments) != 1 or arguments[0].parameter.kind not in _ONE:
        report((), f"{label} must take one parameter besides self: the payload")
        return outgoing_converter((), object)
    annotation = resolve(arguments[0], label, _at_table(report))
    return converter(annotation, f"the payload of {label}", _at_table(report), make=outgoing_converter)


_GIVEN: Final = (Envelope, Delivery)
_ONE: Final = frozenset({Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD})


def _gives(method: FunctionType, label: str, report: Report, *, is_published: bool) -> object:
    returned = returned_by(method)
    annotation = Parameter.empty if returned is None else resolve(returned, label, _at_table(report))
    if is_published and annotation not in {Parameter.empty, None, NoneType, str, object}:
        report((), f"{label} is published, so nobody answers: annotate None, or str for the message's id")
    return NoneType if annotation is None else annotation


def _check_subjects(clauses: Sequence[Clause], cls: type[object], report: Report) -> None:
    owners: dict[str, str] = {}
    for clause in clauses:
        label, subject = f"{cls.__qualname__}.{clause.method}", clause.subject
        if fault := check_pattern(subject):
            report((), f"{label}: {fault}")
        elif not is_exact(subject):
            report((), f'{label} is sent under a subject, and "{subject}" is a pattern')
        if subject in owners:
            report((), f'"{subject}" is the subject of {owners[subject]} and {label}')
        owners[subject] = label


def _at_table(report: Report) -> Report:
    """Return a report that puts everything at the contract, whichever key of a worker it would be about."""

    def at_table(_at: tuple[str, ...], text: str) -> None:
        report((), text)

    return at_table
