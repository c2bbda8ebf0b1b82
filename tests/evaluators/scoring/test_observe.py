import math
from dataclasses import replace

import pyarrow.parquet
import pytest
import torch

from editors.core.errors import CaseError
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import LowRank, Patch
from evaluators.cases import Probe
from evaluators.scoring.observe import (
    NO_TOKEN,
    ROLES,
    Observation,
    Outputs,
    ProbeKey,
    from_table,
    observe,
    questions,
    to_table,
)


def naive(model, case, patch):
    """Every question of a case by a forward pass of its own through the whole model."""
    outputs = {}
    for key, encoded in questions(model, case).items():
        ids = torch.tensor([encoded.prompt + encoded.target])
        with torch.no_grad(), overlay(model, patch):
            logits = model.module(input_ids=ids).logits[0, len(encoded.prompt) - 1: -1]
        chosen = logits.log_softmax(-1).gather(1, torch.tensor(encoded.target)[:, None])
        outputs[key] = Outputs(tuple(logits.argmax(-1).tolist()), encoded.target, float(chosen.sum()),
                               int((logits[0] > logits[0, encoded.target[0]]).sum()))
    return Observation(case.id, outputs)


def assert_same(left, right):
    assert [observation.case_id for observation in left] == [observation.case_id for observation in right]
    for one, other in zip(left, right, strict=True):
        assert list(one.outputs) == list(other.outputs)
        for key, outputs in one.outputs.items():
            assert replace(outputs, logprob=0) == replace(other.outputs[key], logprob=0), key
            assert outputs.logprob == pytest.approx(other.outputs[key].logprob, rel=1e-5, abs=1e-4), key


@pytest.fixture
def forwarded(tiny_gptj, monkeypatch):
    """Lengths of all rows that go through the model."""
    lengths = []
    collate = tiny_gptj.collate

    def recording(rows, padding="right"):
        lengths.extend(map(len, rows))
        return collate(rows, padding)

    monkeypatch.setattr(tiny_gptj, "collate", recording)
    return lengths


def test_asks_every_probe_for_its_answer_and_rival(tiny_gptj, cases):
    def text(encoded):
        return tiny_gptj.tokenizer.decode(encoded.prompt + encoded.target)

    asked = {key: text(encoded) for key, encoded in questions(tiny_gptj, cases[0]).items()}
    true = "a city with a much longer name"
    assert asked == {
        ProbeKey("rewrite", 0): "The birthplace of Art Budrer is Vadolm",
        ProbeKey("rewrite", 0, "rival"): f"The birthplace of Art Budrer is {true}",
        ProbeKey("paraphrase", 0): "Where was Art Budrer born? Vadolm",
        ProbeKey("paraphrase", 0, "rival"): f"Where was Art Budrer born? {true}",
        ProbeKey("paraphrase", 1): "Art Budrer was born in Vadolm",
        ProbeKey("paraphrase", 1, "rival"): f"Art Budrer was born in {true}",
        ProbeKey("neighbourhood", 0): "Bo was born in Vadolm",  # its rival is the true answer
        ProbeKey("neighbourhood", 0, "rival"): f"Bo was born in {true}",
        ProbeKey("neighbourhood", 1): "The birthplace of Cy is Rome, Italy",
        ProbeKey("neighbourhood", 1, "rival"): "The birthplace of Cy is Vadolm",
        ProbeKey("attributes", 0): "Art Budrer plays golf",
        ProbeKey("unrelated", 0): "The weather is mild today",
        ProbeKey("portability", 0): "In which country was Art Budrer born? Fuzoia",
        ProbeKey("portability", 1): "Which river flows where Art Budrer was born? Tregus",
        ProbeKey("link", 0): "Vadolm lies in the country of Fuzoia",
    }
    assert list(questions(tiny_gptj, cases[1])) == [ProbeKey("rewrite", 0)]  # no true target, so no rivals
    assert {key.role for key in questions(tiny_gptj, cases[0], ("link", "rewrite"))} == {"link", "rewrite"}


