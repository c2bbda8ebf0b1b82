"""Rows as CSV, for programs: a line for each editor, setting and metric, beside what the paper prints of it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from typing import Any

from editors.core.printable import printable
from evaluators.report.compare import Comparison
from evaluators.report.costs import Cost, papers_cost
from evaluators.report.paper import printed_of
from evaluators.report.samples import ReportRow, Setting
from evaluators.report.tables import Rows, Summary
from evaluators.report.views import Headings, View, headings

CELL = ("editor", *Setting._fields, "metric")
COMPARED = ("versus", "difference", "low", "high", "p", "p_holm", "n")
MEASURED = ("mean", "low", "high", "n", "paper", "statistic", "device", "dtype")
LONGEST = 10_000  # characters of a name


def to_csv(rows: Rows, view: View = "main") -> str:
    """Every metric, or the paper's, in its own unit (shares from 0 to 1); a line of columns first. Numbers that are not
    finite are empty.

    Of costs, which are medians between the least and the most of repeats, `statistic` says so. Names are as they are,
    but for strange characters, which are spelt; and one that a spreadsheet would compute begins with an apostrophe.
    """
    called = headings(rows, "paper")
    shown = [row for row in rows if view != "paper" or isinstance(row, Cost) or (row.dataset, row.metric) in called]
    compared = any(isinstance(row, Comparison) for row in shown)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*CELL, *(COMPARED if compared else MEASURED)])
    for row in shown:
        writer.writerow([*map(spelt, (getattr(row, name) for name in CELL)), *map(spelt, _numbers(row, called))])
    return text.getvalue()


def _numbers(row: ReportRow, called: Headings) -> Iterable[Any]:
    if isinstance(row, Comparison):
        return (getattr(row, name) for name in COMPARED)
    if isinstance(row, Cost):
        return (row.median, row.least, row.most, row.n, papers_cost(row), "median, least, most", row.device, row.dtype)
    assert isinstance(row, Summary)
    paper = printed_of(row, called.get((row.dataset, row.metric), ""))
    return (row.mean, row.low, row.high, row.n, None if paper is None else round(paper.value / 100, 6),
            "mean, 95 % interval", "", "")


def spelt(value: Any) -> str:
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    text = "" if value is None else printable(str(value), LONGEST)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
