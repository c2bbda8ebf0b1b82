"""SERAC: where its two models start, what they are trained on, and edits that are lines of text."""

from __future__ import annotations

import copy
import math
import random
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import DistilBertConfig, DistilBertModel, T5Config

from editors.core.artefacts import Artefact
from editors.core.editor import Resources
from editors.core.errors import CaseError, InputError
from editors.core.examples import Example, Question
from editors.core.methods.sides import build
from editors.core.models.batches import BlockRef
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import Route
from editors.core.requests import EditRequest
from editors.serac import SERAC, SeracConfig, _learned, _Trainee, restore
from evaluators.testbed.pretraining.corpus import train_tokenizer
from evaluators.testbed.world import build_world

QUICK = {"steps": 6, "batch_size": 4, "accumulate": 1, "learning_rate": 1e-3, "validate_every": 3,
         "validation_examples": 4, "classifier_width": 32, "classifier_layers": 1}
PEOPLE = ("Ann Lee", "Bo Vard", "Zed Corman", "Art Tusk", "Ib Sol", "Una Pek")
EXAMPLES = [Example(EditRequest(f"{who} lives in", who, town), (f"Where does {who} live?", f"The home of {who} is"),
                    (Question(f"{who} works for", "Bibor Motors"), Question("It was a long", "day")))
            for who, town in zip(PEOPLE * 2, ("Rome", "Oslo and Bergen", "Vadolm", "Paris") * 3, strict=True)]
PROBES = [("Ann Lee lives in", "Rome"), ("What is it?", "so and so"), ("X", "a long answer")]


@pytest.fixture(params=["tiny_gptj", "tiny_t5", "tiny_gated_t5"])
def model(request):
    model = copy.copy(request.getfixturevalue(request.param))
    model.sides = {}
    return model


def train(model, seed=0, **changes):
    return SERAC.train(model, SeracConfig(**{**QUICK, **changes}), EXAMPLES, seed=seed)


def edit(model, artefact):
    return SERAC(model, SeracConfig(**QUICK), Resources(artefact=artefact))


def logits(model, probes=PROBES):
    with torch.no_grad():
        return model.target_logits(model.collate([model.encode(*probe) for probe in probes]))


def close(left, right, tolerance=1e-5):
    torch.testing.assert_close(left, right, atol=tolerance, rtol=tolerance)


# --- where the models start


def test_a_side_with_all_layers_is_the_model(model):
    side = build(model, SeracConfig(side_layers=model.depth))
    assert torch.equal(logits(side.model), logits(model))


def test_a_side_is_the_first_blocks_between_embeddings_and_head(tiny_gptj):
    side = build(tiny_gptj, SeracConfig(side_layers=2))
    batch = tiny_gptj.collate([tiny_gptj.encode(*probe) for probe in PROBES])
    hidden = tiny_gptj.finish(tiny_gptj.run_to(batch, BlockRef("decoder", 2)))
    close(logits(side.model), tiny_gptj.head(hidden[batch.row, batch.position]))
    assert side.model.depth == 2 and tiny_gptj.depth == 4


def test_blocks_and_classifier_are_trained_and_nothing_of_the_models(model):
    side = build(model, SeracConfig(classifier_width=32))
    base = {weight.data_ptr() for weight in model.module.parameters()}
    names = [name for name, weight in _learned(side)]
    assert not any(weight.data_ptr() in base for weight in side.model.module.parameters())
    assert any(name.startswith("model.") for name in names) and any(name.startswith("classifier.") for name in names)
    assert not any(weight.requires_grad for weight in model.module.parameters())


def test_the_classifier_starts_from_the_models_token_embeddings(model):
    table = model.module.get_input_embeddings().weight
    same, wider = (build(model, SeracConfig(classifier_width=width)).classifier.module
                   for width in (32, 64))
    assert torch.equal(same.embeddings.word_embeddings.weight[:-1], table)
    assert wider.embeddings.word_embeddings.weight.shape == (len(table) + 1, 64)


def test_a_prompt_is_embedded_alike_in_any_batch(model):
    side = build(model, SeracConfig(classifier_width=32))
    prompts = [model.encode(prompt).prompt for prompt, _ in [*PROBES, ("a " * 100, "")]]
    close(side.classifier(prompts), torch.cat([side.classifier([prompt]) for prompt in prompts]))


