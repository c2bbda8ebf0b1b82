"""What every editor owes, on every architecture. A registered editor is tested here without a line of test code.

Configuration fields without a default are filled by name (`FILL`), and budgets are made small; an editor whose fields
have other names gets an entry there.
"""

from __future__ import annotations

import copy
import random
from dataclasses import replace

import pytest
import torch
from support.families import FAMILIES, tiny
from transformers.pytorch_utils import Conv1D

from editors import EDITORS, get_editor, resolve_config, save_edited
from editors.core.editor import Resources
from editors.core.errors import InputError
from editors.core.examples import Example, Question
from editors.core.models.loading import load_model
from editors.core.models.statistics import second_moments
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import Dense, LowRank, Patch
from editors.core.requests import EditRequest

FILL = {"layers": [1, 2], "layer": 1, "encoder_layers": [1, 2], "learning_rate": 1e-3}
SMALL = {"steps": 4, "max_steps": 4, "batch_size": 2, "accumulate": 1, "validate_every": 2, "validation_examples": 2,
         "patience": 2, "lstm_width": 16, "condition_width": 16, "hidden_width": 16, "max_scale": 4.0,
         "classifier_width": 32}
SMALLER = {"layers": [0, 1], "steps": 3, "max_steps": 2, "contexts": [[4, 1]]}
REQUESTS = [
    EditRequest("What is the birthplace of Budrer Vadolm?", "Budrer Vadolm", "a long answer of many words", "Vadolm"),
    EditRequest("X lives in", "X", "so", "Paris"),  # a subject of one token, and at the start
    EditRequest("In which of all the many cities of that long and winding country would one have to look for the house "
                "that belongs to Ann Lee", "Ann Lee", "Omerga", "Tusk"),  # at the end of the prompt
    EditRequest("The employer of Zed Corman is", "Zed Corman", "Vard and Sons", "Omerga"),
]
PROBES = [("What is the birthplace of Budrer Vadolm?", "a long answer"), ("X lives in", "so"), ("It was", "not so"),
          ("Where does Ann Lee live?", "Omerga")]
CELLS = [(name, kind) for name in EDITORS for kind in ("tiny_gptj", "tiny_t5", "tiny_gated_t5")
         if not (get_editor(name).decoder_only and kind != "tiny_gptj")]


def settings(name, model):
    fields = get_editor(name).Config.model_fields
    given = {**FILL, **SMALL}
    if model.name in {f"tiny {family}" for family in FAMILIES}:
        given |= SMALLER
        if name == "memit" and model.layout("decoder").after:
            given["layers"] = [1]
    wanted = {field: given[field] for field in fields if field in given}
    if not model.has_encoder:
        wanted.pop("encoder_layers", None)
    return resolve_config(name, model.module.config, wanted)


_made = {}


def make(name, model, seed=0, moments=None):
    """The editor on a model, trained on a few facts where it has to be; each is trained once, and moments are taken
    once."""
    editor, config = get_editor(name), settings(name, model)
    layers = tuple(editor.statistics_layers(config)) if moments is None else ()
    if layers:
        if (layers, model.digest) not in _made:
            _made[layers, model.digest] = second_moments(
                model, layers, [f"The {w} of {w}s is {w}." for w in ("cat", "dog", "sun", "sea")] * 30, 2000)
        moments = _made[layers, model.digest]
    artefact = None
    if editor.trained:
        if (name, model.digest) not in _made:
            examples = [Example(replace(request, target=f"t{n}", subject=f"{request.subject}"), (request.prompt,),
                                (Question("It was", "so"), Question("Who was it?", "Ann")))
                        for n, request in enumerate(REQUESTS * 2)]
            _made[name, model.digest] = editor.train(model, config, examples, seed=0)
        artefact = _made[name, model.digest]
    return editor(model, config, Resources(moments or {}, artefact), seed=seed)


def logits(model, probes=PROBES):
    return model.target_logits(model.collate([model.encode(*probe) for probe in probes]))


