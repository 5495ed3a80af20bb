"""A plan, or what is installed, in words, as JSON and as a graph; pure: returns text and prints nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias, TypedDict, final

import attrs

from .._core.fields import ByFields
from .._core.spec import AnySpec, DispatcherSpec, DriverSpec, HandlerSpec, Plan, StopBudget, WorkerSpec
from .._manifest.registry import Plugin, Registry
from .._manifest.tables import SECTIONS
from ..errors import PluginError

FORMAT: Final = 1
"""Of the JSON of a plan: it changes when a key goes away or means something else."""

Style: TypeAlias = Callable[[str], str]


def summary(plan: Plan) -> str:
    """Return the one line of a manifest that is right."""
    number = len(plan.components)
    return f"{plan.path}: ok: {number} component{'s' * (number != 1)}; {budget_text(plan.budget)}"


def budget_text(budget: StopBudget) -> str:
    """Return the proof that a stop fits into the grace period."""
    waits = " + ".join(f"{_wait_name(wait.what)} {wait.seconds!r}" for wait in budget.waits)
    return f"a stop takes at most {round(budget.seconds, 3)!r} s of grace_period = {budget.grace_period!r} s ({waits})"


def _wait_name(what: str) -> str:
    return "drain_timeout" if what == "drain" else what


# --- who provides what --------------------------------------------------------------------------------------------


@final
@attrs.frozen(eq=False, repr=False)
class Provider(ByFields):
    """Where a component's class comes from."""

    plugin: str | None
    use: str | None
    """The import path, where the manifest names one in place of a plugin."""
    distribution: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        if self.plugin is None:
            return self.use or ""
        return f"{self.plugin} ({self.distribution} {self.version})" if self.distribution else self.plugin


Providers: TypeAlias = Callable[[str, str], Provider]


def providers(plan: Plan, registry: Registry) -> Providers:
    """Return what says, for a kind and a name, where the class of that component comes from."""
    values = {value.path: value.shown for value in plan.values()}
    return lambda kind, name: _provider(values, registry, kind, name)


def _provider(values: Mapping[str, str], registry: Registry, kind: str, name: str) -> Provider:
    table = f"[{SECTIONS[kind]}.{name}]"
    use = _string(values.get(f"{table}.use"))
    plugin = _string(values.get(f"{table}.plugin"))
    if use is not None and (":" in use or kind != "worker"):
        return Provider(None, use)
    wanted = use if kind == "worker" else plugin or name
    try:
        found = registry.find(kind, wanted or name)
    except PluginError:
        return Provider(wanted, None)
    return Provider(wanted, None, found.distribution, found.version)


def _string(shown: str | None) -> str | None:
    if shown is None or not shown.startswith('"'):
        return None
    text: str = json.loads(shown)
    return text


# --- text ---------------------------------------------------------------------------------------------------------


def plan_as_text(plan: Plan, registry: Registry, *, bold: Style = str, dim: Style = str) -> str:
    """Return a plan for people.

    Args:
        plan: What to show.
        registry: What it was resolved against.
        bold: Puts emphasis on a heading.
        dim: Takes it off what matters less.
    """
    provider = providers(plan, registry)
    sections = [
        (f"{plan.name} ({plan.path}), in start order", _component_lines(plan, provider, dim)),
        ("protocols", _protocol_lines(plan, provider)),
        ("groups", _group_lines(plan)),
        ("stages", _stage_lines(plan)),
        ("stop", iter([f"  {budget_text(plan.budget)}"])),
        ("values", _value_lines(plan, dim)),
    ]
    shown = [(bold(title), list(lines)) for title, lines in sections]
    return "\n\n".join("\n".join([title, *lines]) for title, lines in shown if lines)


def _component_lines(plan: Plan, provider: Providers, dim: Style) -> Iterator[str]:
    width = max(map(len, plan.components), default=0)
    for id_, spec in plan.components.items():
        yield f"  {id_:{width}}  {provider(*id_.split('/', 1))}"
        if ties := "; ".join(_ties(spec)):
            yield dim(f"  {'':{width}}  {ties}")