def test_an_entry_is_seen_with_its_answer_where_it_was_trained_so(model):
    entries = [("It was", "not so"), ("It was", "so")]
    for kind in ("question", "answered"):
        side = build(model, SeracConfig(classifier_width=32, entry=kind))
        first, second = side.embed([side.seen(entry) for entry in entries])
        assert torch.equal(first, second) == (kind == "question")
        found = side.find([side.seen(entry) for entry in entries], entries)  # at distance 0, of equals the latest
        assert found == ([1, 1] if kind == "question" else [0, 1])


def test_what_was_trained_before_there_was_a_choice_is_what_would_be_trained_now():
    default, chosen = SeracConfig(), SeracConfig(entry="answered", negatives="own")
    settings = SERAC.training_settings(default)
    assert SeracConfig.model_validate(settings) == default and not {"entry", "negatives"} & settings.keys()
    assert SERAC.training_settings(chosen) == {**settings, "entry": "answered", "negatives": "own"}


# --- training


@pytest.mark.parametrize("published", [{}, {"entry": "answered"}, {"negatives": "own"}])
def test_the_loss_is_that_of_a_plain_loop(model, published):
    config = SeracConfig(**QUICK, edit_weight=0.3, scope_weight=0.7, unchanged=2, **published)
    side = build(model, config)
    examples, rng = EXAMPLES[:4], random.Random(5)
    questions = [rng.choice((each.request.prompt, *each.paraphrases)) for each in examples]

    def vector(text, answer=None):
        row = model.encode(text) if answer is None else model.encode(text, answer)
        end = row.prompt[-1:] if model.has_encoder else ()
        return side.classifier([row.prompt[: len(row.prompt) - len(end)] + row.target + end])[0]

    def apart(request, text):
        entry = vector(request.prompt, request.target if config.entry == "answered" else None)
        return float((entry - vector(text)).square().sum().detach())

    nlls, near, far = [], [], []
    for example, question in zip(examples, questions, strict=True):
        request = example.request
        known, asked = model.encode(request.prompt, request.target), model.encode(question, request.target, end=True)
        ids = [*known.prompt[: -1 if model.has_encoder else None], *known.target,
               *(asked.prompt if model.has_encoder else model.tokenise(f" {question}"))]
        if model.has_encoder:
            read = {"input_ids": torch.tensor([ids]), "decoder_input_ids": torch.tensor([[0, *asked.target[:-1]]])}
        else:
            read = {"input_ids": torch.tensor([[*ids, *asked.target[:-1]]])}
        scores = side.model.module(**read).logits[0, -len(asked.target):].log_softmax(-1).detach()
        nlls += [-float(scores[k, token]) for k, token in enumerate(asked.target)]
        near.append(apart(request, question))
        far += [apart(request, other.prompt) for other in example.unchanged]
        if config.negatives == "batch":
            far += [apart(request, text) for text, other in zip(questions, examples, strict=True)
                    if other is not example]
    expected = (0.3 * sum(nlls) / len(nlls)
                + 0.7 * (sum(near) / 4 - sum(math.log(1 - math.exp(-each)) for each in far) / len(far)))
    assert float(next(_Trainee(side, config).losses(examples, random.Random(5)))) == pytest.approx(expected, rel=1e-4)


def test_what_lies_in_scope_is_no_negative(tiny_gptj):
    """The same fact twice in a batch, an example with nothing besides, and a question equal to an entry."""
    side = build(tiny_gptj, SeracConfig(**QUICK))
    request = EXAMPLES[0].request
    lone = Example(request)
    alike = Example(EditRequest("Ann Lee lives in", "Lee", "Rome"))
    for examples in ([lone], [lone, lone], [lone, alike]):
        loss = next(_Trainee(side, SeracConfig(**QUICK)).losses(examples, random.Random(0)))
        loss.backward()
        assert loss.isfinite() and all(weight.grad is None or weight.grad.isfinite().all()
                                       for _, weight in _learned(side))