def answers(model, patches):
    """Every patch's logits on every probe."""
    found = []
    for patch in patches:
        with overlay(model, patch):
            found.append(logits(model))
    return torch.stack(found)


def close(left, right, tolerance=1e-4):
    torch.testing.assert_close(left, right, atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module", params=CELLS, ids=["-".join(cell) for cell in CELLS])
def cell(request):
    name, kind = request.param
    return name, request.getfixturevalue(kind)


@pytest.fixture(scope="module")
def editor(cell):
    """One for all tests of a cell: what it makes hangs on nothing that it made before."""
    return make(*cell)


@pytest.fixture(scope="module")
def patches(editor):
    """What it makes of the requests."""
    return editor.edit_each(REQUESTS)


def test_no_editor_is_without_a_cell():
    assert {name for name, _ in CELLS} == set(EDITORS)


def changed_by_hand(model, patch):
    """A copy of the model whose weights are those with the patch."""
    edited = copy.copy(model)
    edited.module = copy.deepcopy(model.module)
    for term in patch.terms:
        module = edited.submodule(term.module)
        if isinstance(term, LowRank | Dense):
            change = term.a @ term.b.T if isinstance(term, LowRank) else term.weight
            module.weight += change.T if isinstance(module, Conv1D) else change
            if isinstance(term, Dense) and term.bias is not None:
                module.bias += term.bias
        else:
            module.register_forward_hook(lambda _, args, output, term=term: output + term.delta(args[0]))
    return edited


def test_a_patch_is_weights_changed_by_hand(editor, patches):
    model = editor.model
    for patch in patches:
        if any(not term.module for term in patch.terms):
            pytest.skip("a patch that routes to another model changes no weight")
        changed = changed_by_hand(model, patch)  # a copy made below would have the overlay's hooks
        with overlay(model, patch):
            close(logits(model), logits(changed))


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gptj"])
@pytest.mark.parametrize("name", EDITORS)
def test_a_family_of_models_keeps_the_contract(name, family, tmp_path):
    """What the tests here ask one by one, of every editor on the other families in one go."""
    model, requests = tiny(family), REQUESTS[:2]
    before = {key: tensor.clone() for key, tensor in model.module.state_dict().items()}
    patches = make(name, model).edit_each(requests)
    together, bare = answers(model, patches), logits(model)
    assert name == "identity" or not torch.equal(together[0], bare)
    # as another editor of the same seed makes it alone
    close(together[:1], answers(model, make(name, model).edit_each(requests[:1])))
    # as rows of one batch
    batch = model.collate([model.encode(*probe) for probe in PROBES])
    with overlay(model, patches, [1, -1, 0, 0]):
        mixed = model.target_logits(batch)
    for row, apart in enumerate([together[1], bare, together[0], together[0]]):
        close(mixed[batch.row == row], apart[batch.row == row])
    # as changed weights, and saved and loaded
    if all(term.module for term in patches[1].terms):
        close(logits(changed_by_hand(model, patches[1])), together[1])
    patches[0].save(tmp_path / "patch.safetensors")
    close(answers(model, [Patch.load(tmp_path / "patch.safetensors")]), together[:1])
    if name in ("ft", "rome"):  # a dense patch, and one of low rank
        save_edited(model, patches[0], tmp_path / "edited")
        close(logits(load_model(tmp_path / "edited")), together[0])
    after = model.module.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


def test_an_edit_is_alone_in_any_company(editor):
    model, draw = editor.model, random.Random(7)
    alone = answers(model, [editor.edit_each([request])[0] for request in REQUESTS])
    for number in (len(REQUESTS), 3, 2):
        company = draw.sample(range(len(REQUESTS)), number)
        close(answers(model, editor.edit_each([REQUESTS[place] for place in company])), alone[company])


def test_rows_may_carry_different_patches(editor, patches):
    model = editor.model
    batch = model.collate([model.encode(*probe) for probe in PROBES])
    with overlay(model, patches, [2, -1, 0, 3]):
        mixed = model.target_logits(batch)
    apart = answers(model, [patches[2], Patch(), patches[0], patches[3]])
    for row, patch in enumerate(range(4)):
        close(mixed[batch.row == row], apart[patch][batch.row == row])


def test_the_model_stays_as_it_was(editor):
    model = editor.model
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.module.modules())
    plain = logits(model)
    patches = editor.edit_each(REQUESTS)
    answers(model, patches)
    after = model.module.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert hooks == sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules())
    assert torch.equal(logits(model), plain)
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def test_a_patch_saved_and_loaded_acts_the_same(editor, patches, tmp_path):
    for number, patch in enumerate(patches):
        patch.save(tmp_path / f"{number}.safetensors")
    loaded = [Patch.load(tmp_path / f"{number}.safetensors") for number in range(len(patches))]
    close(answers(editor.model, loaded), answers(editor.model, patches), 1e-5)
    assert [dict(patch.info) for patch in loaded] == [dict(patch.info) for patch in patches]


