"""The metrics of several processes in one scrape: each tells its families, and every series says which it is from.

Nothing is added up: a counter of a process that was started again begins anew, which only its own series may do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar, Sample

LABEL: Final = "process"
"""What says from which process a series is."""
_OF_USERS: Final = "exported_process"
"""What such a label of the user's own is called then, as Prometheus does it."""
Json: TypeAlias = "dict[str, Any]"


def told(families: Iterable[Metric]) -> str:
    """Return families as a process tells them."""
    return json.dumps([_family_as_json(family) for family in families])


def merged(texts: Mapping[int, str]) -> Iterator[Metric]:
    """Yield the families of all processes, by the number of each."""
    found: dict[str, Metric] = {}
    for number, text in sorted(texts.items()):
        for one in json.loads(text):
            key = f"{one['type']} {one['name']}"
            if key not in found:
                found[key] = Metric(one["name"], one["text"], one["type"], one["unit"])
            found[key].samples += [_sample(number, *values) for values in one["samples"]]
    yield from found.values()


def _family_as_json(family: Metric) -> Json:
    samples = [
        [sample.name, sample.labels, sample.value, _exemplar_as_json(sample.exemplar)] for sample in family.samples
    ]
    return {
        "name": family.name,
        "text": family.documentation,
        "type": family.type,
        "unit": family.unit,
        "samples": samples,
    }


def _exemplar_as_json(exemplar: Exemplar | None) -> list[Any] | None:
    if exemplar is None:
        return None
    at = None if exemplar.timestamp is None else float(exemplar.timestamp)
    return [dict(exemplar.labels), exemplar.value, at]


def _sample(number: int, name: str, labels: dict[str, str], value: float, exemplar: list[Any] | None) -> Sample:
    if LABEL in labels:
        labels[_OF_USERS] = labels.pop(LABEL)
    found = None if exemplar is None else Exemplar(*exemplar)
    return Sample(name, {**labels, LABEL: str(number)}, value, None, found)
