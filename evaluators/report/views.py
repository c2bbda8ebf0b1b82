"""What tables and pictures show: which metrics, and under which headings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from evaluators.report.samples import ReportRow, name_key
from evaluators.scoring.measures import all_metrics

View = Literal["main", "all", "paper"]
Headings = Mapping[tuple[str, str], str]  # by data set and metric; what is not in it is not shown

#: The columns of Yao et al. 2023, tables 2 and 3, and what each is the mean of, over all records: token accuracy under
#: teacher forcing (equations 2, 3, 5), and agreement with the unedited model (equation 4) on neighbours, as for
#: COUNTERFACT, or of a data set that has none on its unrelated questions, as for ZsRE.
PAPER = {"Reliability": ("reliability.token",), "Generality": ("generality.token",),
         "Locality": ("locality.token", "locality.unrelated.token"), "Portability": ("portability.all.token",)}


def is_main(metric: str) -> bool:
    """Whether tables show a metric unless all are asked for."""
    known = all_metrics().get(metric)
    return known is not None and known.main


def headings(rows: Sequence[ReportRow], view: View) -> Headings:
    """What the metrics that a view shows are called: by their names, or as the paper does."""
    found = {(row.dataset, row.metric) for row in rows}
    if view != "paper":
        return {(dataset, metric): metric for dataset, metric in found if view == "all" or is_main(metric)}
    return {(dataset, measured[0]): heading for dataset in {dataset for dataset, _ in found}
            for heading, metrics in PAPER.items()
            if (measured := [metric for metric in metrics if (dataset, metric) in found])}


def in_order(called: Headings) -> list[str]:
    """The headings, in the order of the table of metrics."""
    return list(dict.fromkeys(called[key] for key in sorted(called, key=lambda key: name_key(key[1]))))


def footnote(called: Headings) -> str:
    """What is behind headings that are not the metrics' own names; empty where there are none."""
    told = []
    for heading in in_order(called):
        metrics: dict[str, list[str]] = {}
        for dataset, metric in sorted(key for key, name in called.items() if name == heading != key[1]):
            metrics.setdefault(metric, []).append(dataset)
        of = [f"{metric} of {', '.join(datasets)}" if len(metrics) > 1 else metric
              for metric, datasets in metrics.items()]
        told += [f"{heading} is {' and '.join(of)}"] if of else []
    return f"As Yao et al. 2023: {'; '.join(told)}" if told else ""
