"""Second moments and the solver on them."""

import pytest
import torch

from editors.core.errors import InputError
from editors.core.statistics import KeySolver, SecondMoment, load_moments, save_moments, second_moments

TEXTS = [f"Text number {n} about {n * 3} things." for n in range(50)]


def keys_of(model, text, layer):
    """FFN keys of one text, computed by hand from the block's input norm."""
    ids = torch.tensor([model.encode(text).prompt])
    hidden = model.module(input_ids=ids, output_hidden_states=True).hidden_states[layer]
    block = model.submodule(model.block_path(layer))
    return block.mlp.act(block.mlp.fc_in(block.ln_1(hidden)))[0]


def test_moments_are_sums_over_real_tokens_only(tiny_gptj):
    paths = [tiny_gptj.down_path(0), tiny_gptj.down_path(2)]
    moments = second_moments(tiny_gptj, [0, 2], TEXTS, 10**6)
    for layer, path in zip((0, 2), paths, strict=True):
        keys = torch.cat([keys_of(tiny_gptj, text, layer) for text in TEXTS]).double()
        assert moments[path].count == len(keys)
        torch.testing.assert_close(moments[path].total, keys.T @ keys, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(moments[path].mean, keys.T @ keys / len(keys), atol=1e-7, rtol=1e-5)


def test_token_budget_stops_an_endless_text_and_parts_add_up(tiny_gptj):
    path = tiny_gptj.down_path(1)
    def endless():
        while True:
            yield from TEXTS
    moment = second_moments(tiny_gptj, [1], endless(), 200)[path]
    assert 200 <= moment.count < 230
    halves = [second_moments(tiny_gptj, [1], part, 10**6)[path] for part in (TEXTS[:20], TEXTS[20:])]
    whole = second_moments(tiny_gptj, [1], TEXTS, 10**6)[path]
    assert (halves[0] + halves[1]).count == whole.count
    torch.testing.assert_close((halves[0] + halves[1]).total, whole.total, atol=1e-4, rtol=1e-5)


def test_moments_are_saved_exactly(tiny_gptj, tmp_path):
    moments = second_moments(tiny_gptj, [1], TEXTS, 100)
    save_moments(moments, tmp_path / "m.safetensors")
    loaded = load_moments(tmp_path / "m.safetensors")
    assert {k: v.count for k, v in loaded.items()} == {k: v.count for k, v in moments.items()}
    assert all(torch.equal(loaded[k].total, moments[k].total) for k in moments)


def test_solver_equals_a_dense_solve():
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(500, 20, generator=generator, dtype=torch.float64)
    moment = SecondMoment(500, keys.T @ keys)
    wanted = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(KeySolver(moment).solve(wanted), torch.linalg.solve(moment.mean, wanted),
                               atol=1e-6, rtol=1e-6)


def test_solver_copes_with_fewer_keys_than_dimensions():
    keys = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
    solver = KeySolver(SecondMoment(5, keys.T @ keys))
    assert solver.solve(torch.ones(20, 1)).isfinite().all()


def test_useless_statistics_are_refused(tiny_gptj):
    for useless in (torch.zeros(4, 4), torch.full((4, 4), torch.inf), torch.full((4, 4), torch.nan)):
        with pytest.raises(InputError, match="zero or not finite"):
            KeySolver(SecondMoment(3, useless))
    with pytest.raises(InputError, match="text for second moments is empty"):
        second_moments(tiny_gptj, [0], ["", ""], 100)