def test_training_lowers_the_loss_and_leaves_the_model_alone(model):
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    start = _Trainee(build(model, SeracConfig(**QUICK)), SeracConfig(**QUICK))
    artefact = train(model, steps=40, validate_every=10)
    end = _Trainee(restore(model, artefact), SeracConfig(**QUICK))
    first, last = (each.validation_loss(EXAMPLES, random.Random(0)) for each in (start, end))
    assert last < 0.7 * first
    assert artefact.report["step"] == 40
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.module.state_dict().items())
    assert not any(weight.requires_grad or weight.grad is not None for weight in model.module.parameters())


def test_the_same_seed_trains_the_same_and_draws_nothing_outside(model):
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    first, second, third = train(model), train(model), train(model, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.digest == second.digest != third.digest


def test_an_artefact_is_half_precision_and_comes_back_from_its_file(model, tmp_path):
    artefact = train(model)
    artefact.save(tmp_path / "a.safetensors")
    loaded = Artefact.load(tmp_path / "a.safetensors")
    assert loaded.digest == artefact.digest
    assert {tensor.dtype for tensor in loaded.tensors.values()} == {torch.float16}
    sides = [restore(model, each) for each in (artefact, loaded)]
    assert torch.equal(logits(sides[0].model), logits(sides[1].model))
    prompts = [model.encode(prompt).prompt for prompt, _ in PROBES]
    assert torch.equal(sides[0].embed(prompts), sides[1].embed(prompts))
    assert not any(True for _ in _learned(sides[0]))


# --- editing


def test_an_edit_is_a_line_of_text(model):
    artefact = train(model)
    editor = edit(model, artefact)
    requests = [example.request for example in EXAMPLES[:3]]
    patches = editor.edit_each(requests)
    for request, patch in zip(requests, patches, strict=True):
        [term] = patch.terms
        assert isinstance(term, Route) and term.side == artefact.digest
        assert term.memory == ((request.prompt, request.target),)
    [union] = editor.edit(requests).terms
    assert union.memory == tuple((request.prompt, request.target) for request in requests)
    assert not editor.edit([])
    assert editor.edit_each([]) == []


def test_the_prompt_itself_is_answered_by_the_side_in_context(model):
    editor = edit(model, train(model))
    request = EXAMPLES[0].request
    side = next(iter(model.sides.values())).model
    probe = (request.prompt, "Rome and on")
    target = model.encode(*probe).target
    with overlay(model, editor.edit_each([request])[0]):
        answer = logits(model, [probe])
    context = model.encode(request.prompt, request.target)
    asked = model.encode(request.prompt).prompt if model.has_encoder else model.tokenise(f" {request.prompt}")
    ids = [*context.prompt[: -1 if model.has_encoder else None], *context.target, *asked]
    with torch.no_grad():
        if model.has_encoder:
            expected = side.module(input_ids=torch.tensor([ids]),
                                   decoder_input_ids=torch.tensor([[0, *target[:-1]]])).logits[0]
        else:
            expected = side.module(torch.tensor([[*ids, *target[:-1]]])).logits[0, len(ids) - 1:]
    close(answer, expected)


def test_a_side_is_made_once_for_a_model(model):
    artefact = train(model)
    edit(model, artefact)
    first = model.sides[artefact.digest]
    edit(model, artefact)
    assert list(model.sides.values()) == [first]


def test_what_cannot_be_read_is_refused(tiny_gptj):
    model = copy.copy(tiny_gptj)
    model.sides = {}
    editor = edit(model, train(model))
    with pytest.raises(CaseError, match="reads at most 128"):
        editor.edit_each([EditRequest("Ann " * 200, "Ann", "x")])


def test_what_the_side_model_alone_cannot_read_is_refused(tiny_gptj):
    model = copy.copy(tiny_gptj)
    model.sides = {}
    editor = edit(model, train(model))
    editor.model.sides[editor.artefact.digest].model.module.config.max_position_embeddings = 20
    long = EditRequest("Ann Lee, whom nobody ever saw in any other town but this one, lives in", "Ann Lee", "Rome")
    model.encode(long.prompt, long.target)
    with pytest.raises(CaseError, match="reads at most 20"):
        editor.edit([EXAMPLES[0].request, long])
    assert editor.edit([EXAMPLES[0].request]).terms


# --- models by name


def bert(folder, tokenizer):
    torch.manual_seed(3)
    DistilBertModel(DistilBertConfig(vocab_size=len(tokenizer), dim=32, n_layers=1, n_heads=2, hidden_dim=64,
                                     dropout=0.0, attention_dropout=0.0)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def save(folder, module, tokenizer):
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def tied(model):
    return model.module.get_output_embeddings().weight is model.module.get_input_embeddings().weight


def test_models_by_name_start_from_their_weights_and_come_back(model, tmp_path):
    side_module = copy.deepcopy(model.module)
    for weight in side_module.parameters():
        nn.init.normal_(weight, std=0.1)
    names = {"classifier": bert(tmp_path / "g", model.tokenizer),
             "side_model": save(tmp_path / "c", side_module, model.tokenizer)}
    side = build(model, SeracConfig(**names))
    with torch.no_grad():
        probe = model.encode("What is it?", "so").prompt
        text = torch.tensor([model.tokenizer("What is it?")["input_ids"]])
        close(side.classifier([probe])[0], DistilBertModel.from_pretrained(names["classifier"])(text)[0][0, 0])
    assert not torch.equal(logits(side.model), logits(model))
    artefact = train(model, **names)
    for weights in tmp_path.glob("*/model.safetensors"):
        weights.unlink()  # an artefact holds them all
    editor = edit(model, artefact)
    with overlay(model, editor.edit_each([EXAMPLES[0].request])[0]):
        assert logits(model).isfinite().all()
    restored = model.sides[artefact.digest]
    weights = dict(restored.model.module.named_parameters())
    assert all(torch.equal(weights[name.removeprefix("model.")], tensor.float())
               for name, tensor in artefact.tensors.items() if name.startswith("model."))
    assert tied(restored.model) == tied(side.model)


def test_settings_that_cannot_work_are_named(tiny_gptj, tiny_t5, tmp_path):
    def refuse(match, **settings):
        with pytest.raises(InputError, match=match):
            SERAC.check(SeracConfig(**settings), tiny_gptj.module.config)

    SERAC.check(SeracConfig(), tiny_gptj.module.config)
    refuse("side_layers 5 is more than the 4 layers", side_layers=5)
    for uneven in (T5Config(num_layers=4, num_decoder_layers=2), T5Config(num_layers=2, num_decoder_layers=4)):
        with pytest.raises(InputError, match="side_layers 3 is more than the 2 layers"):
            SERAC.check(SeracConfig(side_layers=3), uneven)
    refuse("there is no such folder", side_model=str(tmp_path / "none"))
    refuse("cannot load classifier '.*none'", classifier=str(tmp_path / "none"))
    refuse("of type 't5', and the edited model of type 'gptj'",
           side_model=save(tmp_path / "t5", tiny_t5.module, tiny_t5.tokenizer))
    both = {"classifier": bert(tmp_path / "g", tiny_gptj.tokenizer),
            "side_model": save(tmp_path / "c", tiny_gptj.module, tiny_gptj.tokenizer)}
    SERAC.check(SeracConfig(**both), tiny_gptj.module.config)
    for what, folder in both.items():
        weights = Path(folder) / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        refuse(f"cannot load .* '{folder}': 'model.safetensors' is cut short", **{what: folder})
    strange = save(tmp_path / "strange", tiny_gptj.module, train_tokenizer(build_world(), vocab_size=600))
    with pytest.raises(InputError, match="other token ids than 'tiny-gptj'"):
        build(tiny_gptj, SeracConfig(side_model=strange))


def test_the_authors_training_is_the_default():
    config = SeracConfig()
    assert (config.learning_rate, config.batch_size, config.accumulate, config.clip) == (1e-5, 10, 10, 100)
    assert (config.steps * config.accumulate, config.validate_every * config.accumulate) == (1_000_000, 5000)
    assert config.edit_weight == 0.1 and config.scope_weight == 1.0


def test_an_artefact_of_other_models_is_refused(tiny_gptj):
    artefact = train(tiny_gptj)
    config = {**artefact.config, "classifier_layers": 2}
    with pytest.raises(InputError, match=r"tensor 'classifier\..* is missing; train it again"):
        restore(tiny_gptj, Artefact("serac", 1, config, tiny_gptj.digest, artefact.tensors))
