"""Models are loaded whole or not at all: weights that are not the configuration's are refused by name, at planning."""

from __future__ import annotations

import json

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file

from editors.core.errors import InputError
from editors.core.models.loading import find_model, load_config, load_model


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
    "a head of integers": (lambda folder: rewrite(folder, lambda tensors: tensors | {
        "lm_head.bias": tensors["lm_head.bias"].to(torch.int8)}), ["'lm_head.bias' is not of floating point numbers"]),
    "other vocabulary": (lambda folder: configure(folder, vocab_size=700),
                         ["'lm_head.bias' is [", "should be [700], and 2 more have another shape"]),
}


@pytest.mark.parametrize("harm", HARM)
def test_weights_that_are_not_the_models_are_refused(folder, harm):
    damage, told = HARM[harm]
    damage(folder)
    for look in (lambda: find_model(folder, weights=False), lambda: load_model(folder)):
        with pytest.raises(InputError, match="cannot load model") as refused:
            look()
        assert all(part in str(refused.value) for part in (str(folder), *told)), str(refused.value)


def test_what_old_checkpoints_of_the_family_hold_besides_is_no_harm(folder, tiny_gptj):
    rewrite(folder, lambda tensors: tensors | {"transformer.h.0.attn.masked_bias": tensors["lm_head.bias"][:1].clone()})
    loaded = load_model(folder).module.state_dict()
    assert all(loaded[name].equal(tensor) for name, tensor in tiny_gptj.module.state_dict().items())


@pytest.mark.parametrize(("file", "content", "told"), [
    ("adapter_config.json", {"peft_type": "LORA"}, "PEFT adapter"),
    ("adapter_model.safetensors", {}, "PEFT adapter"), ("adapter_model.bin", {}, "PEFT adapter"),
    ("config.json", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "is quantised")])
def test_what_is_not_the_weights_alone_is_refused_before_any_is_read(folder, file, content, told):
    old = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(old | content))
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=told):
        load_config(folder)


def save(model, folder):
    model.module.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def test_a_head_of_its_own_is_not_made_of_the_embeddings(tiny_gated_t5, tmp_path):
    """The library would tie it."""
    folder = save(tiny_gated_t5, tmp_path)
    rewrite(folder, without("lm_head"))
    with pytest.raises(InputError, match=r"'lm_head\.weight' is missing, and its config\.json tells of a head"):
        find_model(folder, weights=False)


@pytest.mark.parametrize("name", ["encoder.embed_tokens.weight", "lm_head.weight"])
def test_tied_weights_may_be_kept_under_any_of_their_names(tiny_t5, tmp_path, name):
    folder = save(tiny_t5, tmp_path)
    rewrite(folder, lambda tensors: {name if key == "shared.weight" else key: each for key, each in tensors.items()})
    loaded = load_model(folder).module
    assert loaded.shared.weight is loaded.lm_head.weight and loaded.shared.weight.equal(tiny_t5.module.shared.weight)


def test_planning_reads_no_weights(folder, monkeypatch):
    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", never)
    monkeypatch.setattr("safetensors.safe_open.get_tensor", never, raising=False)
    found = find_model(folder, weights=False)
    assert found.digest and len(found.tokenizer) == 1024 and found.config.n_layer == 4


@pytest.mark.parametrize(("change", "told"), [
    ({"n_layer": -1}, "cannot load model"), ({"n_head": 5}, "must be divisible by"), ({"n_embd": "wide"}, "n_embd")])
def test_a_configuration_that_nothing_can_be_made_of_is_refused(folder, change, told):
    configure(folder, **change)
    with pytest.raises(InputError, match=told) as refused:
        find_model(folder, weights=False)
    assert str(folder) in str(refused.value)


def test_a_t5_in_half_precision_is_refused_with_the_cure(tiny_t5, tmp_path):
    folder = save(tiny_t5, tmp_path)
    for look in (find_model, load_model):
        with pytest.raises(InputError, match="type 't5', whose hidden states are too large for float16; take 'dtype"):
            look(folder, dtype="float16")
    assert load_model(folder, dtype="bfloat16").module.dtype is torch.bfloat16


# --- tokenizers


@pytest.mark.parametrize("files", [["tokenizer.json"], ["tokenizer.json", "tokenizer_config.json"]])
@pytest.mark.parametrize("kind", ["tiny_gptj", "tiny_t5"])
def test_a_folder_without_a_tokenizer_is_refused(request, tmp_path, kind, files):
    """The library makes one that knows the special tokens, and reads every word as the same."""
    folder = save(request.getfixturevalue(kind), tmp_path)
    for file in files:
        (folder / file).unlink()
    with pytest.raises(InputError, match=r"(it has no|its) tokenizer"):
        find_model(folder, weights=False)


@pytest.mark.parametrize("file", ["tokenizer.json", "spiece.model"])
def test_a_damaged_tokenizer_is_named(old_t5_folder, tiny_t5, tmp_path, file):
    folder = save(tiny_t5, tmp_path)
    if file == "spiece.model":
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
        (folder / file).write_bytes((old_t5_folder / file).read_bytes())
    find_model(folder, weights=False)
    (folder / file).write_bytes((folder / file).read_bytes()[:1000])
    with pytest.raises(InputError, match=rf"its tokenizer cannot be read \({file}.*fetch them again") as refused:
        find_model(folder, weights=False)
    assert "tiktoken" not in str(refused.value)


def test_sentencepiece_alone_is_a_tokenizer_that_says_what_sentencepiece_says(old_t5_folder):
    model = load_model(old_t5_folder)
    own = sentencepiece.SentencePieceProcessor(model_file=str(old_t5_folder / "spiece.model"))
    for text in ("What of Budrer Vadolm? So, in Omerga.", "  two  spaces,\ta tab\nand a line ", "it's “ﬁne” ½ é",
                 "a\u00a0no-break space", "日本", " ", "What of the", " Omerga"):
        assert list(model.tokenise(text)) == own.encode(text), text
    assert model.encode("What of it?").prompt[-1] == own.eos_id() == model.tokenizer.eos_token_id
