"""What a running service answers, as text; pure: prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from .._core.words import counted

Json: TypeAlias = Mapping[str, Any]
Style: TypeAlias = Callable[[str, str], str]
"""State, text -> the text in the state's colour."""

_MARKS: Final = {"ready": "+", "degraded": "!", "backoff": "!", "failed": "x"}
"""So that a state is told without colours, and at a glance."""


def plain(state: str, text: str) -> str:
    """Return the text as it is."""
    del state
    return text


def services_text(services: Sequence[Json]) -> str:
    """Return a table of services."""
    rows = [("service", "pid", "state", "for", "manifest")]
    rows += [
        (one["service"], str(one["pid"]), one["state"], _age(one["seconds"]), one["manifest"] or "-")
        for one in services
    ]
    return "\n".join(_table(rows))


def _age(seconds: float | None) -> str:
    return "-" if seconds is None else lasting(seconds)


def silent(service: str, pid: int) -> dict[str, object]:
    """Return what there is to list of a service that does not answer, as it would have told it."""
    return {"service": service, "pid": pid, "state": "no answer", "seconds": None, "manifest": None}


def title(service: Json) -> str:
    """Return the one line that says how a service is."""
    text = f"{service['service']} (pid {service['pid']}) is {service['state']}, {lasting(service['seconds'])} old"
    if service["blocked_at"]:
        text += f"; its event loop is blocked for {lasting(service['blocked_for'])} at {service['blocked_at']}"
    if service["state"] == "stopping":
        left = max(0.0, service["grace_period"] - service["stopping_for"])
        return f"{text}; {service['reason']}, {lasting(service['stopping_for'])} ago; it ends within {lasting(left)}"
    return f"{text}; a stop takes at most {service['stop_budget']:g} s of {service['grace_period']:g} s"


def tree_text(tree: Json, style: Style = plain) -> str:
    """Return the tree of a service."""
    if "processes" in tree:
        return "\n".join([title(tree), *(_process(one, style) for one in tree["processes"])])
    components: list[Json] = tree["components"]
    rows = [(one["id"], one["state"], lasting(one["seconds"]), _load(one), _told(one)) for one in components]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    lines = [title(tree)]
    for number, row in enumerate(rows):
        state = row[1]
        branch = "└─" if number == len(rows) - 1 else "├─"
        cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)]
        cells[1] = style(state, f"{_MARKS.get(state, '-')} {cells[1]}")
        lines.append("  ".join([f"{branch} {cells[0]}", *cells[1:], row[4]]).rstrip())
    if lost := tree["log_records_lost"]:
        lines.append(f"{lost} records of the log were lost")
    return "\n".join(lines)


def _process(one: Json, style: Style) -> str:
    """Return the tree of one process of several."""
    if "components" in one:
        return tree_text({**one, "service": f"{one['service']}.{one['number']}"}, style)
    return _absent(one)


def _load(one: Json) -> str:
    if one["usage"] is not None:
        return _usage(one["usage"])
    if one["backlog"] is not None:
        return _backlog(one["backlog"])
    if one["slots"] is None:
        return ""
    rate = "" if one["per_second"] is None else f", {one['per_second']:g}/s"
    return f"{one['in_flight']}/{one['slots']} in flight{rate}"


def _usage(usage: Json) -> str:
    limit = "" if usage["limit"] is None else f"/{usage['limit']}"
    waiting = f", {usage['waiting']} waiting" if usage["waiting"] else ""
    return f"{usage['used']}{limit} used{waiting}"


def _backlog(backlog: Json) -> str:
    if not backlog["waiting"]:
        return "0 waiting"
    return f"{backlog['waiting']} waiting, the oldest for {lasting(backlog['oldest'])}"


def _told(one: Json) -> str:
    parts: list[str] = []
    if one["restarts"]:
        parts.append(counted(one["restarts"], "restart"))
    if (deadline := one["deadline"]) is not None:
        parts.append(f"{deadline['what']} in {lasting(deadline['in'])}")
    if one["waits_for"]:
        parts.append(f"waits for {', '.join(one['waits_for'])}")
    if one["reason"] and one["state"] != "backoff":
        parts.append(one["reason"])
    if one["error"] and one["state"] not in {"ready", "failed"}:
        parts.append(one["error"])
    return "; ".join(parts)


def causes_text(answer: Json) -> str:
    """Return what a service waits for."""
    if "processes" in answer:
        return "\n".join([title(answer), *map(_causes_of_process, answer["processes"])])
    causes: list[Json] = answer["causes"]
    if not causes:
        return f"{title(answer)}\nIt waits for nothing."
    return "\n".join([title(answer), *(line for cause in causes for line in _cause(cause))])


