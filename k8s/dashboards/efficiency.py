"""The dashboard of what edits cost as they are run, many at a time, beside what the paper prints."""

from __future__ import annotations

from collections.abc import Mapping

from grafana_foundation_sdk.builders import dashboard

from evaluators.report.paper import FIGURE_5, FIGURE_5_TRAINING, TABLE_4
from k8s.dashboards.parts import (
    EDITOR,
    PAPER,
    WHOLE,
    Part,
    Query,
    by_editor,
    lines,
    logarithmic,
    new_dashboard,
    stacked,
)

GIB = 1024 ** 3
EDITS = f"sum by (editor) (editfleet_edits_total{{{EDITOR}}})"
AS_RUN = "As run: many at a time, on this campaign's model and devices, since its driver began."


def board() -> dashboard.Dashboard:
    found = new_dashboard("efficiency", "EditFleet: efficiency",
                          "As run, batched. The paper's protocol, one edit at a time, is in the report.")
    for panel in (_seconds(), _speed(), _ten_edits("counterfact", "COUNTERFACT"), _ten_edits("zsre", "zsRE"), _phases(),
                  _editing_memory(), _training_memory(), _scoring_memory()):
        found.with_panel(panel)
    return found


def _seconds() -> Part:
    buckets = f"sum by (le, editor) (rate(editfleet_edit_seconds_bucket{{{EDITOR}}}[$__rate_interval]))"
    return by_editor(logarithmic(lines(
        "Seconds an edit", "Half of the edits, and 95 % of them, took no longer.", "s",
        (f"histogram_quantile(0.5, {buckets})", "{{editor}}, half"),
        (f"histogram_quantile(0.95, {buckets})", "{{editor}}, 95 %"))))


def _speed() -> Part:
    """Workers' time in all phases: a worker has one device, or as a gang's rank a part of the work."""
    return by_editor(logarithmic(lines(
        "Edits in an hour of a GPU", f"{AS_RUN} Counted is all time of workers, scoring too; without GPUs of workers.",
        "short",
        (f"3600 * {EDITS} / (sum by (editor) (editfleet_phase_seconds_total{{{EDITOR}}}) > 0)", "{{editor}}"))))


def _ten_edits(dataset: str, name: str) -> Part:
    ours = f'10 * sum by (editor) (editfleet_phase_seconds_total{{{EDITOR}, phase="edit"}}) / ({EDITS} > 0)'
    return by_editor(logarithmic(lines(
        f"Seconds for 10 edits, beside the paper's on {name}",
        f"{AS_RUN} Dashed: Table 4 of Yao et al. 2023, GPT-J on V100s.", "s",
        (ours, "{{editor}}"), _papers(TABLE_4[dataset]))))


def _papers(numbers: Mapping[str, float]) -> Query:
    """Constant lines, of those editors alone that the campaign has."""
    constant = (f'label_replace(vector({value:.12g}), "editor", "{editor}", "", "")'
                for editor, value in numbers.items())
    return f"({' or '.join(constant)}) and on (editor) editfleet_edits_total{{{EDITOR}}}", f"{{{{editor}}}}{PAPER}"


def _phases() -> Part:
    return stacked(lines("Workers' time by phase", "Workers that are in a phase, on average.", "short",
                         (f"sum by (phase) (rate(editfleet_phase_seconds_total{{{EDITOR}}}[$__rate_interval]))",
                          "{{phase}}"), width=WHOLE))


def _peak(phase: str) -> Query:
    """Of a device, or where there is none of the process."""
    memory = (f'max by (editor) (editfleet_phase_peak_memory_bytes{{{EDITOR}, phase="{phase}", memory="{kind}"}})'
              for kind in ("device", "rss"))
    return " or ".join(memory), "{{editor}}"


def _editing_memory() -> Part:
    return by_editor(lines("Peak memory of editing, beside the paper's",
                           f"{AS_RUN} Dashed: Figure 5 of Yao et al. 2023, GPT-J on V100s, taken as GiB.", "bytes",
                           _peak("edit"), _papers({editor: GIB * value for editor, value in FIGURE_5.items()})))


def _training_memory() -> Part:
    return by_editor(lines("Peak memory of training, beside the paper's",
                           f"{AS_RUN} Dashed: where Figure 5's bars end with training, taken as GiB.", "bytes",
                           _peak("train"),
                           _papers({editor: GIB * value for editor, value in FIGURE_5_TRAINING.items()})))


def _scoring_memory() -> Part:
    return by_editor(lines("Peak memory of scoring", AS_RUN, "bytes", _peak("score")))
