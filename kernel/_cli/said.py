"""What a service takes and what it gives: every subject with who handles or sends it, read off a plan."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any, Final, final

import attrs

from .._convert.leaves import Schema
from .._convert.schema import type_schema
from .._convert.strict import is_array, is_table
from .._core.caller import Caller, Sender
from .._core.spec import DispatcherSpec, DriverSpec, HandlerSpec, Plan, WorkerSpec
from .schema import DIALECT

_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_NAMED: Final = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_REFERENCE: Final = "#/$defs/"


@final
@attrs.frozen(kw_only=True, repr=False)
class Said:
    """One subject that a component takes or gives."""

    component: str
    """`kind/name`."""
    takes: bool
    """Whether messages come in; else they go out."""
    subject: str | None
    """A pattern where it is taken; None if nobody has said what is sent."""
    by: str = ""
    """`worker/name.method`, or the method of a contract."""
    is_call: bool = False
    """Whether what is sent are arguments."""
    is_answered: bool = False
    signature: Signature | None = None
    summary: str = ""
    """The first line of the docstring."""

    @property
    def text(self) -> str:
        """The subject with what is sent and what comes back, as Python writes it."""
        if self.subject is None or self.signature is None:
            return "anything" if self.subject is None else self.subject
        return f"{self.subject}{_written(self.signature, is_answered=self.is_answered)}"


def said(plan: Plan) -> Iterator[Said]:
    """Yield what a service takes, and then what it gives, in the order of its start."""
    for spec in plan.components.values():
        if isinstance(spec, DispatcherSpec):
            yield from _taken(plan, spec)
    for spec in plan.components.values():
        if isinstance(spec, DriverSpec) and issubclass(spec.cls.provides, Caller | Sender):
            yield from _given(spec)


def _taken(plan: Plan, spec: DispatcherSpec) -> Iterator[Said]:
    workers = [plan.components[f"worker/{name}"] for name in spec.workers]
    for worker in (one for one in workers if isinstance(one, WorkerSpec)):
        for handler in worker.handlers:
            for pattern in handler.patterns:
                yield Said(
                    component=spec.id,
                    takes=True,
                    subject=pattern,
                    by=f"{worker.id}.{handler.method}" if handler.method else worker.id,
                    is_call=handler.parameters is not None,
                    is_answered=_answers(handler),
                    signature=handler.signature,
                    summary=_summary(worker, handler),
                )


def _answers(handler: HandlerSpec) -> bool:
    """Return whether a handler is there to answer: one of calls is, and one that says what it returns may be asked."""
    if handler.parameters is not None:
        return True
    gives = handler.signature.return_annotation if handler.signature else Parameter.empty
    return all(gives is not nothing for nothing in (Parameter.empty, None, type(None), object))


def _summary(worker: WorkerSpec, handler: HandlerSpec) -> str:
    call: object = getattr(worker.use, handler.method, None) if handler.method else worker.use
    return (inspect.getdoc(call) or "").partition("\n")[0]


def _given(spec: DriverSpec) -> Iterator[Said]:
    is_published = not issubclass(spec.cls.provides, Caller)
    if spec.contract is None:
        yield Said(component=spec.id, takes=False, subject=None, is_answered=not is_published)
        return
    for subject, clause in spec.contract.clauses.items():
        yield Said(
            component=spec.id,
            takes=False,
            subject=subject,
            by=f"{spec.contract.name}.{clause.method}",
            is_call=clause.takes_arguments,
            is_answered=not is_published,
            signature=clause.signature,
            summary=(inspect.getdoc(getattr(spec.contract.cls, clause.method)) or "").partition("\n")[0],
        )


# --- as text ------------------------------------------------------------------------------------------------------


def contracts_as_text(plan: Plan) -> str:
    """Return what a service takes and gives, for people."""
    lines = [plan.name]
    entries = list(said(plan))
    for title, takes in (("takes", True), ("gives", False)):
        some = [one for one in entries if one.takes is takes]
        lines += ["", title if some else f"{title} nothing"]
        for component in dict.fromkeys(one.component for one in some):
            lines.append(f"  {component}")
            rows = [(one.text, one.by) for one in some if one.component == component]
            width = min(max(len(text) for text, _ in rows), 72)
            lines += [f"    {text:<{width}}  {by}".rstrip() for text, by in rows]
    return "\n".join(lines)


def _written(signature: Signature, *, is_answered: bool) -> str:
    shown = [one.replace(default=_Dots()) if one.default is not Parameter.empty else one for one in _shown(signature)]
    answer = signature.return_annotation if is_answered else Signature.empty
    return str(Signature(shown, return_annotation=_Named.of(answer), __validate_parameters__=False))


def _shown(signature: Signature) -> Iterator[Parameter]:
    for one in signature.parameters.values():
        yield one.replace(annotation=_Named.of(one.annotation))


@final
class _Dots:
    def __repr__(self) -> str:
        return "..."


@final
@attrs.frozen(repr=False)
class _Named:
    """Stands in a signature for an annotation, and is written without modules."""

    _text: str

    def __repr__(self) -> str:
        return self._text

    @classmethod
    def of(cls, annotation: object) -> object:
        """Return what stands for an annotation; nothing for none."""
        return Parameter.empty if annotation is Parameter.empty else cls(type_name(annotation))


def type_name(annotation: object) -> str:
    """Return a type as people write it, without the modules of its parts."""
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, type) and not getattr(annotation, "__args__", ()):
        return annotation.__qualname__
    return _without_modules(str(annotation))


def _without_modules(text: str) -> str:
    words: list[str] = []
    word = ""
    for character in f"{text} ":
        if character.isidentifier() or character.isdigit() or character == ".":
            word += character
            continue
        words += [word.rpartition(".")[2] if word.strip(".") else word, character]
        word = ""
    return "".join(words).rstrip().replace("NoneType", "None")


# --- as JSON Schema -----------------------------------------------------------------------------------------------


@final
@attrs.define(eq=False, repr=False)
class Definitions:
    """The definitions that several schemas of one document share."""

    place: str
    """What references to them begin with."""
    found: dict[str, Schema] = attrs.field(factory=dict[str, Schema], init=False)

    def of(self, annotation: object) -> Schema:
        """Return the schema of a type, its own definitions put among these; that of anything if it is not known."""
        if any(annotation is nothing for nothing in (Parameter.empty, object, Any)):
            return {}
        try:
            schema = type_schema(annotation)
        except TypeError:
            return {}
        inner: Mapping[str, Schema] = schema.pop("$defs", {})
        names = {name: self._name(name, definition) for name, definition in inner.items()}
        for name, definition in inner.items():
            self.found[names[name]] = self._referring(definition, names)
        made: Schema = self._referring(schema, names)
        return made

    def _name(self, name: str, definition: Schema) -> str:
        base = "".join(character if character.isalnum() or character in "._-" else "_" for character in name)
        wanted, number = base, 1
        while wanted in self.found and self.found[wanted] != self._referring(definition, {name: wanted}):
            number += 1
            wanted = f"{base}_{number}"
        return wanted

    def _referring(self, value: Any, names: Mapping[str, str]) -> Any:  # noqa: ANN401  JSON
        if is_array(value):
            return [self._referring(item, names) for item in value]
        if not is_table(value):
            return value
        made: dict[str, object] = {key: self._referring(item, names) for key, item in value.items()}
        reference = made.get("$ref")
        if isinstance(reference, str) and reference.startswith(_REFERENCE):
            name = reference.removeprefix(_REFERENCE)
            made["$ref"] = f"{self.place}{names.get(name, name)}"
        return made


def contracts_as_schema(plan: Plan) -> dict[str, object]:
    """Return what a service takes and gives as JSON Schemas, one for each payload or set of arguments and each result."""
    definitions = Definitions(_REFERENCE)
    sides: dict[str, list[object]] = {"takes": [], "gives": []}
    for one in said(plan):
        entry: dict[str, object] = {"component": one.component, "by": one.by, "subject": one.subject}
        entry["arguments" if one.is_call else "payload"] = sent_schema(one, definitions)
        if one.is_answered:
            entry["result"] = result_schema(one, definitions)
        sides["takes" if one.takes else "gives"].append(entry)
    return {"$schema": DIALECT, "title": plan.name, **sides, "$defs": definitions.found}


def sent_schema(one: Said, definitions: Definitions) -> Schema:
    """Return the schema of what is sent."""
    if one.signature is None:
        return {}
    parameters = list(one.signature.parameters.values())
    if one.is_call:
        return _arguments_schema(parameters, definitions)
    return definitions.of(parameters[0].annotation) if parameters else {}


def result_schema(one: Said, definitions: Definitions) -> Schema:
    """Return the schema of what comes back."""
    return {} if one.signature is None else definitions.of(one.signature.return_annotation)


def _arguments_schema(parameters: Sequence[Parameter], definitions: Definitions) -> Schema:
    """Return the schema of the arguments of a call in each form in which they may come: by name, by position, both."""
    array, named = _by_position(parameters, definitions), _by_name(parameters, definitions)
    required = [one for one in parameters if _is_required(one)]
    both = {
        "type": "object",
        "properties": {"args": array, "kwargs": {key: value for key, value in named.items() if key != "required"}},
        "required": ["args", "kwargs"],
        "additionalProperties": False,
    }
    forms: list[Schema] = [both]
    if all(one.kind in _POSITIONAL for one in required):
        forms.insert(0, array | {"minItems": len(required)})
    if all(one.kind in _NAMED for one in required):
        forms.insert(0, named)
    return {"anyOf": forms}


def _by_position(parameters: Sequence[Parameter], definitions: Definitions) -> Schema:
    items = [definitions.of(one.annotation) for one in parameters if one.kind in _POSITIONAL]
    rest = [definitions.of(one.annotation) for one in parameters if one.kind is Parameter.VAR_POSITIONAL]
    schema: Schema = {"type": "array", "prefixItems": items} if items else {"type": "array"}
    return schema | {"items": rest[0] if rest else False}


def _by_name(parameters: Sequence[Parameter], definitions: Definitions) -> Schema:
    named = [one for one in parameters if one.kind in _NAMED]
    others = [definitions.of(one.annotation) for one in parameters if one.kind is Parameter.VAR_KEYWORD]
    required = [one.name for one in named if _is_required(one)]
    schema: Schema = {"type": "object", "properties": {one.name: definitions.of(one.annotation) for one in named}}
    schema |= {"additionalProperties": others[0] if others else False}
    return schema | ({"required": required} if required else {})


def _is_required(one: Parameter) -> bool:
    return one.default is Parameter.empty and one.kind in {*_POSITIONAL, *_NAMED}
