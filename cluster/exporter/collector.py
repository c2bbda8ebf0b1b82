"""A snapshot as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from cluster.exporter.declared import METRICS, PREFIX, Declared
from cluster.exporter.snapshot import LabelValues, Snapshot


class Latest(Collector):
    """Yields what the latest snapshot has, and no more: what is gone from it is gone here."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None

    def publish(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        if (snapshot := self._snapshot) is not None:  # which another thread may replace meanwhile
            yield from (_family(declared, snapshot) for declared in METRICS)


def registry_of(collector: Collector) -> CollectorRegistry:
    """A registry of this collector, and of what the process itself takes."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


def _family(declared: Declared, snapshot: Snapshot) -> Metric:
    name, labels = PREFIX + declared.name, ("campaign", *declared.labels)
    if declared.kind == "histogram":
        return _histogram(declared, snapshot)
    family = (GaugeMetricFamily if declared.kind == "gauge" else CounterMetricFamily)(
        name, declared.meaning, labels=labels)
    for values, value in snapshot.values[declared.name].items():
        family.add_metric((snapshot.campaign, *values), value)
    return family


def _histogram(declared: Declared, snapshot: Snapshot) -> HistogramMetricFamily:
    family = HistogramMetricFamily(PREFIX + declared.name, declared.meaning, labels=("campaign", *declared.labels))
    bounds = [*(format(bound, "g") for bound in declared.buckets), "+Inf"]
    values: LabelValues
    for values, (counts, total) in snapshot.histograms[declared.name].items():
        family.add_metric((snapshot.campaign, *values), list(zip(bounds, accumulate(counts), strict=True)), total)
    return family
