"""What a search makes as good as it can: one metric, or the harmonic mean of several; and whether it got better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import pyarrow as pa

from editors.core.errors import InputError, unknown
from evaluators.report.compare import pair
from evaluators.report.intervals import Statistic, bootstrap_difference, each, harmonic_mean, permutation_test
from evaluators.report.samples import SCORE, SCORED, Sample, Setting, samples
from evaluators.scoring.measures import all_metrics

DIVERGED = "edit.diverged"


class Verdict(NamedTuple):
    """An objective of two editors in a setting, over the n cases that both have; the difference (found - preset) with
    the bounds of its 95 % confidence interval and the p-value of there being none."""

    setting: Setting
    preset: float
    found: float
    difference: float
    low: float
    high: float
    p: float
    n: int


@dataclass(frozen=True)
class Objective:
    """Raises `InputError` for metrics that there are not, or that have no harmonic mean."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        known = all_metrics()
        for name in self.names:
            if name not in known:
                raise unknown("metric", name, known)
        if len(set(self.names)) < len(self.names):
            raise InputError(f"a metric is listed twice: {', '.join(self.names)}")
        odd = [name for name in self.names if known[name].unit != "share" or known[name].better != "higher"]
        if len(self.names) > 1 and (odd or SCORE in self.names):
            raise InputError(f"a harmonic mean is of shares of which higher is better, and '{(odd or [SCORE])[0]}' is "
                             "no such metric; take it alone")

    @property
    def better(self) -> Literal["higher", "lower"]:
        return all_metrics()[self.names[0]].better

    @property
    def share(self) -> bool:
        return all_metrics()[self.names[0]].unit == "share"

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """What it is worked out of."""
        return SCORED if self.names == (SCORE,) else self.names

    @property
    def statistic(self) -> Statistic:
        return each if len(self.metrics) == 1 else harmonic_mean

    def __str__(self) -> str:
        return self.names[0] if len(self.names) == 1 else f"the harmonic mean of {', '.join(self.names)}"

    def score(self, table: pa.Table) -> float:
        """Of the rows of one editor: its mean over all settings. Raises `InputError` with why there is none."""
        found, names = samples(table)
        if not found:
            raise InputError("no case was scored")
        return math.fsum(self._of(sample, names) for sample in found) / len(found)

    def _of(self, sample: Sample, names: list[str]) -> float:
        where = f"{sample.setting.dataset}, {sample.setting.protocol}"
        own = [names[code] for code in sample.metrics]
        if lost := [metric for metric in self.metrics if metric not in own]:
            raise InputError(f"{where}: no case has '{lost[0]}'")
        clusters = sample.clusters()
        if DIVERGED in own and clusters.means[own.index(DIVERGED)] >= 1:
            raise InputError(f"{where}: every edit diverged")
        value = float(self.statistic(clusters.pick([own.index(metric) for metric in self.metrics]).means)[0])
        if not math.isfinite(value):
            raise InputError(f"{where}: {self} is {value}")
        return value

    def compare(self, table: pa.Table, found: str, preset: str) -> list[Verdict]:
        """The editor `found` less the editor `preset` in every setting that both have."""
        collected, names = samples(table)
        by_setting: dict[Setting, dict[str, Sample]] = {}
        for sample in collected:
            by_setting.setdefault(sample.setting, {})[sample.editor] = sample
        return [self._compare(setting, editors[found], editors[preset], names)
                for setting, editors in sorted(by_setting.items()) if {found, preset} <= editors.keys()]

    def shown(self, value: float | None, sign: str = "") -> str:
        """Shares in percent."""
        return "-" if value is None else f"{100 * value:{sign}.1f}" if self.share else f"{value:{sign}.4g}"

    def sentence(self, verdict: Verdict, found: str, preset: str) -> str:
        """Whether the editor `found` beats `preset`: only a difference whose interval lacks 0 is one."""
        gain = 1 if self.better == "higher" else -1
        doubtful = verdict.low <= 0 <= verdict.high
        beats = ("does not beat" if doubtful else "beats" if gain * verdict.difference > 0 else "is worse than")
        unit, (low, high) = " %" if self.share else "", (self.shown(end, "+") for end in (verdict.low, verdict.high))
        model, dataset, protocol, edits = verdict.setting
        where = f"{model}, {dataset}, {protocol}" + (f" with {edits} edits" if edits > 1 else "")
        return (f"On {where}, {found} {beats} {preset}: {self} is {self.shown(verdict.found)}{unit} and was "
                f"{self.shown(verdict.preset)}{unit}, a difference of {self.shown(verdict.difference, '+')} (95 % "
                f"interval {low} to {high}, p {verdict.p:.2g}) over the {verdict.n} cases that both have.")

    def _compare(self, setting: Setting, found: Sample, preset: Sample, names: list[str]) -> Verdict:
        first, second, _ = pair(found, preset)
        codes = [names.index(metric) for metric in self.metrics]
        columns = [list(first.metrics).index(code) for code in codes]
        own, other = first.clusters().pick(columns), second.clusters().pick(columns)
        difference, low, high = (float(part[0]) for part in bootstrap_difference(own, other, self.statistic))
        before, after = (float(self.statistic(clusters.means)[0]) for clusters in (other, own))
        p = float(permutation_test(own, other, self.statistic)[0])
        return Verdict(setting, before, after, difference, low, high, p, first.cases(first.metrics[columns]))
