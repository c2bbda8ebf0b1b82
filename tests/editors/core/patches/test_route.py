"""Routing, with embeddings made by hand: who answers which row, and that the answers are the side model's own."""

from __future__ import annotations

import copy

import pytest
import torch
from support.routes import HIT_A, HIT_B, MISS, PLACES, A, B, map_side, other

from editors.core.errors import InputError
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import LowRank, Patch
from editors.core.patches.route import Route


@pytest.fixture(params=["tiny_gptj", "tiny_t5"])
def model(request):
    model = copy.copy(request.getfixturevalue(request.param))
    model.sides = {"one": map_side(model, other(model)), "two": map_side(model, other(model, seed=2))}
    return model


def route(*memory, side="one"):
    return Patch((Route(side=side, memory=memory),))


def ask(model, patches, probes, rows=None, padding="right"):
    """Logits of every probe, in one batch."""
    batch = model.collate([model.encode(*probe) for probe in probes], padding)
    with torch.no_grad(), overlay(model, patches, rows):
        logits = model.target_logits(batch)
    return [logits[batch.row == row] for row in range(len(probes))]


def by_hand(side, entry, probe):
    """The side model's logits, from its module, one row, no padding."""
    def ids(text):
        return side.tokenizer.encode(text, add_special_tokens=False)

    target = ids(f" {probe[1]}")
    source = ids(entry[0]) + ids(f" {entry[1]}") + ids(probe[0] if side.has_encoder else f" {probe[0]}")
    with torch.no_grad():
        if side.has_encoder:
            read = torch.tensor([[*source, side.module.config.eos_token_id]])
            return side.module(input_ids=read, decoder_input_ids=torch.tensor([[0, *target[:-1]]])).logits[0]
        return side.module(torch.tensor([source + target[:-1]])).logits[0, len(source) - 1:]


def close(left, right):
    torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


def test_a_hit_is_the_side_models_answer_and_a_miss_the_models_to_the_bit(model):
    plain = ask(model, Patch(), [HIT_A, MISS, A, HIT_B])
    hit, miss, itself, unknown = ask(model, route(A), [HIT_A, MISS, A, HIT_B])
    close(hit, by_hand(model.sides["one"].model, A, HIT_A))
    close(itself, by_hand(model.sides["one"].model, A, A))
    assert not torch.allclose(hit, plain[0], atol=1e-2)
    assert torch.equal(miss, plain[1]) and torch.equal(unknown, plain[3])


def test_nothing_hit_is_the_model_alone(model):
    assert torch.equal(*(ask(model, patch, [MISS])[0] for patch in (Patch(), route(A))))


def test_the_scope_ends_at_a_distance_of_the_root_of_ln_2(model):
    probes = [("Between A and C", "so"), ("Beyond", "so")]
    inside, outside = ask(model, route(A), probes)
    close(inside, by_hand(model.sides["one"].model, A, probes[0]))
    assert torch.equal(outside, ask(model, Patch(), probes)[1])


def test_rows_have_memories_of_their_own(model):
    probes = [HIT_A, HIT_A, HIT_B, HIT_B, MISS]
    plain = ask(model, Patch(), probes)
    answers = ask(model, [route(A), route(B), Patch()], probes, [0, 1, 1, -1, 0])
    close(answers[0], by_hand(model.sides["one"].model, A, HIT_A))
    close(answers[2], by_hand(model.sides["one"].model, B, HIT_B))
    assert all(torch.equal(answers[row], plain[row]) for row in (1, 3, 4))


def test_memories_add_up_and_the_nearest_entry_answers(model):
    near, far = ("Close to A", "Paris"), ("Between A and C", "Rome")
    for patch in (route(far) + route(B) + route(near), route(far, B, near), (route(near) + route(far, B)).compact()):
        first, second = ask(model, patch, [HIT_A, HIT_B])
        close(first, by_hand(model.sides["one"].model, near, HIT_A))
        close(second, by_hand(model.sides["one"].model, B, HIT_B))


def test_compact_makes_one_term_of_each_side(model):
    patch = (route(A) + route(B, side="two") + route(B)).compact()
    assert [(term.side, term.memory) for term in patch.terms] == [("one", (A, B)), ("two", (B,))]


def test_of_two_answers_to_one_question_the_latest_counts(model):
    old, new = (A[0], "old"), (A[0], "new")
    close(ask(model, route(old) + route(new), [HIT_A])[0], by_hand(model.sides["one"].model, new, HIT_A))
    close(ask(model, route(new) + route(old), [HIT_A])[0], by_hand(model.sides["one"].model, old, HIT_A))


def test_nested_overlays_are_one_memory(model):
    near = ("Close to A", "Paris")
    for outer, inner in ((route(A), route(near, B)), (route(near, B), route(A))):
        with overlay(model, outer):
            nested = ask(model, inner, [HIT_A, HIT_B, MISS])
        flat = ask(model, outer + inner, [HIT_A, HIT_B, MISS])
        assert all(torch.equal(*pair) for pair in zip(nested, flat, strict=True))
        close(nested[0], by_hand(model.sides["one"].model, near, HIT_A))


