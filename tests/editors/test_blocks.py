"""Values and keys in blocks of every make, parallel, in sequence and with norms behind the FFN, against a plain loop
over the whole model with a hook on the down-projection."""

from __future__ import annotations

import pytest
import torch
from support.families import tiny
from torch.nn.functional import cross_entropy, kl_div

from editors import get_editor, resolve_config
from editors.core.editor import Resources
from editors.core.methods.values import optimise_values
from editors.core.models.capture import capture_inputs, capture_outputs
from editors.core.models.statistics import second_moments
from editors.core.patches.overlay import overlay
from editors.core.requests import EditRequest

LAYER = 1
REQUEST = EditRequest("Ann Lee lives in the house of", "Ann Lee", "Zed Corman")
SETTINGS = {"layer": LAYER, "steps": 6, "contexts": [], "covariance": False, "stop_loss": 0.0, "lr": 0.1,
            "weight_decay": 1e-3, "clamp": 50.0}
KINDS = ["llama", "gpt2", "gpt_neox", "gpt_neox in sequence", "opt", "falcon", "falcon rw", "phi3", "olmo2", "gemma2",
         "gemma3_text"]


@pytest.fixture(params=KINDS)
def model(request):
    return tiny(request.param)


def plain_value(model, config):
    """δ by Adam on the library's own whole pass, added to what the down-projection gives at the subject's last token;
    also the key and the output there before the edit."""
    row, at = model.encode(REQUEST.prompt, REQUEST.target), model.subject_index(REQUEST)
    prompt, target = torch.tensor([row.prompt + row.target[:-1]]), torch.tensor(row.target)
    essence = prompt[:, : at + 1]  # the prompt begins with the subject: up to there, "{subject} is a" is the same
    assert model.encode("Ann Lee is a").prompt[: at + 1] == row.prompt[: at + 1]
    delta = torch.zeros(model.width, requires_grad=True)
    seen = {}

    def add(_module, args, output):
        seen["key"], seen["output"] = args[0][0, at].detach(), output[0, at].detach()
        return output.index_add(1, torch.tensor([at]), delta.expand(len(output), 1, -1))

    handle = model.submodule(model.down_path(LAYER)).register_forward_hook(add)
    optimizer = torch.optim.Adam([delta], lr=config.lr)
    base = model.module(input_ids=essence).logits[0, at].log_softmax(-1).detach()
    for step in range(config.steps):
        logits = model.module(input_ids=prompt).logits[0, len(row.prompt) - 1:]
        now = model.module(input_ids=essence).logits[0, at].log_softmax(-1)
        loss = (cross_entropy(logits, target) + config.kl * kl_div(base, now, log_target=True, reduction="sum")
                + config.weight_decay * delta.norm() / seen["output"].norm() ** 2)
        if step == config.steps - 1:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            delta.mul_((config.clamp * seen["output"].norm() / delta.norm()).clamp(max=1.0))
    handle.remove()
    return delta.detach(), seen["key"], seen["output"]


def test_a_value_is_sought_at_what_the_ffn_writes(model):
    config = resolve_config("rome", model.module.config, SETTINGS)
    [(_, values)] = optimise_values(model, [REQUEST], LAYER, [""], config, anchor=model.ffn_path(LAYER))
    delta, key, output = plain_value(model, config)
    torch.testing.assert_close(values.keys[0, 0], key, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(values.values[0, 0], output, atol=1e-5, rtol=1e-4)
    assert (values.delta[0] - delta).norm() < 0.01 * delta.norm()


def at_subject(model, request, found, path):
    return found[path][0, model.subject_index(request)]


def look(model, request, path):
    batch = model.collate([model.encode(request.prompt)])
    with torch.no_grad(), capture_inputs(model, [path]) as inputs, capture_outputs(model, [path]) as outputs:
        model.states(batch)
    return at_subject(model, request, inputs, path), at_subject(model, request, outputs, path)


@pytest.mark.parametrize("editor", ["rome", "memit"])
def test_the_value_is_what_the_projection_gives_afterwards(model, editor):
    """v* at the subject's last token; MEMIT, which holds it against other keys, comes near."""
    kind = get_editor(editor)
    named = {"layer": LAYER} if editor == "rome" else {"layers": [LAYER], "moment_weight": 1e-4}
    given = {**{field: SETTINGS[field] for field in SETTINGS if field in kind.Config.model_fields}, **named}
    config, path = resolve_config(editor, model.module.config, given), model.down_path(LAYER)
    texts = ["It was not so, and a long answer of many words", "X lives in so many words"]
    resources = Resources(second_moments(model, [LAYER], texts, 200) if editor == "memit" else {})
    [patch] = kind(model, config, resources).edit_each([REQUEST])
    anchor = model.ffn_path(LAYER) if editor == "rome" or model.layout("decoder").after else model.block_path(LAYER)
    [(_, values)] = optimise_values(model, [REQUEST], LAYER, [""], config, anchor=anchor)
    before = look(model, REQUEST, path)[1]
    with overlay(model, patch):
        after = look(model, REQUEST, path)[1]
    assert (after - before - values.delta[0]).norm() < 0.01 * values.delta[0].norm()
