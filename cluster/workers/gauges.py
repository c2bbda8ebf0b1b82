"""How far a campaign is, among the metrics of Ray itself. Gauges alone, and by the driver alone: Ray goes on to show
counters of workers that are gone, and its histograms' sums are wrong."""

from __future__ import annotations

from ray.util.metrics import Gauge

from cluster.exporter.declared import METRICS, PREFIX
from cluster.exporter.snapshot import Snapshot

SHOWN = ("progress_ratio", "expected_remaining_seconds", "edits_done")


class RayGauges:
    """Publishes a few gauges of a campaign; Ray has to be running by the first."""

    def __init__(self) -> None:
        self._gauges: dict[str, Gauge] = {}

    def publish(self, snapshot: Snapshot) -> None:
        if not self._gauges:
            self._gauges = {each.name: Gauge(PREFIX + each.name, each.meaning, ("campaign",))
                            for each in METRICS if each.name in SHOWN}
        for name, gauge in self._gauges.items():
            [value] = snapshot.values[name].values()
            gauge.set(value, {"campaign": snapshot.campaign})
