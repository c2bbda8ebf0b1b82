"""Editors that do as they are told, and the scores of their edits by a plain loop."""

from __future__ import annotations

import math

import torch
from support.protocols import single

from editors.core.editor import Editor, EditorConfig
from editors.core.errors import CaseError, InputError
from editors.core.patches.patch import LowRank, Patch
from evaluators.scoring.judge import baseline
from evaluators.scoring.measures import NOTHING_MORE
from evaluators.scoring.metrics import score
from evaluators.scoring.observe import observe


class Scripted(Editor):
    """Makes a patch from the request's prompt alone; fails or diverges where the target says so."""

    name = "scripted"
    version = 1

    def __init__(self, model):
        super().__init__(model, EditorConfig())
        self.calls = []

    def edit_each(self, requests):
        self.calls.append(len(requests))
        return [self.patch(request) for request in requests]

    def patch(self, request):
        errors = {"case": CaseError("no such subject"), "crash": RuntimeError("singular matrix"),
                  "user": InputError("statistics are missing")}
        if request.target in errors:
            raise errors[request.target]
        generator = torch.Generator().manual_seed(len(request.prompt))
        column = torch.randn(32, 1, generator=generator) * (math.nan if request.target == "nan" else 1)
        return Patch((LowRank(self.model.down_path(1), column, torch.randn(64, 1, generator=generator)),))


def with_target(case, target, name):
    return case.model_copy(update={"target_new": target, "id": name})


def too_long(case, name):
    return case.model_copy(update={"paraphrases": ("far too long " * 100,), "id": name})


class Joint(Scripted):
    """Joins its requests' patches; too many at once are too much for it."""

    joint = True
    most = 100

    def edit(self, requests):
        self.calls.append([request.id for request in requests])
        if len(requests) > self.most:
            raise RuntimeError("singular together")
        return sum((self.patch(request) for request in requests), Patch())


def run(editor, cases):
    before, failed = baseline(editor.model, cases)
    assert len(before) + len(failed) == len(cases)
    return single(editor, cases, before)


def values(result):
    return {(each.case_id, each.metric): each.value for each in result.scores}


def expected_of(editor, cases, patch, facts):
    """Scores by a plain loop: one case at a time under the patch of all."""
    before, _ = baseline(editor.model, cases)
    found = {}
    for case, old in zip(cases, before, strict=True):
        (new,) = observe(editor.model, [case], [patch], [0], roles=NOTHING_MORE.edited_roles)
        found |= {(each.case_id, each.metric): each.value for each in score([case], [new], [old], facts)}
        found[case.id, "edit.diverged"] = 0.0
    return found
