"""Tables of scores: the paper's tables 2 and 3, where locality comes from, success and magnitude."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from evaluators.report.page.blocks import ASPECTS, WAYS, Cell, Figure, Grid, Note, Panel, estimate, name, of_editor
from evaluators.report.page.charts import At, dots
from evaluators.report.pairwise import Pair
from evaluators.report.paper import printed
from evaluators.report.samples import UNEDITED, Setting, name_key
from evaluators.report.tables import Summary, best_of, show_value
from evaluators.scoring.measures import all_metrics

SOURCES = {"neighbours": "locality", "the subject's other facts": "locality.attributes",
           "what else the relation holds": "locality.forgetfulness", "behind the edit": "locality.distracting",
           "other text": "locality.unrelated"}
SUCCESS = ("score.success", "reliability.success", "generality.success", "locality.success", "reliability.magnitude",
           "generality.magnitude", "locality.magnitude")
Found = Mapping[str, Mapping[str, Summary]]  # by editor and metric


class Scores:
    """The summaries of a campaign by setting, editor and metric, with differences to the unedited model.

    `papers` says which models are the paper's, by their names in rows.
    """

    def __init__(self, rows: Sequence[Summary], pairs: Sequence[Pair], papers: Mapping[str, str]) -> None:
        self.papers = papers
        self.settings: dict[Setting, dict[str, dict[str, Summary]]] = defaultdict(lambda: defaultdict(dict))
        for row in rows:
            self.settings[setting_of(row)][row.editor][row.metric] = row
        self._gaps = {(each.setting, each.editor, each.metric): each for each in pairs if each.versus == UNEDITED}

    def of(self, protocol: str) -> list[tuple[Setting, dict[str, dict[str, Summary]]]]:
        """The settings of a protocol, in order, with what was found of each editor there."""
        return [(setting, self.settings[setting]) for setting in sorted(self.settings) if setting.protocol == protocol]

    def paper(self, setting: Setting, editor: str, aspect: str, way: str) -> str:
        """What the paper has there: of single edits, tokens, and its own models and data alone."""
        if way != "token" or setting.protocol != "single" or setting.model not in self.papers or aspect not in ASPECTS:
            return ""
        return str(printed(aspect, setting.dataset, self.papers[setting.model], editor) or "")

    def difference(self, setting: Setting, editor: str, metric: str) -> str:
        """To the unedited model, over the cases that both have."""
        gap = self._gaps.get((setting, editor, metric))
        if gap is None:
            return ""
        return f"{show_value(metric, gap.difference, (gap.high - gap.low) / 2, '+')} to {UNEDITED}"


def setting_of(row: Summary) -> Setting:
    return Setting(row.model, row.dataset, row.protocol, row.edits)


def where(setting: Setting) -> str:
    """A setting in words."""
    edits = f", {setting.edits:,} edits" if setting.edits > 1 else ""
    return f"{name(setting.dataset).text} on {name(setting.model).text}{edits}"


def metrics_of(found: Found, way: str, aspects: Mapping[str, Sequence[str]] = ASPECTS) -> dict[str, str]:
    """The metric of each aspect that any editor has: the first of those it may be."""
    known = {metric for row in found.values() for metric in row}
    chosen = {aspect: next((f"{base}.{way}" for base in bases if f"{base}.{way}" in known), "")
              for aspect, bases in aspects.items()}
    return {aspect: metric for aspect, metric in chosen.items() if metric}


def single_edits(scores: Scores) -> Iterator[Grid | Figure | Note]:
    """Tables 2 and 3: a figure and a table for each model and data set, in each way that answers are taken."""
    for setting, found in scores.of("single"):
        for way in WAYS:
            chosen = metrics_of(found, way)
            if not chosen:
                continue
            yield _figure(scores, setting, found, chosen, way)
            yield _table(scores, setting, found, chosen, way, f"Tables 2 and 3: {where(setting)}, one edit at a time")


def _table(scores: Scores, setting: Setting, found: Found, chosen: Mapping[str, str], way: str, title: str) -> Grid:
    rows = []
    editors = sorted(found, key=name_key)
    best = {metric: {editors[number] for number in best_of([found[editor].get(metric) if editor != UNEDITED else None
                                                           for editor in editors])} for metric in chosen.values()}
    for editor in editors:
        cells = [estimate(found[editor].get(metric), scores.paper(setting, editor, aspect, way),
                          scores.difference(setting, editor, metric), best=editor in best[metric])
                 for aspect, metric in chosen.items()]
        rows.append([of_editor(editor), *cells])
    return Grid(f"{title}, {WAYS[way]}", ["editor", *chosen], rows, note=_note(scores, setting, chosen), way=way)


def _note(scores: Scores, setting: Setting, chosen: Mapping[str, str]) -> str:
    told = (f"{'; '.join(f'{aspect} is {metric}' for aspect, metric in chosen.items())}. Shares in percent, ± half "
            "the 95 % confidence interval; bold is the best.")
    if setting.model not in scores.papers or setting.dataset not in ("zsre", "counterfact"):
        told += " Model and data are not the paper's, so its numbers are not shown."
    return told


def _figure(scores: Scores, setting: Setting, found: Found, chosen: Mapping[str, str], way: str) -> Figure:
    panels = []
    for aspect, metric in chosen.items():
        rows = []
        for editor in sorted(found, key=name_key):
            row, printed = found[editor].get(metric), scores.paper(setting, editor, aspect, way)
            paper = float(printed.split()[0]) / 100 if printed else None
            rows.append((editor, At(0, row.mean, row.low, row.high) if row else None, paper))
        panels.append(Panel(dots(aspect, rows), f"{aspect} of each editor in percent, as in the table below"))
    return Figure(f"{where(setting)}, {WAYS[way]}", panels, note="Means in percent and their 95 % intervals" + (
        "; upright bars are the paper's" if scores.paper(setting, "ft", "Reliability", way) else ""), way=way)


def locality(scores: Scores) -> Iterator[Grid]:
    """Where locality is kept and where it is lost."""
    for setting, found in scores.of("single"):
        for way in WAYS:
            sources = metrics_of(found, way, {source: (base,) for source, base in SOURCES.items()})
            if sources:
                yield replace(_table(scores, setting, found, sources, way, f"Locality by source: {where(setting)}"),
                              note="Agreement with the unedited model's own answers, in percent.")


def success(scores: Scores) -> Iterator[Grid]:
    """COUNTERFACT's success and magnitude, and their harmonic mean S."""
    known = all_metrics()
    for setting, found in scores.of("single"):
        chosen = {metric: metric for metric in SUCCESS if any(metric in row for row in found.values())}
        if chosen:
            yield replace(_table(scores, setting, found, chosen, "exact", f"Success and magnitude: {where(setting)}"),
                          caption=f"Success and magnitude: {where(setting)}", way="",
                          note="; ".join(f"{metric}: {known[metric].meaning}" for metric in chosen).replace("`", "")
                          + ". In percent.")


def many_edits(scores: Scores, protocol: str, title: str) -> Iterator[Grid]:
    """The numbers behind curves: a row for each editor and number of edits."""
    groups: dict[tuple[str, str], list[Setting]] = defaultdict(list)
    for setting, _ in scores.of(protocol):
        groups[setting.model, setting.dataset].append(setting)
    for settings in groups.values():
        for way in WAYS:
            everything: dict[str, dict[str, Summary]] = {
                f"{editor} {setting.edits}": found for setting in settings
                for editor, found in scores.settings[setting].items()}
            chosen = metrics_of(everything, way)
            if not chosen:
                continue
            editors = sorted({editor for setting in settings for editor in scores.settings[setting]}, key=name_key)
            rows = [[of_editor(editor), Cell(f"{setting.edits:,}"),
                     *(estimate(found.get(metric), "", scores.difference(setting, editor, metric))
                       for metric in chosen.values())]
                    for editor in editors for setting in settings
                    if (found := scores.settings[setting].get(editor)) is not None]
            place = settings[0]._replace(edits=1)
            yield Grid(f"{title}: {where(place)}, {WAYS[way]}", ["editor", "edits", *chosen], rows, 2,
                       _note(scores, place, chosen), way, folded=True)
