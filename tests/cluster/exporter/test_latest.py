"""What Prometheus is answered: the same as its own client would write, of now, and made only for who asks."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from itertools import accumulate

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from support.watched import FULL, Watched, score

from cluster.exporter import latest as latest_module
from cluster.exporter.declared import METRICS, PREFIX
from cluster.exporter.latest import Latest
from cluster.exporter.server import Exporter
from cluster.exporter.text import TextWriter

NASTY = 'a "{model}" of 100 %s\\n%d'


class OfClient:
    """A snapshot in the families of Prometheus' own client."""

    def __init__(self, snapshot):
        self.snapshot = snapshot

    def collect(self):
        campaign = self.snapshot.campaign
        for declared in METRICS:
            of, labels = (PREFIX + declared.name, declared.meaning), ("campaign", *declared.labels)
            if declared.kind == "histogram":
                family = HistogramMetricFamily(*of, labels=labels)
                bounds = [*(format(bound, "g") for bound in declared.buckets), "+Inf"]
                for values, (counts, total) in self.snapshot.histograms[declared.name].items():
                    family.add_metric((campaign, *values), list(zip(bounds, accumulate(counts), strict=True)), total)
            else:
                family = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}[declared.kind](*of, labels=labels)
                for values, value in self.snapshot.values[declared.name].items():
                    family.add_metric((campaign, *values), value)
            yield family


def parsed(text):
    """Every sample by its name and labels; NaN as text, as it is like nothing."""
    return {(sample.name, frozenset(sample.labels.items())): sample.value if sample.value == sample.value else "NaN"
            for family in text_string_to_metric_families(text.decode()) for sample in family.samples}


def by_client(snapshot):
    registry = CollectorRegistry()
    registry.register(OfClient(snapshot))
    return parsed(generate_latest(registry))


@pytest.fixture
def watched():
    return Watched({f"task {number}": ((), score(NASTY, editor)) for number, editor in enumerate(["ft", "mend"] * 3)},
                   models=[NASTY], editors=["ft", "mend"], name=NASTY, place=NASTY)


def snapshot(watched):
    watched.tally.count_told()
    return watched.gauges.snapshot(watched.state, watched.progress)


def test_the_text_tells_what_prometheus_own_client_writes_as_series_come_and_go(watched):
    writer = TextWriter(watched.gauges._campaign)
    told = []
    while not watched.state.finished:
        told.append(snapshot(watched))  # the first has a time left that nobody knows
        watched.tally.store_took("write", 0.01 * len(told), False)
        watched.finish(seconds=4.0 ** len(told), account=FULL)
    told.append(snapshot(watched))
    fewer = dict(told[-1].values, metric_mean={}, edits={(NASTY, "mend"): math.inf, ("x", "y"): -math.inf})
    for each in (*told, replace(told[-1], values=fewer), *told[::-1]):
        assert parsed(writer.text(each)) == by_client(each)
    assert ("editfleet_expected_remaining_seconds", frozenset({("campaign", NASTY)})) in [
        key for key, value in by_client(told[0]).items() if value == "NaN"]


def test_a_snapshot_is_made_for_who_asks_and_for_many_at_once_once(watched, monkeypatch):
    latest = Latest()
    exporter = Exporter((latest,))
    assert exporter.wanted  # so that there is something from the start
    exporter.publish(snapshot(watched))
    began = time.monotonic()
    for _ in range(20):
        assert b'state="running"} 1.0' in latest.text()
    assert not exporter.wanted and time.monotonic() - began < latest_module.FRESH
    monkeypatch.setattr(latest_module, "FRESH", 0.0)
    monkeypatch.setattr(latest_module, "PATIENCE", 60.0)
    answers = []
    asking = [threading.Thread(target=lambda: answers.append(latest.text())) for _ in range(3)]
    for each in asking:
        each.start()
    while not exporter.wanted:
        time.sleep(0.01)
    assert not answers
    watched.finish()
    while any(each.is_alive() for each in asking):  # the last of them may come after the first was answered
        exporter.publish(snapshot(watched))
        time.sleep(0.05)
    assert len(answers) == 3 and all(b'kind="score",state="done"} 1.0' in answer for answer in answers)


def test_a_driver_that_does_not_come_to_it_is_told_by_its_last_snapshot(watched, monkeypatch):
    latest = Latest()
    assert b"editfleet" not in latest.text()  # none has begun, and nobody waits for it
    latest.publish(snapshot(watched))
    monkeypatch.setattr(latest_module, "FRESH", 0.0)
    monkeypatch.setattr(latest_module, "PATIENCE", 0.1)
    assert b"driver_heartbeat" in latest.text() and latest.wanted