def _ties(spec: AnySpec) -> Iterator[str]:
    """Yield what ties a component to others."""
    if spec.uses:
        yield f"uses {', '.join(spec.uses)}"
    if spec.after:
        yield f"after {', '.join(spec.after)}"
    if not isinstance(spec, WorkerSpec) and spec.protocol:
        yield f"speaks {spec.protocol}"
    if isinstance(spec, DispatcherSpec):
        yield f"up to {spec.concurrency} in flight"
        if spec.batch is not None:
            yield f"in batches of up to {spec.batch.size}"
        if spec.rate is not None:
            yield f"{spec.rate.messages} messages in {spec.rate.per:g} s"
    if isinstance(spec, WorkerSpec):
        yield from _duties(spec)
    if not spec.essential:
        yield "not essential"


def _duties(spec: WorkerSpec) -> Iterator[str]:
    if subjects := [pattern for handler in spec.handlers for pattern in _subjects(handler)]:
        yield f"handles {', '.join(subjects)}"
    if spec.runs:
        yield "runs once" if spec.oneshot else "runs, and ends the service" if spec.main else "runs a loop"
    if spec.instances > 1:
        yield f"{spec.instances} instances"
    if spec.failure_worker:
        yield f"failures go to worker/{spec.failure_worker}"


def _subjects(handler: HandlerSpec) -> Iterator[str]:
    """Yield the patterns of a handler, with its parameters if it is called with arguments."""
    return (f"{pattern}{handler.parameters or ''}" for pattern in handler.patterns)


def _protocol_lines(plan: Plan, provider: Providers) -> Iterator[str]:
    width = max(map(len, plan.protocols), default=0)
    for name in plan.protocols:
        yield f"  {name:{width}}  {provider('protocol', name)}"


def _group_lines(plan: Plan) -> Iterator[str]:
    for group in plan.groups:
        yield f"  {group.name}: {group.strategy.value} of {', '.join(group.members)}"


def _stage_lines(plan: Plan) -> Iterator[str]:
    for stage in plan.stages:
        hooks = ", ".join(f"{hook.component}.{hook.method}" for hook in stage.hooks)
        yield f"  {stage.name}: {stage.direction.value}, at most {stage.timeout!r} s: {hooks}"


def _value_lines(plan: Plan, dim: Style) -> Iterator[str]:
    values = plan.values()
    texts = [f"{value.path} = {value.shown}" for value in values]
    width = min(max(map(len, texts), default=0), 70)
    for text, value in zip(texts, values, strict=True):
        yield f"  {text:{width}}  {dim(value.origin)}"


# --- JSON ---------------------------------------------------------------------------------------------------------


def plan_as_json(plan: Plan, registry: Registry) -> dict[str, object]:
    """Return a plan for programs; its form is documented in docs/reference/cli.md."""
    provider = providers(plan, registry)
    return {
        "format": FORMAT,
        "manifest": plan.path,
        "name": plan.name,
        "components": [_component_as_json(provider, spec) for spec in plan.components.values()],
        "protocols": [{"name": name, **attrs.asdict(provider("protocol", name))} for name in plan.protocols],
        "groups": [
            {"name": group.name, "strategy": group.strategy.value, "members": list(group.members)}
            for group in plan.groups
        ],
        "stages": [
            {
                "name": stage.name,
                "direction": stage.direction.value,
                "timeout": stage.timeout,
                "hooks": [{"component": hook.component, "method": hook.method} for hook in stage.hooks],
            }
            for stage in plan.stages
        ],
        "stop": {
            "seconds": round(plan.budget.seconds, 3),
            "grace_period": plan.grace_period,
            "drain_timeout": plan.drain_timeout,
            "waits": [{"what": _wait_name(wait.what), "seconds": wait.seconds} for wait in plan.budget.waits],
        },
        "values": [{"path": value.path, "value": value.shown, "origin": value.origin} for value in plan.values()],
    }


