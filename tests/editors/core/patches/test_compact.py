"""`Patch.compact`: fewer terms, the same outputs."""

from __future__ import annotations

import torch

from editors.core.patches.overlay import overlay
from editors.core.patches.patch import Dense, LowRank, Neurons, Patch


@torch.no_grad()
def logits(model, patch):
    batch = model.collate([model.encode("Art Budrer was born in", "Vadolm"), model.encode("Bo plays", "golf")])
    with overlay(model, patch):
        return model.target_logits(batch)


def test_equal_outputs_from_one_term_a_kind_and_module(tiny_gptj, draw):
    down, up, ffn = tiny_gptj.down_path(1), tiny_gptj.up_path(2), tiny_gptj.ffn_path(0)
    patch = Patch(tuple(term for number in range(3) for term in (
        LowRank(down, draw(32, number + 1), draw(64, number + 1)), LowRank(up, draw(64, 1), draw(32, 1)),
        Dense(down, draw(32, 64), draw(32) if number else None),
        Neurons(ffn, draw(2, 32), draw(32, 2), "gelu_new", draw(2)), Neurons(ffn, draw(1, 32), draw(32, 1), "relu"),
        Neurons(ffn, draw(3, 32), draw(32, 3), "gelu_new", draw(3), draw(3, 32)))), {"made": "here"})
    small = patch.compact()
    assert len(patch.terms) == 18 and len(small.terms) == 6 and small.info == {"made": "here"}
    assert [term.b.shape[1] for term in small.terms if isinstance(term, LowRank)] == [6, 3]
    torch.testing.assert_close(logits(tiny_gptj, small), logits(tiny_gptj, patch), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(tiny_gptj, small), logits(tiny_gptj, Patch()), atol=1e-2)


def test_terms_that_differ_in_kind_stay_apart(draw):
    terms = (LowRank("a", draw(4, 1), draw(3, 1)), LowRank("b", draw(4, 1), draw(3, 1)),
             LowRank("a", draw(4, 1).double(), draw(3, 1).double()), Dense("a", draw(4, 3)))
    assert Patch(terms).compact().terms == terms
    assert not Patch().compact()


def test_step_by_step_is_all_at_once(draw):
    patches = [Patch((LowRank("a", draw(4, 1), draw(3, 1)),)) for _ in range(4)]
    running = Patch()
    for patch in patches:
        running = (running + patch).compact()
    (one,), (other,) = running.terms, sum(patches[1:], patches[0]).compact().terms
    assert torch.equal(one.a, other.a) and torch.equal(one.b, other.b)


def test_factors_that_have_outgrown_their_product_become_it(tiny_gptj, draw):
    down, up = tiny_gptj.down_path(1), tiny_gptj.up_path(2)
    patch, kinds = Patch(), []
    for _ in range(4):  # a matrix of 32 x 64 is as large as factors of rank 21
        patch = (patch + Patch((LowRank(down, draw(32, 8) / 9, draw(64, 8) / 9), LowRank(up, draw(64, 1),
                                                                                       draw(32, 1))))).compact()
        slim = patch.slim()
        kinds.append([type(term) for term in slim.terms])
        torch.testing.assert_close(logits(tiny_gptj, slim), logits(tiny_gptj, patch), rtol=1e-5, atol=1e-5)
    assert kinds == [[LowRank, LowRank]] * 2 + [[Dense, LowRank]] * 2
    grown = (slim + Patch((LowRank(down, draw(32, 30), draw(64, 30)),))).compact()
    assert [type(term) for term in grown.terms] == [Dense, LowRank, LowRank]
    assert [type(term) for term in grown.slim().terms] == [Dense, LowRank]
    torch.testing.assert_close(logits(tiny_gptj, grown.slim()), logits(tiny_gptj, grown), rtol=1e-5, atol=1e-4)
