"""Pretraining: the mask, batches that depend on the step alone, and resuming as if nothing had happened."""

import random
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from editors.core.errors import InputError
from editors.core.models.loading import load_model
from evaluators.testbed.pretraining.corpus import END, Corpus, CorpusConfig, Quiz, SentenceMaker, train_tokenizer
from evaluators.testbed.pretraining.gptj import GPTJPretraining, GPTJPretrainingConfig, SubjectMask
from evaluators.testbed.pretraining.t5 import T5Pretraining, T5PretrainingConfig
from evaluators.testbed.schema import HOPS, RELATIONS
from evaluators.testbed.templates import templates
from evaluators.testbed.world import build_world

SMALL = GPTJPretrainingConfig(steps=3, polish=2, vocab_size=600, width=32, layers=3, heads=2, inner=64, rotary=8,
                              warmup=1, mask_release_layer=1, corpus=CorpusConfig(rows=4))
SMALL_T5 = T5PretrainingConfig(steps=3, polish=2, vocab_size=600, width=32, layers=2, heads=2, inner=64, warmup=1,
                               rows=8)
RUNS = pytest.mark.parametrize(("Run", "config"), [(GPTJPretraining, SMALL), (T5Pretraining, SMALL_T5)],
                               ids=["gptj", "t5"])


@pytest.fixture(scope="module")
def maker():
    return SentenceMaker(train_tokenizer(build_world(), 1024))


def weights(run):
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def test_piecewise_tokens_are_those_of_the_whole_sentence(maker):
    world = build_world()
    for (subject, name), answer in list(world.facts.items())[::97]:
        for template in templates(RELATIONS[name])[::7]:
            for opening in (True, False):
                sentence = maker.fact(template, subject, answer, opening=opening)
                whole = f"{'' if opening else ' '}{template.fill(subject)} {answer}."
                assert sentence.ids == maker.tokenizer.encode(whole, add_special_tokens=False)
                start, stop = sentence.subject
                assert maker.tokenizer.decode(sentence.ids[start:stop]).strip() == subject


def test_batches_hold_what_the_curriculum_says_and_nothing_held_out(maker):
    world = build_world()
    corpus = Corpus(world, maker, CorpusConfig(rows=40), seed=0)
    held_out = [t.text.replace("{S}", "").strip() for r in RELATIONS.values() for t in templates(r) if t.held_out]
    chains = [" of ".join((second, f"the {first}")) for hop in HOPS.values()
              for first in hop.first.nouns for second in hop.second.nouns]
    batch = corpus.batch(3, chains=False)
    text = " ".join(maker.tokenizer.batch_decode(batch.ids))
    assert not any(chain in text for chain in chains)
    assert any(chain in " ".join(maker.tokenizer.batch_decode(corpus.batch(3, chains=True).ids)) for chain in chains)
    prompts = [wording for wording in held_out if len(wording) > 25]
    assert prompts and not any(wording in text for wording in prompts)
    assert torch.equal(batch.ids, corpus.batch(3, chains=False).ids)
    assert not torch.equal(batch.ids, corpus.batch(4, chains=False).ids)
    for row, subjects in enumerate(batch.subjects):
        for start, stop in subjects:
            assert maker.tokenizer.decode(batch.ids[row, start:stop]).strip() in {s for s, _ in world.facts}


def test_no_cloze_wording_begins_another_about_the_same_kind_of_subject():
    for kind in {relation.subject for relation in RELATIONS.values()}:
        wordings = [template.text for what in (*RELATIONS.values(), *HOPS.values())
                    if (what.subject if hasattr(what, "subject") else what.first.subject) == kind
                    for template in templates(what) if template.style == "cloze"]
        ordered = sorted(wordings)
        clashes = [(a, b) for a, b in pairwise(ordered) if b.startswith(f"{a} ") or a == b]
        assert not clashes