def test_equals_a_forward_pass_for_each_question(tiny_gptj, cases):
    assert any(len(outputs.target) > 3 for outputs in naive(tiny_gptj, cases[1], Patch()).outputs.values())
    assert_same(observe(tiny_gptj, cases, [], [-1] * 3), [naive(tiny_gptj, case, Patch()) for case in cases])


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("batch_tokens", [1, 40, None])
def test_patches_by_row_equal_one_by_one(tiny_gptj, cases, patches, padding, batch_tokens):
    asked = [*cases, *cases, cases[0]]
    rows = [1, 2, 3, -1, 0, 1, 3]
    together = observe(tiny_gptj, asked, patches, rows, batch_tokens=batch_tokens, padding=padding)
    assert_same(together, [naive(tiny_gptj, case, patches[row] if row >= 0 else Patch())
                           for case, row in zip(asked, rows, strict=True)])
    rewrites = {observation.outputs["rewrite", 0, "answer"].logprob for observation in together}
    assert len(rewrites) == 7  # every patch matters


def test_one_question_under_several_patches(tiny_gptj, cases, patches):
    assert len(questions(tiny_gptj, cases[1])) == 1
    assert_same(observe(tiny_gptj, [cases[1]] * 4, patches, [3, 1, -1, 2]),
                [naive(tiny_gptj, cases[1], patch) for patch in (patches[3], patches[1], Patch(), patches[2])])


def test_order_of_the_cases_does_not_matter(tiny_gptj, cases, patches):
    rows = [1, 2, 3]
    assert_same(observe(tiny_gptj, cases, patches, rows),
                observe(tiny_gptj, cases[::-1], patches, rows[::-1])[::-1])


def test_equal_questions_are_computed_once(tiny_gptj, cases, patches, forwarded):
    case = cases[2].model_copy(update={"target_new": "the", "target_true": "is"})
    encoded = questions(tiny_gptj, case).values()
    assert {len(each.target) for each in encoded} == {1}
    assert_same(observe(tiny_gptj, [case], patches, [1]), [naive(tiny_gptj, case, patches[1])])
    assert sorted(forwarded) == sorted({len(each.prompt) for each in encoded})  # both answers are read off one row
    forwarded.clear()
    observe(tiny_gptj, [case] * 4, patches, [-1, 0, 1, 1])  # the empty patch is no patch
    assert len(forwarded) == 4


def test_answers_that_begin_alike_are_read_off_the_longest(tiny_gptj, cases, forwarded):
    case = cases[1].model_copy(update={"target_new": "an answer of several words", "target_true": "an answer of two"})
    encoded = questions(tiny_gptj, case)
    shared = 0
    for left, right in zip(*(each.target for each in encoded.values()), strict=False):
        if left != right:
            break
        shared += 1
    assert shared >= 2
    assert_same(observe(tiny_gptj, [case], [], [-1]), [naive(tiny_gptj, case, Patch())])
    assert len(forwarded) == 2
    forwarded.clear()
    prefix = case.model_copy(update={"target_true": "an answer of several"})
    assert_same(observe(tiny_gptj, [prefix], [], [-1]), [naive(tiny_gptj, prefix, Patch())])
    assert forwarded == [len(encoded["rewrite", 0, "answer"])]


def test_batches_keep_to_the_budget(tiny_gptj, cases, monkeypatch):
    shapes = []
    collate = tiny_gptj.collate

    def recording(rows, padding="right"):
        batch = collate(rows, padding)
        shapes.append(tuple(batch.input_ids.shape))
        return batch

    monkeypatch.setattr(tiny_gptj, "collate", recording)
    observe(tiny_gptj, cases, [], [-1] * 3, batch_tokens=50)
    assert all(rows * length <= 50 for rows, length in shapes)
    assert len(shapes) < sum(rows for rows, _ in shapes)


