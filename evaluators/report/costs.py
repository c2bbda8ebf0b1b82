"""What edits cost, as tables: medians over repeats, between the least and the most, beside the paper's numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import pyarrow as pa
import pyarrow.compute as pc

from evaluators.report.grids import Grid
from evaluators.report.paper import (
    FIGURE_5,
    FIGURE_5_TRAINING,
    TABLE_4,
    in_papers_order,
    papers_dataset,
    papers_model,
)
from evaluators.report.samples import ReportRow
from evaluators.report.stores import unlabelled
from evaluators.report.views import View

PROTOCOL = "efficiency"
GIB = 2**30
PAPERS_MODEL, PAPERS_EDITS = "gpt-j", 10


@dataclass(frozen=True)
class Cost(ReportRow):
    """The median of one metric over n repeats, the least and the most; on which device, and in which dtype."""

    median: float
    least: float
    most: float
    n: int
    device: str
    dtype: str


def parted(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Rows of scores, and rows of costs."""
    is_cost = pc.match_substring_regex(table["protocol"], f"^{PROTOCOL}$")  # to compare with a value loads pandas
    return table.filter(pc.invert(is_cost)), table.filter(is_cost)


def costs(table: pa.Table) -> list[Cost]:
    """Every metric of what edits cost, over its repeats and seeds. Other rows are left out."""
    values: dict[tuple[str, str, str, int, str, str, str], list[float]] = defaultdict(list)
    for row in parted(table)[1].to_pylist():
        device, dtype = row["texts"] or ("", "")
        values[row["editor"], row["model"], row["dataset"], row["edits"], row["metric"], device, dtype].append(
            row["value"])
    found = [Cost(editor, model, dataset, PROTOCOL, edits, metric, median(each), min(each), max(each), len(each),
                  device, dtype)
             for (editor, model, dataset, edits, metric, device, dtype), each in values.items()]
    return sorted(found, key=lambda row: (row.sort_key, row.device, row.dtype))


def papers_cost(row: Cost) -> float | None:
    """What the paper prints of a metric of ten edits of its data, in the metric's own unit."""
    if papers_model(row.model) != PAPERS_MODEL or row.edits != PAPERS_EDITS or papers_dataset(row.dataset) is None:
        return None
    if row.metric == "cost.seconds":
        return TABLE_4[unlabelled(row.dataset)].get(row.editor)
    sizes = {"cost.memory.device": FIGURE_5, "cost.training.memory": FIGURE_5_TRAINING}.get(row.metric, {})
    return sizes[row.editor] * GIB if row.editor in sizes else None


def cost_tables(rows: Sequence[Cost], view: View = "main") -> Iterator[Grid]:
    """A table for each model, data set, device, dtype and number of edits, with the paper's columns where the model is
    its; in the paper's view editors are in its order."""
    if view == "paper":
        rows = sorted(rows, key=lambda row: in_papers_order(row.editor))
    groups: dict[tuple[str, str, str, str, int], list[Cost]] = defaultdict(list)
    for row in rows:
        groups[row.model, row.dataset, row.device, row.dtype, row.edits].append(row)
    for (model, dataset, device, dtype, edits), group in groups.items():
        title = f"cost of {edits} edits of {dataset} on {model} ({dtype}) by {device}"
        yield _table(title, group, edits, papers=papers_model(model) == PAPERS_MODEL)


def _table(title: str, rows: Sequence[Cost], edits: int, *, papers: bool) -> Grid:
    lines: dict[str, dict[str, Cost]] = defaultdict(dict)
    for row in rows:
        lines[row.editor][row.metric] = row
    head, body = list[str](), list[list[str]]()
    for editor, found in lines.items():
        cells = {"editor": editor, **_ours(found, edits),
                 **(_papers(editor, rows[0].dataset, edits) if papers else {})}
        head = list(cells)
        body.append(list(cells.values()))
    used = [place for place in range(len(head)) if any(line[place] != "-" for line in body)]
    return Grid(title, [head[place] for place in used], [[line[place] for place in used] for line in body], 1,
                     _note(papers))


def _ours(found: dict[str, Cost], edits: int) -> dict[str, str]:
    """Seconds of all edits, and GiB: of the device, or where there is none of the process."""
    memory = next((kind for kind in ("device", "rss") if f"cost.memory.{kind}" in found), "rss")
    where = "device" if memory == "device" else "process"
    most, training = found.get(f"cost.memory.{memory}"), found.get("cost.training.memory")
    return {
        f"{edits} edits (s)": _range(found.get("cost.seconds")),
        "chunked (s)": _number(found.get("cost.seconds.chunked")),
        "undetermined (s)": _number(found.get("cost.seconds.undetermined")),
        "first edit (s)": _number(found.get("cost.seconds.cold")),
        f"{where} (GiB)": _number(most, GIB),
        "edits' own (GiB)": _number(found.get("cost.memory.excess"), GIB),
        "training + (GiB)": f"{max(training.median - most.median, 0.0) / GIB:.3g}" if training and most else "-",
        "making (s)": _number(found.get("cost.making.seconds"), least=0.001),
        "statistics (s)": _number(found.get("cost.statistics.seconds")),
        "training (h)": _number(found.get("cost.training.seconds"), 3600),
        "energy (J)": _number(found.get("cost.joules")),
    }


def _papers(editor: str, dataset: str, edits: int) -> dict[str, str]:
    """What the paper prints; times of the data set that is the paper's, or else of both."""
    sets = [papers] if (papers := papers_dataset(dataset)) else list(TABLE_4)
    times = [f"{TABLE_4[name][editor]:g}" for name in sets if editor in TABLE_4[name] and edits == PAPERS_EDITS]
    most, trained = FIGURE_5.get(editor), FIGURE_5_TRAINING.get(editor)
    return {"paper (s)": " / ".join(times) or "-", "paper (GiB)": "-" if most is None else f"{most:g}",
            "paper + (GiB)": "-" if most is None or trained is None else f"{trained - most:.3g}"}


def _note(papers: bool) -> str:
    ours = ("Edits one at a time, median (least-most), and chunked: all at once, each with a patch of its own; "
            "synchronised, warmed up, each method in a process of its own. Memory at its peak; + is what training took "
            "above it")
    paper = ("; paper: Yao et al. 2023, table 4 (GPT-J-6B on \"one 2x V100 32G\", counterfact / zsre) and figure 5 "
             "(GPT-J-6B on \"3 x V100\")") if papers else ""
    return f"{ours}{paper}"


def _range(cost: Cost | None) -> str:
    if cost is None:
        return "-"
    return f"{cost.median:.3g} ({cost.least:.3g}-{cost.most:.3g})" if cost.n > 1 else f"{cost.median:.3g}"


def _number(cost: Cost | None, unit: float = 1.0, least: float = 0.0) -> str:
    """In a unit; 0 for what is below the least that means anything."""
    if cost is None:
        return "-"
    return f"{cost.median / unit:.3g}" if cost.median >= least else "0"