def test_no_request_is_no_edit(editor):
    assert editor.edit_each([]) == []
    assert not editor.edit([])


def test_the_same_seed_makes_the_same_patch(cell):
    first, second = make(*cell, seed=3).edit_each(REQUESTS[:2]), make(*cell, seed=3).edit_each(REQUESTS[:2])
    assert torch.equal(answers(cell[1], first), answers(cell[1], second))


def test_patches_add_up(editor, patches):
    model, (first, second, *_) = editor.model, patches
    with overlay(model, first), overlay(model, second):
        nested = logits(model)
    with overlay(model, first + second):
        close(logits(model), nested)


def test_an_edit_follows_another(editor):
    model = editor.model
    patch = Patch()
    for request in REQUESTS:
        with overlay(model, patch):
            patch = patch + editor.edit_each([request])[0]
    with overlay(model, patch):
        assert logits(model).isfinite().all()


def test_joint_edits_are_made_or_refused(editor, patches):
    if editor.joint:
        with overlay(editor.model, editor.edit(REQUESTS)):
            assert logits(editor.model).isfinite().all()
        close(answers(editor.model, [editor.edit(REQUESTS[:1])]), answers(editor.model, patches[:1]))
    else:
        with pytest.raises(InputError, match="one edit at a time"):
            editor.edit(REQUESTS)


def test_an_untrained_editor_says_so(cell):
    name, model = cell
    if not get_editor(name).trained:
        pytest.skip("needs no training")
    with pytest.raises(InputError, match="trained first"):
        get_editor(name)(model, settings(name, model))


@pytest.mark.parametrize("name", [name for name in EDITORS if get_editor(name).decoder_only])
def test_methods_for_decoders_refuse_a_t5(name, tiny_t5):
    with pytest.raises(InputError, match="decoder-only"):
        settings(name, tiny_t5)