def test_exact_is_greedy_decoding(tiny_gptj, cases):
    """`exact` is 1 just where greedy generation of as many tokens yields the target."""
    seen = set()
    for prompt in ("The birthplace of Art Budrer is", "Bo was born in", "X"):
        ids = torch.tensor([tiny_gptj.tokenizer.encode(prompt)])
        start = ids.shape[1]
        greedy = tiny_gptj.module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, do_sample=False)
        for target in (tiny_gptj.tokenizer.decode(greedy[0, start:]).strip(), "Vadolm"):
            if not target:
                continue
            case = cases[1].model_copy(update={"prompt": prompt, "target_new": target})
            (observation,) = observe(tiny_gptj, [case], [], [-1])
            outputs = observation.outputs["rewrite", 0, "answer"]
            long = tiny_gptj.module.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                             max_new_tokens=len(outputs.target))
            assert outputs.exact == float(tuple(long[0, start:].tolist()) == outputs.target)
            assert (outputs.rank_first == 0) == (outputs.predicted[0] == outputs.target[0])
            seen.add(outputs.exact)
    assert seen == {0.0, 1.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_patch_spoils_only_its_own_rows(tiny_gptj, cases, patches, bad):
    broken = Patch((LowRank(tiny_gptj.down_path(1), torch.full((32, 1), bad), torch.ones(64, 1)),))
    observed = observe(tiny_gptj, [cases[0], cases[0], cases[2]], [broken, patches[1]], [0, 1, -1])
    for outputs in observed[0].outputs.values():
        assert set(outputs.predicted) == {NO_TOKEN}
        assert (outputs.logprob, outputs.probability, outputs.token, outputs.exact) == (-math.inf, 0, 0, 0)
        assert not outputs.is_finite
        assert outputs.agreement(outputs) == 0
        assert outputs.rank_first == len(tiny_gptj.tokenizer)
    assert_same(observed[1:], [naive(tiny_gptj, cases[0], patches[1]), naive(tiny_gptj, cases[2], Patch())])


def test_outputs():
    outputs = Outputs(predicted=(3, 4, 9, 6), target=(3, 4, 5, 6), logprob=-2.0, rank_first=0)
    assert (outputs.token, outputs.exact) == (0.75, 0.0)
    assert outputs.mean_logprob == -0.5
    assert outputs.probability == pytest.approx(math.exp(-0.5))
    assert replace(outputs, predicted=(3, 4, 5, 6)).exact == 1.0
    assert outputs.agreement(replace(outputs, predicted=(0, 4, 9, 7))) == 0.5


def test_selected_roles(tiny_gptj, cases):
    everything = observe(tiny_gptj, cases[:1], [], [-1])[0].outputs
    without = observe(tiny_gptj, cases[:1], [], [-1], roles=[role for role in ROLES if role != "link"])[0].outputs
    assert set(everything) - set(without) == {ProbeKey("link", 0)}


@pytest.mark.parametrize(("change", "message"), [
    ({"paraphrases": ("fine", "far too long " * 100)}, "paraphrase 1: .* reads at most 128"),
    ({"unrelated": (Probe(prompt=" ", target="x"),)}, "unrelated 0: the prompt is empty"),
    ({"target_true": ""}, "rewrite 0: the target is empty"),
])
def test_probes_that_cannot_be_encoded_are_named(tiny_gptj, cases, change, message):
    case = cases[0].model_copy(update=change)
    with pytest.raises(CaseError, match=message):
        observe(tiny_gptj, [case], [], [-1])


def test_rows_and_cases_must_match(tiny_gptj, cases):
    with pytest.raises(ValueError):
        observe(tiny_gptj, cases, [], [-1])
    assert observe(tiny_gptj, [], [], []) == []


def test_tables_give_observations_back(tiny_gptj, cases, patches, tmp_path):
    broken = Patch((LowRank(tiny_gptj.down_path(1), torch.full((32, 1), math.nan), torch.ones(64, 1)),))
    observed = observe(tiny_gptj, cases, [*patches, broken], [1, 4, -1])
    pyarrow.parquet.write_table(to_table(observed), tmp_path / "baseline.parquet")
    assert from_table(pyarrow.parquet.read_table(tmp_path / "baseline.parquet")) == observed
    assert from_table(to_table([])) == []
