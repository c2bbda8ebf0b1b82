"""What unedited models know, against a plain loop over prompts and tokens."""

from __future__ import annotations

import pytest
import torch
from support.plain_recall import greedy_and_rank

from editors.core.errors import InputError
from editors.core.models.loading import load_model
from evaluators.cases import Case
from evaluators.models import model_path
from evaluators.scoring.known import MOST, Criterion, Recall, from_table, to_table
from evaluators.scoring.recall import recall
from evaluators.testbed.cases import testbed_cases as cases_of  # a name that pytest does not collect


def by_plain_loop(model, cases):
    return [Recall(case.id, *greedy_and_rank(model.module, model.tokenizer, case.prompt, case.target_true))
            for case in cases]


@pytest.mark.parametrize(("name", "form"), [("testbed-gptj", "cloze"), ("testbed-t5", "question")])
def test_built_in_models_know_what_a_plain_loop_says(name, form):
    """Of every third case, the new target is said to be true, which no model gives."""
    model = load_model(model_path(name))
    cases = [case if number % 3 else case.model_copy(update={"target_true": case.target_new,
                                                             "target_new": case.target_true})
             for number, case in enumerate(cases_of(form, "eval", 18))]
    expected = by_plain_loop(model, cases)
    found, failed = recall(model, cases)
    assert found == expected and failed == []
    assert sum(each.exact for each in found) >= 10 and not any(each.exact for each in found[::3])
    assert any(not each.exact and Criterion(100).holds(each) for each in found)


def test_models_that_know_nothing_rank_answers_as_a_plain_loop_does(model):
    cases = list(cases_of("question", "eval", 12))
    found, _ = recall(model, cases)
    assert found == by_plain_loop(model, cases)
    ranks = sorted(each.rank for each in found)
    assert ranks[0] < ranks[-1]
    middle = ranks[len(ranks) // 2]
    assert [Criterion.parse(f"top{middle}").holds(each) for each in found] == [each.rank < middle for each in found]


def test_any_name_of_an_answer_will_do_and_cases_are_counted_that_cannot_be_asked(tiny_gptj):
    plain = cases_of("cloze", "eval", 1)[0]
    names = (plain.target_true, "Rome", "lute")
    cases = [plain.model_copy(update={"also_true": names[1:]}),
             plain.model_copy(update={"id": "untold", "target_true": None}),
             plain.model_copy(update={"id": "same", "target_true": plain.target_new}),
             plain.model_copy(update={"id": "long", "prompt": "far too long " * 100 + plain.prompt}),
             plain.model_copy(update={"id": "paraphrased", "paraphrases": ("far too long " * 100,)})]
    found, failed = recall(tiny_gptj, cases)
    ranks = [greedy_and_rank(tiny_gptj.module, tiny_gptj.tokenizer, plain.prompt, name)[1] for name in names]
    assert len(set(ranks)) == 3
    assert {each.case_id: each.rank for each in found} == {plain.id: min(ranks), "paraphrased": ranks[0]}
    assert [case.case_id for case in failed] == ["same", "long"]
    assert "same tokens" in failed[0].reason and "tokens" in failed[1].reason
    assert from_table(to_table(found, failed)) == (found, failed)


def test_a_model_whose_outputs_are_not_finite_is_refused(tiny_gptj):
    head = tiny_gptj.module.lm_head.weight
    kept = head.detach().clone()
    try:
        with torch.no_grad():
            head.fill_(torch.nan)
        with pytest.raises(InputError, match="not finite"):
            recall(tiny_gptj, [Case(id="a", subject="Bo", prompt="Bo is in", target_new="Rome", target_true="Bath")])
    finally:
        with torch.no_grad():
            head.copy_(kept)


def test_criteria():
    assert [Criterion.parse(text).top for text in ("exact", "top1", "top10", "top1000")] == [None, 1, 10, MOST]
    assert Criterion.parse("exact").holds(Recall("a", True, 5)) and not Criterion.parse("exact").holds(
        Recall("a", False, 0))
    for wrong in ("top0", "top01", "top1001", "top", "top-1", "top10 ", "Exact", "", 10, True, ["exact"]):
        with pytest.raises(ValueError, match="write 'exact'"):
            Criterion.parse(wrong)