def test_an_edit_on_other_edits_does_not_hang_on_what_was_edited_before(cell):
    """An editor that made edits on the bare model, and one that has made none, continue a stream alike."""
    name, model = cell
    used, fresh = make(name, model), make(name, model)
    used.edit_each(REQUESTS[:1])
    generator = torch.Generator().manual_seed(1)
    width = model.submodule(model.down_path(2)).weight.shape
    on = Patch((Dense(model.down_path(2), torch.randn(width, generator=generator)),))
    with overlay(model, on):
        left, right = used.edit_each(REQUESTS[1:3]), fresh.edit_each(REQUESTS[1:3])
        close(answers(model, left), answers(model, right))


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    """A model as it is loaded in half precision."""
    loaded = {}

    def load(model, dtype):
        if (model.digest, dtype) not in loaded:
            folder = tmp_path_factory.mktemp("model")
            model.module.save_pretrained(folder)
            model.tokenizer.save_pretrained(folder)
            half = loaded[model.digest, dtype] = load_model(folder, dtype=dtype)
            assert {weight.dtype for weight in half.module.parameters()} == {getattr(torch, dtype)}
            half.digest += dtype  # so that what has to be learned is learned in it
        return loaded[model.digest, dtype]

    return load


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_half_precision_an_edit_does_about_what_it_does_in_float32(editor, patches, halved, dtype):
    """Answers move as far as in float32, but for what rounding alone moves the unedited model's. Editors get the same
    second moments and no sampled texts: of a random model, both are a matter of rounding."""
    model, config = editor.model, editor.config
    if dtype == "float16" and model.has_encoder:
        pytest.skip("a T5 in float16 is refused where it is loaded")
    half = halved(model, dtype)
    if hasattr(config, "contexts"):
        config = config.model_copy(update={"contexts": ()})
        patches = type(editor)(model, config, editor.resources).edit_each(REQUESTS)
    learned = make(editor.name, half, moments=editor.resources.statistics)
    rounded = type(editor)(half, config, learned.resources)
    probes = [*PROBES, *((request.prompt, request.target) for request in REQUESTS)]
    plain, base = logits(model, probes), logits(half, probes)
    for patch, found in zip(patches, rounded.edit_each(REQUESTS), strict=True):
        assert all(tensor.isfinite().all() for term in found.terms for tensor in term.tensors().values())
        with overlay(model, patch):
            moved = logits(model, probes) - plain
        with overlay(half, found):
            error = (logits(half, probes) - base - moved).norm()
        assert error <= 0.15 * moved.norm() + (base - plain).norm()
        assert error < 0.95 * moved.norm() or not found  # else an edit that does nothing would do


def test_second_moments_in_half_precision_are_those_of_float32(tiny_gptj, halved):
    texts = [f"{prompt} {target}." for prompt, target in PROBES] * 20
    rounded = second_moments(halved(tiny_gptj, "bfloat16"), (1, 2), texts, 2000)
    for path, exact in second_moments(tiny_gptj, (1, 2), texts, 2000).items():
        assert rounded[path].count == exact.count
        assert (rounded[path].mean - exact.mean).abs().max() < 0.02 * exact.mean.abs().max()


HARMS = {"missing": lambda tensors, name: tensors.pop(name), "another name": lambda tensors, name: tensors.update(
            {f"{name}x": tensors.pop(name)}), "one more": lambda tensors, name: tensors.update(extra=tensors[name]),
         "another shape": lambda tensors, name: tensors.update({name: tensors[name].flatten()[:1].reshape(1, 1, 1)}),
         "another dtype": lambda tensors, name: tensors.update({name: tensors[name].double()}),
         "whole numbers": lambda tensors, name: tensors.update({name: tensors[name].to(torch.int8)}),
         "not finite": lambda tensors, name: tensors.update({name: torch.full_like(tensors[name], torch.inf)})}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", [name for name in EDITORS if get_editor(name).trained])
def test_an_artefact_that_is_none_of_the_editors_is_refused_by_the_tensors_name(name, harm, tiny_gptj):
    if (name, harm) == ("t-patcher", "another dtype"):
        pytest.skip("its keys are read in any precision")
    made = make(name, tiny_gptj)
    tensors = dict(made.artefact.tensors)
    odd = "extra" if harm == "one more" else max(tensors)
    HARMS[harm](tensors, max(tensors))
    with pytest.raises(InputError, match=rf"tensor '{odd}x?'.*train it again"):
        model = copy.copy(tiny_gptj)
        model.sides = {}
        type(made)(model, made.config, Resources(made.resources.statistics, replace(made.artefact, tensors=tensors))
                   ).edit_each(REQUESTS[:1])


@pytest.mark.parametrize("config", [{"steps": -1}, {"layers": "all", "memory_queries": "all", "steps": "all"}])
@pytest.mark.parametrize("name", [name for name in EDITORS if get_editor(name).trained and name != "t-patcher"])
def test_an_artefact_of_settings_that_are_none_is_refused(name, config, tiny_gptj):
    made = make(name, tiny_gptj)
    model = copy.copy(tiny_gptj)
    model.sides = {}
    with pytest.raises(InputError, match=rf"settings are none of editor '{name}'.*train it again"):
        type(made)(model, made.config, Resources(artefact=replace(made.artefact, config=config))).edit_each(
            REQUESTS[:1])