def _component_as_json(provider: Providers, spec: AnySpec) -> dict[str, object]:
    kind, name = spec.id.split("/", 1)
    shared: dict[str, object] = {
        "id": spec.id,
        "kind": kind,
        "name": name,
        **attrs.asdict(provider(kind, name)),
        "where": spec.where,
        "uses": list(spec.uses),
        "after": list(spec.after),
        "essential": spec.essential,
        "restart": spec.restart.policy.value,
        "start_timeout": spec.start_timeout,
        "stop_timeout": spec.stop_timeout,
    }
    return shared | _own_as_json(spec)


def _own_as_json(spec: AnySpec) -> dict[str, object]:
    match spec:
        case DriverSpec():
            return {"driver": spec.driver, "protocol": spec.protocol}
        case DispatcherSpec():
            workers = [f"worker/{name}" for name in spec.workers]
            return {
                "driver": spec.driver,
                "protocol": spec.protocol,
                "concurrency": spec.concurrency,
                "workers": workers,
            }
        case WorkerSpec():
            return {
                "dispatcher": spec.dispatcher,
                "handles": [pattern for handler in spec.handlers for pattern in handler.patterns],
                "calls": [
                    {"subject": pattern, "parameters": handler.parameters}
                    for handler in spec.handlers
                    for pattern in handler.patterns
                    if handler.parameters is not None
                ],
                "runs": spec.runs,
                "oneshot": spec.oneshot,
                "main": spec.main,
                "instances": spec.instances,
                "failure_worker": spec.failure_worker and f"worker/{spec.failure_worker}",
            }


# --- graph --------------------------------------------------------------------------------------------------------


def plan_as_mermaid(plan: Plan) -> str:
    """Return the graph of dependencies for Mermaid.

    A solid arrow leads to what a component uses, a dotted one to what only has to be there before it.
    """
    nodes = {id_: f"n{number}" for number, id_ in enumerate(plan.components)}
    lines = ["flowchart LR"]
    lines += [f"    {node}{_shape(id_)}" for id_, node in nodes.items()]
    for id_, spec in plan.components.items():
        lines += [f"    {nodes[id_]} --> {nodes[other]}" for other in spec.uses]
        lines += [f"    {nodes[id_]} -.-> {nodes[other]}" for other in spec.after if other not in spec.uses]
    return "\n".join(lines)


def _shape(id_: str) -> str:
    left, right = {"driver": ("[(", ")]"), "dispatcher": ("([", "])")}.get(id_.split("/", 1)[0], ("[", "]"))
    return f'{left}"{id_}"{right}'


# --- what is installed --------------------------------------------------------------------------------------------


class PluginRow(TypedDict):
    """One plugin, as `kernel plugins --json` prints it."""

    name: str
    kind: str
    distribution: str
    version: str
    value: str
    conflict: bool


def plugins_as_json(plugins: Sequence[Plugin]) -> list[PluginRow]:
    """Return the plugins for programs; in conflict are those whose name another one of their kind has too."""
    owners = Counter((plugin.kind, plugin.name) for plugin in plugins)
    return [
        PluginRow(
            name=plugin.name,
            kind=plugin.kind,
            distribution=plugin.distribution,
            version=plugin.version,
            value=plugin.value,
            conflict=owners[plugin.kind, plugin.name] > 1,
        )
        for plugin in plugins
    ]


def plugins_as_text(plugins: Sequence[Plugin]) -> str:
    """Return the plugins as a table for people."""
    rows = [("name", "kind", "distribution", "version", "")]
    for row in plugins_as_json(plugins):
        mark = "conflict: another distribution provides it too" if row["conflict"] else ""
        rows.append((row["name"], row["kind"], row["distribution"], row["version"], mark))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