def _causes_of_process(one: Json) -> str:
    if "causes" in one:
        return causes_text({**one, "service": f"{one['service']}.{one['number']}"})
    return _absent(one)


def _absent(process: Json) -> str:
    restarts = process["restarts"]
    return f"process {process['number']} is {process['state']}{f', restarts: {restarts}' * bool(restarts)}"


def _cause(cause: Json) -> Iterator[str]:
    yield f"{cause['component']} {cause['what']}, for {lasting(cause['seconds'])}"
    if cause["in"] is not None:
        then = f"; then {cause['then']}" if cause["then"] else ""
        yield f"    at most {lasting(cause['in'])} more{then}"
    if cause["where"]:
        yield f"    at {cause['where']}"


def message_text(message: Json) -> str:
    """Return what passed a dispatcher."""
    if "missed" in message:
        return f"... {message['missed']} more"
    head = f"{message['subject']}  {message['outcome'].replace('_', ' ')} in {message['seconds'] * 1000:.1f} ms"
    told = (
        f"{message['worker'] or 'nobody'}, attempt {message['attempt']}, id {message['id']}, {message['bytes']} bytes"
    )
    headers = [f"    {key}: {value}" for key, value in message["headers"].items()]
    # Line by line: who sent it must not write lines of his own here.
    return "\n".join(map(one_line, [f"{head}  ({told})", *headers, f"    {message['body']}"]))


def printable(text: str) -> str:
    """Return a text that no terminal obeys: what is no printable character is escaped, but for line breaks."""
    return "\n".join(map(one_line, text.split("\n")))


def one_line(text: str) -> str:
    """Return a text that no terminal obeys, in one line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def lasting(seconds: float) -> str:
    """Return a time as people say it: `3.2 s`, `4 min`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if hours == 0:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if days == 0 else f"{days} d {hours % 24} h"


def _table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


# --- reloads ------------------------------------------------------------------------------------------------------


def reload_text(answer: Mapping[str, Any]) -> str:
    """Return what a reload has done."""
    parts = [f"{word}: {', '.join(answer[word])}" for word in ("added", "removed", "restarted") if answer[word]]
    if answer["undone"]:
        head = "not reloaded, all is taken back"
    else:
        head = f"reloaded in {answer['seconds']:.2f} s; {'; '.join(parts) or 'nothing restarted'}"
    failed = [f"  {id_}: {reason}" for id_, reason in answer["failed"].items()]
    failed += [f"  {id_} goes on as it was: {reason}" for id_, reason in answer["refused"].items()]
    return "\n".join([head, *failed, *map("left at {}".format, answer["left"])])


_UNSEEN: Final = "         no value of its own that is shown differs: a secret, a file, or what it uses or feeds does"


def diff_text(answer: Mapping[str, Any]) -> str:
    """Return what a reload would do, component by component, with the values that differ, or are said of a new one."""
    lines: list[str] = []
    for word, ids in (("starts", answer["added"]), ("ends", answer["removed"]), ("restarts", answer["restarted"])):
        for id_ in ids:
            follows = word == "restarts" and id_ not in answer["changed"]
            lines.append(f"{word:8} {id_}{', with what it depends on' * follows}")
            values: list[Mapping[str, Any]] = [] if word == "ends" else answer["values"]
            said = [_value_text(value) for value in values if _is_of(value["path"], id_) and _is_said(value)]
            lines += said or [_UNSEEN] * (word == "restarts" and not follows)
    shown = [*answer["added"], *answer["removed"], *answer["restarted"]]
    rest = [
        value for value in answer["values"] if _is_said(value) and not any(_is_of(value["path"], id_) for id_ in shown)
    ]
    if rest:
        lines += ["changes while it runs", *map(_value_text, rest)]
    lines += map("leaves at {}".format, answer["left"])
    return "\n".join(lines or [f"{answer['manifest']}: nothing would change"])


def _is_said(value: Mapping[str, Any]) -> bool:
    """Whether somebody has written it: the defaults of a table that is new, or gone, are dozens."""
    return value["origin"] != "default" or None not in (value["old"], value["new"])


def _is_of(path: str, id_: str) -> bool:
    kind, _, name = id_.partition("/")
    return path.startswith((f"[{kind}s.{name}]", f"[{kind}s.{name}."))


def _value_text(value: Mapping[str, Any]) -> str:
    sides = ["-" if side is None else side for side in (value["old"], value["new"])]
    origin = "" if value["new"] is None else f"  ({value['origin']})"  # of what is gone, nothing stands there now
    return f"         {value['path']}: {sides[0]} -> {sides[1]}{origin}"
