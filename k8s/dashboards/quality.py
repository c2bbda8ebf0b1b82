"""The dashboard of how well edits work, while they are made."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from k8s.dashboards.parts import CAMPAIGN, EDITOR, Part, annotation, by_editor, lines, new_dashboard, rows

METRICS = ("reliability", "generality", "locality", "portability")
CELL = "campaign, model, dataset, protocol, edits, metric"  # with `editor`, what a mean is of
SO_FAR = "Mean over the cases scored so far, over all models, data sets, protocols and numbers of edits."


def board() -> dashboard.Dashboard:
    found = new_dashboard("quality", "EditFleet: quality", "What edits do, of the cases that are scored so far.")
    for metric in METRICS:
        found.with_panel(_over_time(metric))
    for panel in (_by_edits(), _gain(), _scored(), _diverged()):
        found.with_panel(panel)
    return (found
            .annotation(annotation("Tasks set aside", "red", "sum by (campaign, kind) (delta(editfleet_tasks"
                                   f'{{{CAMPAIGN}, state="set_aside"}}[2m])) > 0'))
            .annotation(annotation("Workers lost", "orange", "sum by (campaign, reason) (increase("
                                   f"editfleet_workers_lost_total{{{CAMPAIGN}}}[2m])) > 0")))


def _mean(metric: str, by: str) -> str:
    """Of all cases: the means of cells, each as often as it has cases."""
    which = f'{EDITOR}, metric="{metric}.exact"'
    return (f"sum by ({by}) (editfleet_metric_mean{{{which}}} * editfleet_cases_scored{{{which}}}) / "
            f"(sum by ({by}) (editfleet_cases_scored{{{which}}}) > 0)")


def _over_time(metric: str) -> Part:
    return by_editor(lines(metric.capitalize(), SO_FAR, "percentunit", (_mean(metric, "editor"), "{{editor}}"))).max(1)


def _by_edits() -> Part:
    return rows("By the number of edits", "Of the cases scored so far, by how many edits the model has.", "percentunit",
                [(_mean(metric, "editor, edits"), metric) for metric in METRICS])


def _gain() -> Part:
    """Cell by cell, so that an editor with fewer of them is not compared with others' cells."""
    def cells(editor: str, metric: str) -> str:
        return (f"max by ({CELL}, editor) (editfleet_metric_mean{{{CAMPAIGN}, "
                f'editor{editor}, metric="{metric}.exact"}})')

    def gain(metric: str) -> str:
        edited = cells('=~"$editor", editor!="identity"', metric)
        unedited = cells('="identity"', metric)
        return f"avg by (editor) ({edited} - on ({CELL}) group_left () {unedited})"

    return rows("Difference to the unedited model", "Mean over what both were scored on.", "percentunit",
                [(gain(metric), metric) for metric in METRICS])


def _scored() -> Part:
    return by_editor(lines("Scores", "How many scores of reliability the means are over.", "short",
                           (f'sum by (editor) (editfleet_cases_scored{{{EDITOR}, metric="reliability.exact"}})',
                            "{{editor}}")))


def _diverged() -> Part:
    return by_editor(lines("Diverged", "Share of edits that are not finite, since the driver began.", "percentunit",
                           (f"sum by (editor) (editfleet_edits_diverged_total{{{EDITOR}}}) / "
                            f"(sum by (editor) (editfleet_edits_total{{{EDITOR}}}) > 0)", "{{editor}}")))
