"""How far a campaign is, among the metrics of Ray itself. Gauges alone, and by the driver alone: Ray goes on to show
counters of workers that are gone, and its histograms' sums are wrong."""

from __future__ import annotations

import time

from ray.util.metrics import Gauge

from cluster.exporter.declared import METRICS, PREFIX
from cluster.exporter.snapshot import Snapshot

SHOWN = ("progress_ratio", "expected_remaining_seconds", "edits_done")
EVERY = 10.0  # seconds, as often as Ray's nodes report theirs


class RayGauges:
    """Publishes a few gauges of a campaign; Ray has to be running by the first."""

    def __init__(self) -> None:
        self._gauges: dict[str, Gauge] = {}
        self._due = float("-inf")

    @property
    def wanted(self) -> bool:
        return time.monotonic() >= self._due

    def publish(self, snapshot: Snapshot) -> None:
        self._due = time.monotonic() + EVERY
        if not self._gauges:
            self._gauges = {each.name: Gauge(PREFIX + each.name, each.meaning, ("campaign",))
                            for each in METRICS if each.name in SHOWN}
        for name, gauge in self._gauges.items():
            [value] = snapshot.values[name].values()
            gauge.set(value, {"campaign": snapshot.campaign})
