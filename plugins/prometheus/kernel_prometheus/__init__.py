"""The dispatcher `prometheus`: the metrics of a service and of its workers, for Prometheus to scrape."""

from __future__ import annotations

from ._app import MetricsApp as MetricsApp
from ._config import MetricsConfig as MetricsConfig
from ._config import PrometheusConfig as PrometheusConfig
from ._dispatcher import PrometheusDispatcher as PrometheusDispatcher

__all__ = ["MetricsApp", "MetricsConfig", "PrometheusConfig", "PrometheusDispatcher"]
