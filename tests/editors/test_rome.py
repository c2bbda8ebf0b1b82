"""ROME against a plain one-edit, full-forward loop, and its closed form against its own promise."""

from dataclasses import replace

import pytest
import torch

from editors import get_editor, resolve_config
from editors.core.editor import Resources
from editors.core.errors import InputError
from editors.core.methods.contexts import sample_contexts
from editors.core.methods.value_rows import CPU_TOKENS, Rows, groups
from editors.core.methods.values import ValueConfig, optimise_values
from editors.core.models.batches import Encoded
from editors.core.models.capture import capture_inputs, capture_outputs
from editors.core.patches.overlay import overlay

LAYER = 1
SETTINGS = {"layer": LAYER, "steps": 8, "lr": 0.1, "contexts": [[4, 2], [6, 1]], "clamp": 50.0}


def rome(model, resources, **overrides):
    config = resolve_config("rome", model.module.config, {**SETTINGS, **overrides})
    return get_editor("rome")(model, config, resources, seed=3)


def naive_value(model, request, contexts, config):
    """Meng et al. 2022, Eq. 4 word by word: whole forward passes, one prompt at a time, a hook that adds delta."""
    def at(text, start, target):
        r = replace(request, prompt=text, subject_start=start, target=target)
        encoded = model.encode(text, target)
        return torch.tensor([encoded.prompt + encoded.target]), len(encoded.prompt), model.subject_index(r)

    rows = [at(c + request.prompt, len(c) + request.subject_start, request.target) for c in contexts]
    essence = at(f"{request.subject} is a", 0, "x")
    ffn = model.submodule(model.ffn_path(LAYER))

    def run(ids, index, delta):
        def add(_module, _args, output):
            return output.index_put((torch.tensor([0]), torch.tensor([index])), output[:, index] + delta)
        handle = ffn.register_forward_hook(add)
        try:
            return model.module(input_ids=ids).logits[0].log_softmax(-1)
        finally:
            handle.remove()

    width = model.width
    with torch.no_grad(), capture_outputs(model, [model.ffn_path(LAYER)]) as outputs:
        model.module(input_ids=rows[0][0])
        anchor = outputs[model.ffn_path(LAYER)][0, rows[0][2]]
        base = run(essence[0], essence[2], torch.zeros(width))[essence[2]]
    delta = torch.zeros(width, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=config.lr)
    for step in range(config.steps):
        nll = 0.0
        for ids, length, index in rows:
            logs = run(ids, index, delta)
            targets = ids[0, length:]
            nll = nll - logs[length - 1: -1].gather(1, targets[:, None]).mean()
        edited = run(essence[0], essence[2], delta)[essence[2]]
        kl = torch.nn.functional.kl_div(base, edited, log_target=True, reduction="sum")
        decay = config.weight_decay * delta.norm() / anchor.norm() ** 2
        loss = nll / len(rows) + config.kl * kl + decay
        if loss < config.stop_loss or step == config.steps - 1:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            if delta.norm() > config.clamp * anchor.norm():
                delta *= config.clamp * anchor.norm() / delta.norm()
    return delta.detach(), float(loss.detach()), step


@pytest.mark.parametrize("tokens", [CPU_TOKENS, 40], ids=["whole", "in-parts"])
@pytest.mark.parametrize("overrides", [{}, {"clamp": 2.0}, {"stop_loss": 5.5}])
def test_batched_values_equal_the_plain_loop(tiny_gptj, requests, overrides, tokens, monkeypatch):
    monkeypatch.setattr("editors.core.methods.value_rows.CPU_TOKENS", tokens)
    config = ValueConfig(**{k: v for k, v in {**SETTINGS, **overrides}.items() if k != "layer"})
    contexts = sample_contexts(tiny_gptj, config.contexts, seed=3)
    seen = []
    for numbers, values in optimise_values(tiny_gptj, requests, LAYER, contexts, config,
                                           anchor=tiny_gptj.ffn_path(LAYER)):
        for place, number in enumerate(numbers):
            delta, loss, steps = naive_value(tiny_gptj, requests[number], contexts, config)
            torch.testing.assert_close(values.delta[place], delta, atol=2e-4, rtol=1e-3)
            assert values.loss[place] == pytest.approx(loss, rel=1e-3)
            assert values.steps[place] == steps
            seen.append(number)
    assert sorted(seen) == list(range(len(requests)))


