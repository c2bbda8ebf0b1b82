"""Models are loaded whole or not at all: weights that are not the configuration's are refused by name."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file, save_file

from editors.core.errors import InputError
from editors.core.models.loading import load_config, load_model


@pytest.fixture
def folder(tiny_gptj, tmp_path):
    tiny_gptj.module.save_pretrained(tmp_path)
    tiny_gptj.tokenizer.save_pretrained(tmp_path)
    return tmp_path


def rewrite(folder, change):
    """Changes the tensors by name."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def configure(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def without(part):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


HARM = {
    "no head": (lambda folder: rewrite(folder, without("lm_head")), ["missing: 'lm_head.bias' and 1 more"]),
    "other prefix": (lambda folder: rewrite(folder, lambda tensors: {f"module.{n}": t for n, t in tensors.items()}),
                     ["missing: 'lm_head.bias'", "left over: 'module."]),
    "no last FFN": (lambda folder: rewrite(folder, without(".h.3.mlp")),
                    ["'transformer.h.3.mlp.fc_in.bias' and 3 more"]),
    "more layers": (lambda folder: configure(folder, n_layer=6), ["missing: 'transformer.h.4."]),
    "fewer layers": (lambda folder: configure(folder, n_layer=2), ["left over: 'transformer.h.2."]),
    "a tensor more": (lambda folder: rewrite(folder, lambda tensors: tensors | {
        "extra": tensors["lm_head.bias"].clone()}), ["left over: 'extra'"]),
    "other vocabulary": (lambda folder: configure(folder, vocab_size=700),
                         ["'lm_head.bias' is [", "should be [700], and 2 more have another shape"]),
}


@pytest.mark.parametrize("harm", HARM)
def test_weights_that_are_not_the_models_are_refused(folder, harm):
    damage, told = HARM[harm]
    damage(folder)
    with pytest.raises(InputError, match="its weights are not those of its config") as refused:
        load_model(folder)
    assert str(folder) in str(refused.value) and all(part in str(refused.value) for part in told), str(refused.value)


def test_what_old_checkpoints_of_the_family_hold_besides_is_no_harm(folder, tiny_gptj):
    rewrite(folder, lambda tensors: tensors | {"transformer.h.0.attn.masked_bias": tensors["lm_head.bias"][:1].clone()})
    loaded = load_model(folder).module.state_dict()
    assert all(loaded[name].equal(tensor) for name, tensor in tiny_gptj.module.state_dict().items())


@pytest.mark.parametrize(("file", "content", "told"), [
    ("adapter_config.json", {"peft_type": "LORA"}, "PEFT adapter"),
    ("config.json", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "is quantised")])
def test_what_is_not_the_weights_alone_is_refused_before_any_is_read(folder, file, content, told):
    old = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(old | content))
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=told):
        load_config(folder)
