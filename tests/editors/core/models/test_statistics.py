"""Second moments and the solver on them."""

import pytest
import torch

from editors.core.errors import InputError
from editors.core.models.statistics import (
    KeySolver,
    SecondMoment,
    Shard,
    load_moments,
    save_moments,
    second_moments,
    sum_moments,
)

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


def shards_of(model, texts, tokens, count, folder):
    """Each shard's moment of layer 1, and the sum over their files."""
    files, each = [], []
    for number in range(count):
        moments = second_moments(model, [1], texts, tokens, Shard(number, count))
        files.append(folder / f"{number}.safetensors")
        save_moments(moments, files[-1])
        each += moments.values()
    return each, sum_moments(files)[model.down_path(1)]


def test_shards_add_up_to_one_pass_over_their_texts(tiny_gptj, tmp_path):
    each, total = shards_of(tiny_gptj, TEXTS, 10**6, 3, tmp_path)
    keys = torch.cat([keys_of(tiny_gptj, text, 1) for text in TEXTS]).double()
    assert total.count == sum(moment.count for moment in each) == len(keys)
    torch.testing.assert_close(total.total, keys.T @ keys, atol=1e-4, rtol=1e-5)
    assert torch.equal(total.total, each[0].total + each[1].total + each[2].total)


@pytest.mark.parametrize(("count", "tokens"), [(1, 10), (3, 100), (7, 13)])
def test_shards_share_out_texts_and_tokens(count, tokens):
    shards = [Shard(number, count) for number in range(count)]
    assert sorted(text for shard in shards for text in shard.texts(TEXTS)) == sorted(TEXTS)
    shares = [shard.tokens(tokens) for shard in shards]
    assert sum(shares) == tokens and max(shares) - min(shares) <= 1


def test_shards_read_the_budget_together(tiny_gptj, tmp_path):
    each, total = shards_of(tiny_gptj, TEXTS, 200, 4, tmp_path)
    longest = max(len(tiny_gptj.tokenise(text)) for text in TEXTS)
    assert all(50 <= moment.count < 50 + longest for moment in each)
    keys = []
    for number in range(4):  # as a plain loop reads them
        seen = 0
        for text in TEXTS[number::4]:
            keys.append(keys_of(tiny_gptj, text, 1).double())
            seen += len(keys[-1])
            if seen >= 50:
                break
    keys = torch.cat(keys)
    assert total.count == len(keys)
    torch.testing.assert_close(total.total, keys.T @ keys, atol=1e-4, rtol=1e-5)


def test_a_shard_without_a_text_weighs_nothing(tiny_gptj, tmp_path):
    each, total = shards_of(tiny_gptj, TEXTS[:2], 10**6, 4, tmp_path)
    assert [moment.count > 0 for moment in each] == [True, True, False, False]
    whole = second_moments(tiny_gptj, [1], TEXTS[:2], 10**6)[tiny_gptj.down_path(1)]
    assert total.count == whole.count
    torch.testing.assert_close(total.mean, whole.mean, atol=1e-7, rtol=1e-5)
    with pytest.raises(InputError, match="text for second moments is empty"):
        shards_of(tiny_gptj, [], 10**6, 2, tmp_path)


def test_only_moments_of_the_same_modules_add(tiny_gptj, tmp_path):
    for layer in (0, 1):
        save_moments(second_moments(tiny_gptj, [layer], TEXTS, 50), tmp_path / str(layer))
    with pytest.raises(InputError, match="do not add"):
        sum_moments([tmp_path / "0", tmp_path / "1"])


def test_solver_equals_a_dense_solve():
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(500, 20, generator=generator, dtype=torch.float64)
    moment = SecondMoment(500, keys.T @ keys)
    wanted = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(KeySolver(moment).solve(wanted), torch.linalg.solve(moment.mean, wanted),
                               atol=1e-6, rtol=1e-6)


def test_solver_copes_with_fewer_keys_than_dimensions():
    keys = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="5 keys of 20 numbers"):
        solver = KeySolver(SecondMoment(5, keys.T @ keys))
    assert solver.solve(torch.ones(20, 1)).isfinite().all()


def test_useless_statistics_are_refused(tiny_gptj):
    hole = torch.eye(4)
    hole[2, 1] = torch.nan
    for useless in (torch.zeros(4, 4), torch.full((4, 4), torch.inf), torch.full((4, 4), torch.nan), hole):
        with pytest.raises(InputError, match="zero or not finite"):
            KeySolver(SecondMoment(3, useless))
    with pytest.raises(InputError, match="text for second moments is empty"):
        second_moments(tiny_gptj, [0], ["", ""], 100)
