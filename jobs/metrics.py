"""`editfleet metrics`: what every metric is.

    python -m jobs.metrics
"""

from __future__ import annotations

from rich import box
from rich.table import Table

from evaluators.scoring.measures import all_metrics
from jobs.console import console


def metrics() -> None:
    """Show every metric by name: its unit, which way is better, its version, and what it means."""
    table = Table("metric", "unit", "better", "version", "meaning", box=box.SIMPLE_HEAD, pad_edge=False)
    for metric in all_metrics().values():
        table.add_row(metric.name, metric.unit, metric.better, str(metric.version), metric.meaning)
    console().print(table)


if __name__ == "__main__":
    from jobs.cli import main

    main("metrics")
