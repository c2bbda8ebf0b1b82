"""Editors against numbers that the published code computed, on tiny models with the same weights (`reference_models`).

The numbers are from runs of the repositories named, at the commits named, outside this one: their classes and functions
were called as their scripts call them, with the layers' names of the tiny models. No line of theirs is here.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.reference_models import draw, fill, gptj, t5
from transformers import DistilBertConfig, DistilBertModel

from editors.calinet import CaliNET, CaliNetConfig
from editors.core.artefacts import Artefact
from editors.core.editor import Resources
from editors.core.examples import Example
from editors.core.methods.hyper_editor import HyperTrainee
from editors.core.methods.hypernetwork import matrices
from editors.core.methods.neurons import NeuronTraining
from editors.core.models.statistics import SecondMoment
from editors.core.patches.overlay import overlay
from editors.core.patches.route import Classifier, SideModel
from editors.core.requests import EditRequest
from editors.ft import FineTuning, FineTuningConfig
from editors.ke import KE, KEConfig
from editors.kn import KnowledgeNeurons, KnowledgeNeuronsConfig, attribute
from editors.memit import MEMIT, MemitConfig
from editors.mend import MendConfig, MendNetwork, Transform
from editors.rome import ROME, RomeConfig
from editors.serac import SeracConfig, _Trainee
from editors.t_patcher import TPatcher, TPatcherConfig


@pytest.fixture(scope="module", name="gptj")
def _gptj():
    return gptj()


@pytest.fixture(scope="module", name="t5")
def _t5():
    return t5()


def close(found, expected, rel=1e-3):
    """Of rounded numbers."""
    torch.testing.assert_close(torch.as_tensor(found).detach().flatten()[: len(expected)].double(),
                               torch.tensor(expected).double(), rtol=rel, atol=2e-4)


# T-Patcher: github.com/ZeroYuHuang/Transformer-Patcher at 93ff458, `Editor` of src/models/seq2seq_modules.py on the
# last decoder FFN, eight copies of the edit, in the order of calls of Lightning's `fit`; no dropout. Values and
# memories are drawn here and there by name, and biases start a thousandth apart, for of equal ones the published code
# takes any.

FIRST = EditRequest("What is the birthplace of Budrer Vadolm?", "Budrer Vadolm", "a long answer")
SECOND = EditRequest("Who employs Zed Corman?", "Zed Corman", "so")


def neurons(model, request, number, **overrides):
    memories = {"keys": draw("memory", 300, 16), "validation_keys": draw("held out", 60, 16)}
    artefact = Artefact("t-patcher", TPatcher.training_version, {}, model.digest, memories)
    editor = TPatcher(model, TPatcherConfig(**overrides), Resources(artefact=artefact))
    training = NeuronTraining(model, editor.config, editor.read([request]), [request], seed=0)
    training.direction.data.copy_(draw(f"values {number}", 5, 16)[: training.direction.shape[1]])
    training.bias.data += 1e-3 * torch.arange(training.bias.shape[1])
    return training, *editor.memories()


def parts(training, memory):
    return [float(part.detach()) for part in training.losses(training.positions, torch.tensor([0]), memory)]


def test_t_patcher_trains_towards_the_same_neurons(t5):
    training, memory, held_out = neurons(t5, FIRST, 0, steps=30, check_every=5)
    close(parts(training, memory), [31.98464, 6.92466, 2.46921])
    training.train(memory, held_out)
    assert int(training.count[0]) == 5
    close(training.keys[0], [0.00352, 0.00866, -0.02035, -0.00743, -0.01767, 0.03357], 1e-2)
    close(training.bias[0], [-0.20422, -0.20658, -0.20713, -0.20224, -0.20117])
    close(training.values[0], [2.7536, 8.5525, -7.3481, 6.6751, 6.2844, -12.6263])
    close([training.keys.norm(), training.values.norm(), training.rate[0]], [0.16586, 69.8772, 0.25])


def test_t_patcher_is_silent_at_its_own_edits_in_a_stream(t5):
    training, *memories = neurons(t5, FIRST, 0, steps=30, check_every=5)
    training.train(*memories)
    with overlay(t5, training.patch(0)):
        training, memory, _ = neurons(t5, SECOND, 1)
        # The published code leaves out one position of the first copy and one of the last.
        close(parts(training, torch.cat([memory[:300], memory[301:-1]])), [34.70675, 6.88151, 2.74574])


def test_t_patcher_ends_at_the_same_check(t5):
    training, *memories = neurons(t5, SECOND, 0, steps=600, memory_weight=0.1, lr=2e-2, improvement=0.01)
    training.train(*memories)
    assert (int(training.steps[0]), float(training.rate[0]), bool(training.right[0])) == (250, 0.125, True)
    close([training.keys.norm(), training.values[:, :3].norm()], [1.68317, 20.56147], 5e-3)


# KN: the port in github.com/kmeng01/rome at 0874014, `get_scores`, `get_refined_neurons` and `edit_knowledge` of
# baselines/kn, for "gpt2" with GPT-J's modules in the places of GPT-2's.

@pytest.mark.parametrize(("prompt", "old", "found"), [
    ("What is the birthplace of Budrer Vadolm?", "so", {
        "top": [66, 29, 4, 41, 113], "scores": [1.49078e-4, 9.03111e-5, 8.13076e-5, 6.39353e-5, 5.71238e-5],
        "norm": 4.23946e-4, "neurons": [3, 7, 2], "change": [0.53116, -0.43242, 1.3661, -0.69406]}),
    ("Who employs Zed Corman?", "Mirel Vadolm", {  # of seven tokens
        "top": [41, 4, 29, 66, 114], "scores": [1.63312e-4, 1.29404e-4, 1.24557e-4, 1.12132e-4, 1.02227e-4],
        "norm": 6.06035e-4, "neurons": [10, 7, 1], "change": [-0.79743, -0.85953, 1.1547, -1.4631]}),
])
def test_kn_finds_and_rewrites_the_ports_neurons(gptj, prompt, old, found):
    editor = KnowledgeNeurons(gptj, KnowledgeNeuronsConfig(mode="reference", threshold=0.2))
    request = EditRequest(prompt, prompt.split()[-1].rstrip("?"), "Zesmilport Budrer", old)
    scores = attribute(gptj, editor._facts([request]), editor.config)[0][0].flatten()
    highest = scores.topk(5)
    assert highest.indices.tolist() == found["top"]
    close(highest.values * 1e4, [1e4 * score for score in found["scores"]])
    close(scores.norm() * 1e4, [1e4 * found["norm"]])
    terms = editor.edit_each([request])[0].terms
    assert [int(term.b.sum()) for term in terms] == found["neurons"]
    for term in terms:
        close(term.a, found["change"])


# ROME and MEMIT: github.com/kmeng01/rome at 0874014, `execute_rome`, and github.com/kmeng01/memit at 80426fd,
# `execute_memit`, with the contexts and second moments given; on a CPU, and reading blocks' outputs as they come now.

WRITES = [FIRST, EditRequest("Zed Corman lives in", "Zed Corman", "so")]


def writer(editor, model, settings):
    keys = [draw(f"keys {layer}", 400, 64).double() for layer in range(model.depth)]
    moments = {model.down_path(layer): SecondMoment(400, each.T @ each) for layer, each in enumerate(keys)}
    made = editor(model, settings, Resources(moments))
    made.contexts = ["", "The sky. ", "So it was said. "]
    return made


@pytest.mark.parametrize(("clamp", "values", "norms"), [
    (4.0, [[-0.176626, -0.0159889, 0.0158575, -0.0764746, 0.229766],
           [0.00943028, -0.0269924, -0.027181, 0.00610844, 0.0243542]], [0.449163, 0.0858711]),
    (0.1, [[-0.0532691, 0.0251884, -0.0245807, -0.0336085, 0.0688854],
           [0.000381237, -0.00970802, -0.019026, 0.00492641, 0.0255562]], [0.133476, 0.0608759]),
])
def test_rome_writes_the_same_rank_one_change(gptj, clamp, values, norms):
    editor = writer(ROME, gptj, RomeConfig(layer=1, steps=8, clamp=clamp, key="original", contexts=()))
    directions = [[0.0383837, -0.0269085, 0.140328, 0.013093, 0.0607413],
                  [0.0408922, -0.00934383, 0.215822, -0.0142225, 0.0236967]]
    for patch, direction, value, norm in zip(editor.edit_each(WRITES), directions, values, norms, strict=True):
        [term] = patch.terms
        close(term.b, direction)
        close(term.a, value, 5e-3)
        close(term.a.norm(), [norm])


def test_memit_writes_the_same_changes(gptj):
    editor = writer(MEMIT, gptj, MemitConfig(layers=(0, 1), steps=8, clamp=0.3, moment_weight=20, contexts=()))
    first, second = (term.a @ term.b.T for term in editor.edit(WRITES).terms)
    close(first, [-0.0189683, -0.00372923, -0.00798214, -0.000640688, -0.00118155], 5e-3)
    close(second, [-0.00188479, 0.00168895, 0.00837564, -0.00370165, -0.0119896], 5e-3)
    close([first.norm(), second.norm()], [0.215102, 0.3248])


# MEND: github.com/eric-mitchell/mend at e04fdb9, `MEND.edit` of algs/mend.py with networks and statistics drawn by name
# (`higher` stood in for, so that the new weights could be read), and `GradientTransform` in training.

def mend(model):
    config = MendConfig(layers=(1, 2), rank=24, learning_rate=1e-6, steps=1, batch_size=1)
    network = MendNetwork(matrices(model, config), config)
    for transform in network.transforms.values():
        i, w = transform.inputs, len(transform.mean)
        o = w - i
        for n, layer in enumerate(transform.layers):
            for name, scale in (("u", 0.1), ("v", 0.1), ("bias", 1), ("scale", 1), ("shift", 1)):
                weight = getattr(layer, name)
                weight.data = scale * draw(f"{name} {n} {i} {o}", *weight.shape)
        transform.mean, transform.std = draw(f"mean {i} {o}", w), draw(f"std {i} {o}", w).abs() + 0.5
    network.alpha.data = torch.tensor([0.1, 0.2, 0.3, 0.4])
    return network


def test_mend_rewrites_gradients_as_the_authors_networks_do(gptj):
    network = mend(gptj)
    updates = network(HyperTrainee(gptj, network.config, network).factors([FIRST]), [FIRST])
    found = [(update.a[0].T @ update.b[0]).detach() for update in updates.values()]
    for change, entries in zip(found, [
            [-2.82585, 6.58543, 14.5015, 47.4411, 20.2077], [2.31958, 2.38426, 12.5107, 19.7361, 4.51295],
            [1.51358, 9.01558, 1.38109, 3.13509, 2.25724], [5.79165, 20.232, 13.5388, 9.81384, -2.48656]], strict=True):
        close(change, entries)
    close([change.norm() for change in found], [303.72778, 504.86717, 303.10257, 562.18404])


def test_mends_statistics_are_the_authors_running_ones():
    transform = Transform(16, 64, 8, 2)
    transform.standardise(torch.cat([draw("tokens in", 50, 16), draw("tokens out", 50, 64) * 3], 1))
    close(transform.mean, [0.23656, -0.460249, 0.0677473, 0.0752264])
    close(transform.std[16:], [2.7798, 2.93709, 3.11707, 2.90047])


# KE: the same repository, `EFK.edit` of algs/efk.py with a small `OneShotLearner`, drawn by name; allennlp's two
# classes are a plain LSTM and linear layer.

def test_ke_gates_the_gradient_as_the_port_does(gptj):
    request = replace(FIRST, target_true="so")
    config = KEConfig(layers=(1, 2), lstm_width=6, condition_width=10, hidden_width=6, learning_rate=1e-5, steps=1,
                      batch_size=1)
    network = KE.build(gptj, config)
    network.embedding.weight.data = gptj.input_table.clone()
    for name, weight in network.lstm.named_parameters():
        weight.data = 0.5 * draw(f"lstm {name}", *weight.shape)
    for name in ("weight", "bias"):
        weight = getattr(network.linear, name)
        weight.data = 0.5 * draw(f"linear {name}", *weight.shape)
    for matrix, conditioner in zip(network.matrices, network.conditioners, strict=True):
        for place in (0, 2):
            normed = conditioner[place].parametrizations.weight
            for name, weight in (("g", normed.original0), ("v", normed.original1), ("bias", conditioner[place].bias)):
                weight.data = draw(f"{matrix.path}.weight {place} {name}", *weight.shape)
    updates = network(HyperTrainee(gptj, config, network).factors([request]), [request])
    found = [(update.a[0].T @ update.b[0]).detach() for update in updates.values()]
    for change, entries in zip(found, [
            [0.000884444, 0.00260125, 0.000964403, 0.00158608, 0.00325534],
            [0.00160527, -0.0130461, 0.0143646, 0.0108294, -0.00439876],
            [-0.00241929, 0.00288115, -0.00156188, -0.00374703, 0.00496145],
            [-0.0567734, 0.122805, -0.0222815, 0.125431, -0.024834]], strict=True):
        close(100 * change, [100 * entry for entry in entries])
    close([change.norm() for change in found], [0.140819, 4.194698, 0.908706, 1.712013])


# FT: github.com/kmeng01/rome at 0874014, `execute_ft` of baselines/ft/ft_main.py, on a CPU. Yao et al. 2023 take it.

def tuned(model, requests, **settings):
    editor = FineTuning(model, FineTuningConfig(**settings))
    return (editor.edit(requests) if len(requests) > 1 else editor.edit_each(requests)[0]).terms


def test_ft_makes_the_same_change(gptj):
    [term] = tuned(gptj, WRITES[:1], layers=[1], steps=8, lr=5e-3)
    close(term.weight, [-0.0386183, 0.0402072, 0.0401434, -0.039342, 0.0326258])
    close(term.bias, [0.0392216, -0.0395295, -0.0325684, -0.0395391, 0.0389533])
    close([term.weight.norm(), term.bias.norm()], [1.18403, 0.148799])
    [term] = tuned(gptj, WRITES[1:], layers=[2], steps=200, lr=2e-2)
    close([term.weight.norm(), term.bias.norm()], [10.6623, 1.35413])


def test_ft_keeps_to_the_same_bound(gptj):
    lower, upper = tuned(gptj, WRITES[:1], layers=[0, 1], steps=8, lr=5e-3, norm_constraint=8e-3)
    close(lower.bias, [-0.00378753, -0.008, -0.008, -0.008, 0.008])
    close([lower.weight.norm(), lower.bias.norm(), upper.weight.norm()], [0.252446, 0.0307415, 0.253421])


@pytest.mark.parametrize(("size", "weight", "norms"), [
    (128, [-0.0402886, 0.0403891, 0.0403731, -0.0397531, -0.0401227], [1.21867, 0.14959]),
    (1, [-0.0681003, 0.0716371, 0.074719, -0.0577676, -0.030609], [1.80975, 0.244172])])
def test_ft_makes_the_same_joint_change(gptj, size, weight, norms):
    [term] = tuned(gptj, WRITES, layers=[1], steps=8, lr=5e-3, batch_size=size)
    close(term.weight, weight)
    close([term.weight.norm(), term.bias.norm()], norms)


# CaliNET: github.com/dqxiu/CaliNet at 8c9cfd5, `T5LayerFFEx` of src/modeling_t5.py in the last decoder block, and the
# optimiser that its script asks the library's trainer for. Slots are drawn by name.

def test_calinet_trains_the_same_slots(t5):
    editor = CaliNET(t5, CaliNetConfig(layers=(1,), slots=4, steps=20, zero_values=False))
    delta = editor.new_delta([FIRST])
    [slots] = delta.layers.values()
    slots["keys"].data, slots["values"].data = 0.3 * draw("slot keys", 4, 16), 0.3 * draw("slot values", 16, 4)
    editor.new_delta = lambda requests: delta
    [patch] = editor.edit_each([FIRST])
    [term] = patch.terms
    close([patch.info["loss"]], [6.85044])
    close(term.keys, [-0.219929, 0.160136, -0.462677, 0.333206, -0.278045])
    close(term.values, [0.0325891, -0.197468, -0.168669, -0.225389, 0.424641])
    close([term.keys.norm(), term.values.norm()], [2.97019, 3.06298])


# SERAC: github.com/eric-mitchell/serac at c963a39, `embedding_logsim_matrix` of algs/rep.py as configured there, of
# entries as cut for GPT models and questions, and `balanced_bce` of losses.py over what its trainer passes.

def test_serac_tells_scope_as_the_authors_do(gptj):
    encoder = DistilBertModel(DistilBertConfig(
        vocab_size=len(gptj.tokenizer), max_position_embeddings=64, dim=16, n_layers=1, n_heads=2, hidden_dim=32,
        dropout=0.0, attention_dropout=0.0)).eval()
    fill(encoder, 0.3)
    side = SideModel(gptj, Classifier(encoder, lambda prompt: prompt))
    entries = [FIRST, WRITES[1]]
    inside, outside = (["Where was Budrer Vadolm born?", "The home of Zed Corman is in"],
                       ["Who employs Zed Corman?", "The birthplace of Ann Lee is"])
    known, *asked = (side.classifier([gptj.encode(text).prompt for text in texts])
                     for texts in ([entry.prompt for entry in entries], inside, outside))
    for found, expected in zip(asked, [[-0.0826351, -0.278489, -0.676305, -0.573061],
                                       [-0.0934833, -0.277938, -0.648604, -0.527989]], strict=True):
        close(-(found[:, None] - known).square().sum(-1), expected)
    trainee = _Trainee(side, SeracConfig(negatives="own"))
    close([trainee._scope([Example(entry) for entry in entries], inside, [[text] for text in outside])], [1.98157])
