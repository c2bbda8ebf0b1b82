"""The simulation of `make bench` runs what the driver runs: a small one, to its end."""

from __future__ import annotations

from benchmarks.simulation import simulate


def test_a_simulated_campaign_with_deaths_does_every_task() -> None:
    found = simulate(workers=20, tasks=300, deaths_per_hour=2.0, seed=0)
    assert found["done"] == 300 and found["failed"] == 0 and found["workers_lost"] > 0
    assert 0 < found["idle_share"] < 1
    assert 0 < found["exporter_share_of_driver"] < 1 and min(found["scrape_cpu_ms"].values()) > 0
    # A snapshot at the start, one for each time that Prometheus asks, and one at the end: nobody asked for others.
    asked = 3600 * found["simulated_hours"] / 15
    assert asked - 2 < found["scrapes"] < asked + 4