def test_a_small_token_budget_changes_nothing(tiny_gptj, requests, resources):
    whole = rome(tiny_gptj, resources).edit_each(requests)
    split = rome(tiny_gptj, resources, batch_tokens=100).edit_each(requests)
    for a, b in zip(whole, split, strict=True):
        torch.testing.assert_close(a.terms[0].a, b.terms[0].a, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("covariance", [True, False])
def test_the_edited_module_maps_the_key_to_the_value(tiny_gptj, requests, resources, covariance):
    """Eq. 2's constraint: with the original key, the bare prompt's output at the subject becomes v0 + delta."""
    editor = rome(tiny_gptj, resources, key="original", covariance=covariance)
    ffn, request = tiny_gptj.ffn_path(LAYER), requests[0]
    batch = tiny_gptj.collate([tiny_gptj.encode(request.prompt, request.target)])
    index = tiny_gptj.subject_index(request)
    patch = editor.edit_each([request])[0]

    def output():
        with capture_outputs(tiny_gptj, [ffn]) as outputs:
            tiny_gptj.states(batch)
        return outputs[ffn][0, index]

    before = output()
    with overlay(tiny_gptj, patch):
        after = output()
    assert (after - before).norm() == pytest.approx(patch.info["delta_norm"], rel=1e-4)


def test_the_consistent_key_is_the_mean_over_contexts(tiny_gptj, requests, resources):
    editor = rome(tiny_gptj, resources)
    request, down = requests[2], tiny_gptj.down_path(LAYER)
    keys, values = [], []
    for context in editor.contexts:
        moved = replace(request, prompt=context + request.prompt, subject_start=len(context) + request.subject_start)
        batch = tiny_gptj.collate([tiny_gptj.encode(moved.prompt)])
        with capture_inputs(tiny_gptj, [down]) as inputs, capture_outputs(tiny_gptj, [down]) as outputs:
            tiny_gptj.states(batch)
        index = tiny_gptj.subject_index(moved)
        keys.append(inputs[down][0, index])
        values.append(outputs[down][0, index])
    key, value = torch.stack(keys).mean(0), torch.stack(values).mean(0)
    [(_, found)] = optimise_values(tiny_gptj, [request], LAYER, editor.contexts, editor.config,
                                   anchor=tiny_gptj.ffn_path(LAYER))
    term = editor.edit_each([request])[0].terms[0]
    torch.testing.assert_close(value + term.a @ (term.b.T @ key), values[0] + found.delta[0], atol=1e-4, rtol=1e-3)
    direction = torch.linalg.solve(resources.statistics[down].mean, key.double())
    cosine = torch.nn.functional.cosine_similarity(direction, term.b[:, 0].double(), dim=0)
    assert cosine == pytest.approx(1.0, abs=1e-4)


def test_one_edit_in_a_batch_is_the_edit_alone(tiny_gptj, requests, resources):
    editor = rome(tiny_gptj, resources)
    for request, patch in zip(requests, editor.edit_each(requests), strict=True):
        alone = editor.edit_each([request])[0].terms[0]
        torch.testing.assert_close(patch.terms[0].a @ patch.terms[0].b.T, alone.a @ alone.b.T, atol=1e-4, rtol=1e-3)


def test_an_edit_on_top_of_another_starts_from_it(tiny_gptj, requests, resources):
    request = requests[1]
    first = rome(tiny_gptj, resources, steps=20, weight_decay=0.0).edit_each([request])[0]
    look = rome(tiny_gptj, resources, steps=1)  # tells the loss, and moves nothing
    bare = look.edit_each([request])[0]
    with overlay(tiny_gptj, first):
        second = look.edit_each([request])[0]
    assert second.info["loss"] < bare.info["loss"] - 0.1


def test_missing_statistics_and_joint_edits_are_refused(tiny_gptj, requests):
    editor = rome(tiny_gptj, Resources())
    with pytest.raises(InputError, match="needs the second moment"):
        editor.edit_each(requests[:1])
    with pytest.raises(InputError, match="one edit at a time"):
        editor.edit(requests)
    assert not editor.edit([])


def test_contexts_are_seeded_and_clean(tiny_gptj):
    first = sample_contexts(tiny_gptj, [(5, 3), (10, 2)], seed=1)
    assert first == sample_contexts(tiny_gptj, [(5, 3), (10, 2)], seed=1)
    assert first != sample_contexts(tiny_gptj, [(5, 3), (10, 2)], seed=2)
    assert len(first) == 6 and first[0] == ""
    assert all(text == "" or (text.endswith(". ") and "\n" not in text) for text in first)


@pytest.mark.parametrize(("budget", "widest"), [(60, 2), (400, 6)])
def test_groups_are_of_like_suffixes_and_within_the_budget(budget, widest):
    """Rows of 3 to 13 tokens up to the subject, and of 1 to 7 from there on, in two contexts."""
    rows = [Rows([Encoded(tuple(range(before)), (1,) * after)] * 2, [before - 1] * 2, Encoded((1,), (0,)))
            for before, after in zip([3, 13, 4, 5, 9, 11, 6, 8] * 2, [7, 1, 2, 5, 3, 1, 4, 6] * 2, strict=True)]
    found = list(groups(rows, budget, "cpu"))
    parts = [part for group in found for part in group]
    assert sorted(number for part in parts for number in part) == list(range(16))
    assert 1 < len(found) <= len(parts) < 16
    for group in found:
        assert sum(max(rows[number].tokens for number in part) * len(part) for part in group) <= budget
    for part in parts:
        assert max(rows[number].suffix for number in part) * 2 * len(part) <= CPU_TOKENS
    [[whole]] = groups(rows, 10**6, "cuda")
    assert len(whole) == 16
    suffixes = [[rows[number].suffix for number in part] for part in parts]
    assert max(max(part) - min(part) for part in suffixes) <= widest


def test_edits_whose_suffixes_are_unlike_are_optimised_at_once():
    """In parts of their own, within the budget: what is asked of every edit is asked of all together."""
    rows = [Rows([Encoded(tuple(range(9)), (1,) * after)] * 20, [8] * 20, Encoded((1,), (0,))) for after in [1, 8] * 4]
    [parts] = groups(rows, 10**6, "cpu")
    assert [{rows[number].suffix for number in part} for part in parts] == [{1}, {8}, {8}, {8}, {8}]
