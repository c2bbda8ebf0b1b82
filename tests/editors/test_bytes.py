"""The model of bytes against the memory that edits really take, on two blocks of GPT-J's proportions."""

import pytest
import torch
from support.families import FAMILIES, tiny
from support.ledger import Ledger
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch.autograd.graph import saved_tensors_hooks
from transformers import GPTJConfig, GPTJForCausalLM, PreTrainedTokenizerFast

from editors import get_editor
from editors.core.artefacts import Artefact
from editors.core.editor import Resources
from editors.core.memory import ANSWER, PROMPT, SUFFIX
from editors.core.models.model import LanguageModel
from editors.core.models.statistics import SecondMoment
from editors.core.requests import EditRequest

WORDS = 1000
EDITS = 3
CONTEXTS = {"contexts": [[4, 3]]}
TRAINED = {"steps": 1, "batch_size": 1, "learning_rate": 1e-6}
SETTINGS = {
    "rome": {"layer": 0, "steps": 3, **CONTEXTS}, "memit": {"layers": [0], "steps": 3, **CONTEXTS},
    "ft": {"layers": [0], "steps": 3, "objective": "target_new"},
    "calinet": {"layers": [0], "steps": 3}, "kn": {"steps": 4},
    "mend": {"layers": [0, 1], "rank": 64, **TRAINED}, "t-patcher": {"steps": 2, "memory_queries": 1000},
    "ke": {"layers": [0, 1], "lstm_width": 32, "condition_width": 32, "hidden_width": 32, **TRAINED}}


def gptj(width, dtype=torch.float32):
    """Two random blocks, each word of whose tokenizer is a token."""
    words = {f"w{number}": number for number in range(WORDS)}
    tokenizer = Tokenizer(WordLevel({"<end>": WORDS, **words}, unk_token="<end>"))
    tokenizer.pre_tokenizer = Whitespace()
    config = GPTJConfig(vocab_size=WORDS + 1, n_positions=64, n_embd=width, n_layer=2, n_head=16,
                        rotary_dim=width // 64, bos_token_id=WORDS, eos_token_id=WORDS, use_cache=False,
                        tie_word_embeddings=False, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    with torch.device("meta"):
        module = GPTJForCausalLM(config).to(dtype)
    module.to_empty(device="cpu")
    some = (torch.randn(2**16) * 0.02).to(dtype)
    for name, weight in module.named_parameters():  # drawing all anew would take most of the time
        weight.data.copy_(some.repeat(-(-weight.numel() // len(some)))[: weight.numel()].reshape(weight.shape))
        if "ln" in name and name.endswith("weight"):
            weight.data.fill_(1)
    for part in module.modules():
        module._init_weights(part) if "Rotary" in type(part).__name__ else None
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<end>", eos_token="<end>")
    return LanguageModel(module, fast, "two blocks", "two blocks")


def requests():
    """As plans take them to be."""
    made = []
    for edit in range(EDITS):
        words = [f"w{edit * 40 + place}" for place in range(PROMPT + 2 * ANSWER)]
        asked = words[: PROMPT - (ANSWER - 1)]  # of a target all but the last token are read
        last = PROMPT - SUFFIX
        made.append(EditRequest(" ".join(asked), " ".join(asked[last - 1: last + 1]), " ".join(words[-ANSWER:]),
                                " ".join(words[-2 * ANSWER: -ANSWER])))
    return made


def resources(model, name, method, config):
    """What a method is given, at random."""
    generator = torch.Generator().manual_seed(0)
    if name in ("rome", "memit"):
        inner = model.bytes.shape.inner
        keys = torch.randn(2 * inner, inner, dtype=torch.float64, generator=generator)
        return Resources({model.down_path(0): SecondMoment(len(keys), keys.T @ keys)})
    if name == "t-patcher":
        keys = torch.randn(20 * config.memory_queries, model.width, generator=generator).half()
        return Resources(artefact=Artefact(name, method.training_version, method.training_settings(config),
                                           model.digest, {"keys": keys, "validation_keys": keys[::10].clone()}, {}))
    if name in ("mend", "ke"):
        network = method.build(model, config)
        learned = {key: tensor.half() if key.endswith(network.in_half) else tensor
                   for key, tensor in network.state_dict().items()}
        return Resources(artefact=Artefact(name, method.training_version, method.training_settings(config),
                                           model.digest, learned, {}))
    return Resources()


@pytest.fixture(scope="module")
def model():
    return gptj(256)


@pytest.mark.parametrize("name", SETTINGS)
def test_edits_take_what_their_method_says(model, name):
    """All that is there at once while edits are made, without the model: within a factor of 1.5."""
    method = get_editor(name)
    config = method.Config.model_validate(SETTINGS[name])
    given, needs = resources(model, name, method, config), method.needs(config, model.bytes)
    assert needs.at_once >= EDITS
    with Ledger() as making:
        editor = method(model, config, given)
        editor.edit_each(requests()[:1])
    with Ledger() as editing:
        assert all(editor.edit_each(requests()))
    for ledger, said in ((making, needs.held + max(needs.loading, needs.edit)),
                         (editing, EDITS * max(needs.edit, needs.each))):
        assert said / 1.5 < ledger.most < said * 1.5


def saved(model, hidden):
    """Bytes that the blocks keep of these states for a gradient, none twice and no weight."""
    weights, found = {weight.untyped_storage().data_ptr() for weight in model.module.parameters()}, {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        model._backbone(inputs_embeds=hidden.requires_grad_(), use_cache=False)
    return sum(found.values())


def test_blocks_of_gpt_js_width_keep_what_is_said():
    model = gptj(4096, torch.bfloat16)
    tokens = 2 * 8
    said = tokens * model.bytes.kept(2)
    assert said / 1.5 < saved(model, torch.randn(2, 8, 4096, dtype=torch.bfloat16)) < said * 1.5


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_blocks_of_every_family_keep_about_what_is_said(family):
    model = tiny(family)
    said = 8 * 16 * model.bytes.kept(3)
    assert said / 2 < saved(model, torch.randn(1, 1, 32).repeat(8, 16, 1)) < said * 2


def test_questions_take_what_is_said(model):
    rows = [model.encode(request.prompt, request.target) for request in requests()] * 20
    batch = model.collate(rows)
    with torch.no_grad(), Ledger() as ledger:
        model.target_logits(batch)
    said = batch.input_ids.numel() * model.bytes.asked(ANSWER / PROMPT)
    assert said / 1.5 < ledger.most < said * 1.5
