"""What models said, against forward passes of single questions on changed weights."""

from __future__ import annotations

import copy
import math
from statistics import fmean

import pytest
import torch

from editors.core.patches.patch import LowRank, Patch
from evaluators.cases import Edited, EditedFacts, ask
from evaluators.datasets import DatasetSpec, load_dataset
from evaluators.scoring.judge import baseline, judge
from evaluators.scoring.measures import NOTHING_MORE, Measures
from evaluators.scoring.said import said


@pytest.fixture(scope="module")
def cases():
    return list(load_dataset(DatasetSpec(name="testbed-cloze", limit=3)).cases)


def drawn(model, scale=1.0):
    path = model.down_path(1)
    out, into = model.module.get_submodule(path).weight.shape
    generator = torch.Generator().manual_seed(0)
    return LowRank(path, scale * torch.randn(out, 1, generator=generator), torch.randn(into, 1, generator=generator))


def asked_of(model, cases, patch, measures=NOTHING_MORE):
    before, failed = baseline(model, cases, measures)
    assert not failed
    edited = [Edited(case, patch, EditedFacts.of([case])) for case in cases]
    return judge(model, edited, {each.case_id: each for each in before}, measures)


def plainly(module, model, prompt, target):
    """The most probable tokens at the target's places, by one pass of the library's own model."""
    prompt_ids, target_ids = model.encode(prompt, target).prompt, model.encode(prompt, target).target
    with torch.no_grad():
        if model.has_encoder:
            start = [module.config.decoder_start_token_id, *target_ids[:-1]]
            logits = module(input_ids=torch.tensor([prompt_ids]), decoder_input_ids=torch.tensor([start])).logits[0]
        else:
            logits = module(input_ids=torch.tensor([[*prompt_ids, *target_ids]])).logits[0, len(prompt_ids) - 1: -1]
    return logits.argmax(-1).tolist(), list(target_ids)


def share(left, right):
    return sum(a == b for a, b in zip(left, right, strict=True)) / len(left)


def test_it_is_what_a_plain_loop_over_the_questions_decodes(model, cases):
    term, cases = drawn(model), cases[:1]
    judged = asked_of(model, cases, Patch((term,)))
    found = list(said(model.tokenizer, judged.asked))
    assert {each.target_true for each in found} == {cases[0].target_true} != {None}
    changed = copy.deepcopy(model.module)
    with torch.no_grad():
        changed.get_submodule(term.module).weight += term.a @ term.b.T

    def text(tokens):
        return model.tokenizer.decode(tokens).strip()

    asked = {(case.id, prompt, target) for case in cases for key, prompt, target in ask(case)
             if key.which == "answer" and key.role not in ("link", "distracting")}
    assert {(each.case_id, each.prompt, each.target) for each in found} == asked and len(found) > 10
    for each in found:
        before, target = plainly(model.module, model, each.prompt, each.target)
        after, _ = plainly(changed, model, each.prompt, each.target)
        local = each.question.startswith("locality")
        assert (each.unedited, each.edited) == (text(before), text(after))
        assert each.expected == (each.unedited if local else each.target)
        assert each.right == share(after, before if local else target)
        assert each.patch_norm == pytest.approx(float((term.a @ term.b.T).norm()), rel=1e-5)
        assert each.relation == next(case.relation for case in cases if case.id == each.case_id)
        assert each.edited_written is None
    assert any(each.edited != each.unedited for each in found)


def test_shares_of_questions_add_up_to_scores(tiny_gptj, cases):
    judged = asked_of(tiny_gptj, cases, Patch((drawn(tiny_gptj),)), Measures.parse({"distracting": True}))
    found = list(said(tiny_gptj.tokenizer, judged.asked))
    scores = {(score.case_id, score.metric): score.value for score in judged.scores}
    kinds = {each.question for each in found}
    assert {"reliability", "generality", "locality", "locality.attributes", "locality.unrelated",
            "locality.distracting"} <= kinds and kinds & {"portability", "portability.all"}
    for case in cases:
        for kind in kinds - {"portability.all"}:
            shares = [each.right for each in found if (each.case_id, each.question) == (case.id, kind)]
            if shares:
                assert scores[case.id, f"{kind}.token"] == pytest.approx(fmean(shares))
        hops = [each.right for each in found if each.case_id == case.id and each.question in ("portability",
                                                                                               "portability.all")]
        assert scores[case.id, "portability.all.token"] == pytest.approx(fmean(hops))


def test_what_an_edit_covers_is_left_out(tiny_gptj, cases):
    [case] = cases[:1]
    covered = case.model_copy(update={"neighbourhood": (case.neighbourhood[0].model_copy(update={
        "subject": case.subject, "relation": case.relation}), *case.neighbourhood[1:])})
    prompts = [[each.prompt for each in said(tiny_gptj.tokenizer, asked_of(tiny_gptj, [one], Patch()).asked)
                if each.question == "locality"] for one in (case, covered)]
    assert prompts[1] == prompts[0][1:]


def test_a_patch_that_is_not_finite_says_nothing(tiny_gptj, cases):
    judged = asked_of(tiny_gptj, cases[:1], Patch((drawn(tiny_gptj, math.nan),)))
    for each in said(tiny_gptj.tokenizer, judged.asked):
        assert each.edited is None and each.unedited and each.right == 0 and each.patch_norm == math.inf


def test_what_was_written_freely_stands_beside_it(tiny_gptj, cases):
    judged = asked_of(tiny_gptj, cases[:1], Patch((drawn(tiny_gptj),)), Measures.parse({"generation": {"tokens": 4}}))
    found = list(said(tiny_gptj.tokenizer, judged.asked))
    texts = [text for score in judged.scores if score.metric == "generality.generation" for text in score.texts]
    assert [each.edited_written for each in found if each.question == "generality"] == texts and any(texts)
    assert all(each.edited_written is None for each in found if each.question == "locality.unrelated")
    assert all(each.unedited_written is not None for each in found if each.question == "locality")


def test_an_empty_patch_changes_no_weight(tiny_gptj, cases):
    for each in said(tiny_gptj.tokenizer, asked_of(tiny_gptj, cases[:1], Patch()).asked):
        assert each.edited == each.unedited and each.patch_norm is None