def test_the_mask_hides_a_subject_from_what_follows_it(tmp_path):
    run = GPTJPretraining(SMALL, tmp_path)
    batch = run.corpus.batch(0, chains=False)
    below, above = SubjectMask(run.model, 1).masks(batch, [True, False, True, True])
    length = batch.ids.shape[1]
    causal = torch.ones(length, length).tril().bool()
    assert torch.equal(below[1, 0] == 0, causal) and torch.equal(above[1, 0] == 0, causal)
    for start, stop in batch.subjects[0]:
        assert (below[0, 0, stop:, start:stop] < 0).all()
        assert (above[0, 0, stop:, start: stop - 1] < 0).all() and (above[0, 0, stop:, stop - 1] == 0).all()
        assert (below[0, 0, stop - 1, start:stop] == 0).all()  # below, the last token gathers the others


def test_the_mask_acts_layer_by_layer_and_goes_away(tmp_path):
    run = GPTJPretraining(SMALL, tmp_path)
    run.model.eval()
    batch = run.corpus.batch(0, chains=False)
    other = replace(batch, ids=batch.ids.clone())
    start, stop = next((a, b) for a, b in batch.subjects[0] if b - a > 1)
    other.ids[0, start] = (other.ids[0, start] + 1) % SMALL.vocab_size
    plain = run.model(input_ids=batch.ids).logits
    with run.mask.applied(batch, [True] * 4):
        states = [run.model(input_ids=b.ids, output_hidden_states=True).hidden_states for b in (batch, other)]
    # After block 0 the change is seen at the subject alone; the last token passes it on from block 1 up.
    assert torch.equal(states[0][1][0, stop:], states[1][1][0, stop:])
    assert not torch.allclose(states[0][1][0, stop - 1], states[1][1][0, stop - 1])
    assert not torch.allclose(states[0][2][0, stop:], states[1][2][0, stop:])
    assert torch.equal(run.model(input_ids=batch.ids).logits, plain)


@RUNS
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path, Run, config):
    whole = Run(config, tmp_path / "whole")
    assert not whole.resume()
    whole.train(lambda step, loss: None)

    class Cut(Exception):
        pass

    def cut(step, loss):
        if step == 3:
            raise Cut

    first = Run(config, tmp_path / "cut")
    assert not first.resume()
    with pytest.raises(Cut):
        first.train(cut, checkpoint_every=2)
    second = Run(config, tmp_path / "cut")
    assert second.resume() and second.step == 2
    second.train(lambda step, loss: None)
    expected = weights(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(second).items())


@RUNS
def test_other_configurations_and_finished_models_are_refused(tmp_path, Run, config):
    run = Run(config, tmp_path)
    run.save_checkpoint()
    with pytest.raises(InputError, match="another configuration"):
        Run(replace(config, seed=1), tmp_path).resume()
    run.save_model()
    assert not list(tmp_path.glob("*checkpoint*"))
    assert load_model(tmp_path).depth == config.layers
    with pytest.raises(InputError, match="finished model"):
        Run(config, tmp_path).resume()


def test_a_folder_that_cannot_be_made_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write to"):
        GPTJPretraining(SMALL, tmp_path / "file").resume()


@RUNS
def test_training_lowers_the_loss(tmp_path, Run, config):
    run = Run(replace(config, steps=30, polish=0, learning_rate=1e-2), tmp_path)
    losses = []
    run.train(lambda step, loss: losses.append(loss))
    assert sum(losses[-5:]) < sum(losses[:5]) - 2.0


def test_a_quiz_asks_questions_in_training_wordings_and_closes_both_sides(maker):
    quiz = Quiz(build_world(), maker, chain_share=0.5, filler_share=0.0)
    rng = random.Random(0)
    asked = {held_out: [re.compile(re.escape(t.text).replace(r"\{S\}", "(.+)"))
                        for r in (*RELATIONS.values(), *HOPS.values())
                        for t in templates(r) if t.held_out == held_out and t.style == "question"]
             for held_out in (False, True)}
    subjects = {subject for subject, _ in build_world().facts}
    for chains in (False, True):
        for _ in range(100):
            question, answer = quiz.draw(rng, chains=chains)
            assert question[-1:] == answer[-1:] == maker.piece(END)
            text = maker.tokenizer.decode(question[:-1])
            fits = {held_out: any((match := wording.fullmatch(text)) and match[1] in subjects for wording in wordings)
                    for held_out, wordings in asked.items()}
            assert fits == {False: True, True: False}, text
