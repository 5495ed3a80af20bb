"""The dashboard for Grafana asks for metrics and labels that exist, and has the shape that Grafana imports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from kernel_prometheus import MetricsConfig
from kernel_prometheus._families import rendered
from kernel_prometheus._metrics import Metrics
from prometheus_client.parser import text_string_to_metric_families as parse

from kernel.testing import fake_context

DASHBOARD: dict[str, Any] = json.loads((Path(__file__).parents[3] / "docs/howto/dashboard.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def known() -> set[str]:
    """Return the names of all metrics, those without samples too."""
    context = fake_context("dispatcher/metrics")
    text = rendered(Metrics(context, MetricsConfig()), "")[0].decode()
    names: set[str] = set()
    for family in parse(text):
        suffixes = ("_bucket", "_count", "_sum") if family.type == "histogram" else ("",)
        base = f"{family.name}_total" if family.type == "counter" else family.name
        names |= {f"{base}{suffix}" for suffix in suffixes}
    return names


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_asks_for_metrics_that_exist(expression: str) -> None:
    asked = set(re.findall(r"\b((?:kernel|process)_\w+)", expression))

    assert asked
    assert asked <= known()


def test_the_dashboard_has_the_shape_that_grafana_imports() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]

    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= DASHBOARD.keys()
    assert len(ids) == len(set(ids))
    assert all({"type", "title", "gridPos", "targets", "datasource"} <= panel.keys() for panel in DASHBOARD["panels"])
    assert all(0 <= panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])