def test_of_several_sides_the_innermost_that_claims_a_row_has_it(model):
    with overlay(model, route(A, B)):
        first, second, third = ask(model, route(A, side="two"), [HIT_A, HIT_B, MISS])
    close(first, by_hand(model.sides["two"].model, A, HIT_A))
    close(second, by_hand(model.sides["one"].model, B, HIT_B))
    assert torch.equal(third, ask(model, Patch(), [HIT_A, HIT_B, MISS])[2])


def test_it_goes_along_with_changes_of_modules(model):
    torch.manual_seed(0)
    term = LowRank(model.down_path(1), torch.randn(32, 1), torch.randn(64, 1))
    hit, miss = ask(model, Patch((term,)) + route(A), [HIT_A, MISS])
    close(hit, by_hand(model.sides["one"].model, A, HIT_A))
    assert torch.equal(miss, ask(model, Patch((term,)), [HIT_A, MISS])[1])


def test_the_classifier_sees_questions_alone_and_each_once(model):
    seen = model.sides["one"].classifier.module.seen
    ask(model, route(A), [(HIT_A[0], answer) for answer in ("so", "not so", "a long answer")])
    ask(model, [route(A), route(A, B)], [HIT_A, HIT_B, A], [1, 1, 0])
    assert sorted(seen) == sorted(map(list(PLACES).index, (A[0], HIT_A[0], B[0], HIT_B[0])))


def test_forgotten_embeddings_are_made_again(model, monkeypatch):
    monkeypatch.setattr("editors.core.patches.route.CACHED", 2)
    for _ in range(2):
        first, second = ask(model, route(A, B), [HIT_A, HIT_B])
        close(first, by_hand(model.sides["one"].model, A, HIT_A))
        close(second, by_hand(model.sides["one"].model, B, HIT_B))


def test_the_model_is_not_run_where_every_row_is_the_sides(model, monkeypatch):
    monkeypatch.setattr(model, "own_target_logits", None)
    first, second = ask(model, route(A, B), [HIT_A, HIT_B])
    close(first, by_hand(model.sides["one"].model, A, HIT_A))
    close(second, by_hand(model.sides["one"].model, B, HIT_B))


def test_padding_changes_nothing(model):
    right, left = (ask(model, route(A), [HIT_A, MISS, A], padding=side) for side in ("right", "left"))
    for pair in zip(right, left, strict=True):
        close(*pair)


@pytest.mark.parametrize("difference", [-7, 9])
def test_a_vocabulary_of_another_size_is_cut_or_filled(model, difference):
    size = model.module.config.vocab_size
    wide = other(model, vocab_size=size + difference)
    model.sides["one"] = map_side(model, wide)
    hit, _ = ask(model, route(A), [HIT_A, MISS])
    expected = by_hand(wide, A, HIT_A)[:, :size]
    close(hit[:, : expected.shape[1]], expected)
    assert hit.shape[1] == size and hit.isfinite().all() and (hit.argmax(1) == expected.argmax(1)).all()


def test_the_oldest_tokens_of_a_long_context_go(tiny_gptj):
    model = copy.copy(tiny_gptj)
    side = map_side(model, other(model))
    entry, question = model.encode(*A), model.encode("word " * 59, "a b")
    for most in (model.max_length, 20):  # of a side that reads less than the question, the question's end is left
        side.model.module.config.n_positions = most
        row = side.in_context(A, question)
        assert len(row) == most and row.target == question.target
        assert row.prompt == ((entry.prompt + entry.target + model.tokenise(" word" * 59))[-len(row.prompt):])


def test_the_router_goes_with_its_overlay(model):
    with overlay(model, route(A)):
        outer = model.router
        with pytest.raises(ZeroDivisionError), overlay(model, route(B)):
            assert model.router is not outer
            raise ZeroDivisionError
        assert model.router is outer
        with overlay(model, Patch()):
            assert model.router is outer
    assert model.router is None


def test_an_unknown_side_is_named_with_the_cure(model):
    with (pytest.raises(InputError, match=r"'elsewhere'.*SERAC\(model, config, Resources\(artefact="),
          overlay(model, route(A, side="elsewhere"))):
        pass
    assert model.router is None


def test_rows_must_match_the_batch(model):
    with pytest.raises(ValueError, match="overlay has 2 rows, but the model got a batch of 1"):
        ask(model, [route(A)], [HIT_A], [0, 0])


def test_a_patch_comes_back_from_a_file(model, tmp_path):
    patch = route(A, B) + route(("\u00fc 'quoted' \"text\"", "x"), side="two")
    patch.save(tmp_path / "p.safetensors")
    loaded = Patch.load(tmp_path / "p.safetensors").to("cpu")
    assert [term.settings() for term in loaded.terms] == [term.settings() for term in patch.terms]
    assert loaded.is_finite and loaded.nbytes == 0
