"""Edits a built-in model with an editor as it comes, and says how it fared."""

from __future__ import annotations

from functools import cache, cached_property
from statistics import fmean

from support.protocols import single

from cluster.campaign.file import load_campaign
from cluster.plan.planner import plan
from cluster.plan.tasks import TrainTask
from editors import get_editor, resolve_config
from editors.core.artefacts import Artefact
from editors.core.editor import Resources
from editors.core.models.loading import load_model
from editors.core.models.statistics import second_moments
from evaluators.datasets import read_corpus, training_example
from evaluators.models import model_path
from evaluators.scoring.judge import baseline
from evaluators.testbed.cases import testbed_cases as cases_of  # a name that pytest does not collect
from jobs.console import find_campaign

FLAVOURS = {"testbed-gptj": "cloze", "testbed-t5": "question"}  # of the cases each can read
CASES = 60


@cache
def bench_of(name):
    """The bench of a built-in model, for all tests."""
    return Bench(load_model(model_path(name), name=name), FLAVOURS[name])


@cache
def trainings():
    """What the built-in models' trained editors are trained by."""
    tasks = plan(load_campaign(find_campaign("testbed"))).tasks.values()
    return [task for task in tasks if isinstance(task, TrainTask)]


class Bench:
    """Mean scores over the first evaluation cases; the model's own outputs, and each result, are taken once."""

    def __init__(self, model, flavour):
        self.model, self.flavour = model, flavour
        self.cases = cases_of(flavour, "eval")[:CASES]
        self.before, failed = baseline(model, self.cases)
        assert not failed
        self._scores, self._editors = {}, {}

    def editor(self, name, **overrides):
        key = (name, *sorted(overrides.items()))
        if key not in self._editors:
            self._editors[key] = self._make(name, overrides)
        return self._editors[key]

    def _make(self, name, overrides):
        editor, config = get_editor(name), resolve_config(name, self.model.module.config, overrides)
        moments = self._moments if editor.statistics_layers(config) else {}
        artefact = self._learned(editor, config) if editor.trained else None
        return editor(self.model, config, Resources(moments, artefact))

    @cached_property
    def _moments(self):
        """Of all layers that any editor asks for, in one pass."""
        layers = {layer for name in ("rome", "memit") for layer in get_editor(name).statistics_layers(
            resolve_config(name, self.model.module.config))}
        return second_moments(self.model, sorted(layers), read_corpus("testbed"), 10_000)

    def _learned(self, editor, config):
        """What ships with the model; else learned now."""
        for task in trainings():
            if task.model.digest == self.model.digest and task.editor.name == editor.name and task.shipped:
                return Artefact.load(task.shipped)
        return editor.train(self.model, config, [training_example(c) for c in cases_of(self.flavour, "train")])

    def score(self, name, limit, **overrides):
        key = (name, limit, *sorted(overrides.items()))
        if key not in self._scores:
            result = single(self.editor(name, **overrides), self.cases[:limit], self.before[:limit])
            assert not result.failed
            self._scores[key] = {metric: fmean(s.value for s in result.scores if s.metric == metric)
                                 for metric in {s.metric for s in result.scores}}
        return self._scores[key]
