"""Training: the best weights stay, subjects are held out, and a run that is cut short ends as a whole one does."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from editors.core.errors import InputError
from editors.core.examples import Example
from editors.core.methods import training
from editors.core.methods.checkpoints import Checkpoint
from editors.core.methods.training import Trainee, TrainingConfig, fit, hold_out
from editors.core.requests import EditRequest

EXAMPLES = [Example(EditRequest(f"S{number // 2} is", f"S{number // 2}", f"t{number}")) for number in range(40)]
CONFIG = TrainingConfig(steps=30, batch_size=4, learning_rate=0.1, validate_every=5, validation_examples=6,
                        patience=100)


class Line(Trainee):
    """Fits y = a x + b to y = 3 x, where x is an example's number."""

    def __init__(self, harm=None):
        torch.manual_seed(0)
        self.module = nn.Linear(1, 1)
        self.harm, self.batches, self.validated = harm, [], []

    def parameter_groups(self):
        return [{"params": [self.module.weight]}, {"params": [self.module.bias], "lr": 0.01}]

    def _error(self, examples):
        x = torch.tensor([[int(example.request.target[1:]) / 20] for example in examples])
        return ((self.module(x) - 3 * x) ** 2).mean()

    def losses(self, examples, rng):
        self.batches.append([example.request.target for example in examples])
        loss = self._error(examples)
        yield loss * float("nan") if self.harm == len(self.batches) else loss

    def validation_loss(self, examples, rng):
        self.validated.append(float(self._error(examples).detach()))
        return self.validated[-1]


def test_the_loss_falls_and_the_best_weights_stay():
    trainee = Line()
    losses = []
    report = fit(trainee, EXAMPLES, CONFIG, seed=0, on_step=lambda step, loss: losses.append((step, loss)))
    assert [step for step, _ in losses] == list(range(1, 31))
    assert report["best_loss"] == min(trainee.validated) < 0.3 * trainee.validated[0]
    held_out = hold_out(EXAMPLES, 6, 0)[1]
    assert trainee.validation_loss(held_out, None) == pytest.approx(report["best_loss"])


def test_worse_weights_are_not_kept():
    trainee = Line()
    scores = iter([5.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    kept = []

    def judge(examples, rng):
        kept.append(trainee.module.weight.item())
        return next(scores)

    trainee.validation_loss = judge
    report = fit(trainee, EXAMPLES, CONFIG, seed=0)
    assert report["best_step"] == 10 and trainee.module.weight.item() == kept[1] != kept[-1]


def test_training_stops_when_nothing_gets_better():
    trainee = Line()
    trainee.validation_loss = lambda examples, rng: 1.0
    report = fit(trainee, EXAMPLES, CONFIG.model_copy(update={"patience": 10}), seed=0)
    assert report["step"] == 20 and report["best_step"] == 5


def test_a_step_that_is_not_finite_is_left_out_and_counted():
    trainee = Line(harm=3)
    assert fit(trainee, EXAMPLES, CONFIG, seed=0)["skipped"] == 1
    assert all(parameter.isfinite().all() for parameter in trainee.module.parameters())


def test_training_that_comes_to_nothing_says_so():
    trainee = Line()
    trainee.validation_loss = lambda examples, rng: trainee.module(torch.tensor([[torch.nan]])).sum()
    trainee.losses = lambda examples, rng: [trainee.validation_loss(examples, rng)]
    with pytest.raises(InputError, match=r"after 30 steps, 30 of them left out.*Lower learning_rate \(0.1\)"):
        fit(trainee, EXAMPLES, CONFIG, seed=0)


def test_no_subject_is_on_both_sides():
    training_part, held_out = hold_out(EXAMPLES, 6, seed=1)
    assert len(held_out) == 6 and len(training_part) == 34
    assert not {e.request.subject for e in training_part} & {e.request.subject for e in held_out}
    with pytest.raises(InputError, match="at least two subjects"):
        hold_out(EXAMPLES[:2], 1, seed=0)


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 20, 70), (1.0, 60, 110)])
def test_swapped_facts_are_practised_with_another_answer_of_their_batch(share, least, most):
    trainee, seen = Line(), []
    plain = trainee.losses
    trainee.losses = lambda examples, rng: seen.append(examples) or plain(examples, rng)
    fit(trainee, EXAMPLES, CONFIG.model_copy(update={"swapped": share}), seed=0)
    own = {example.request.target for example in EXAMPLES}
    assert all(example.request.target in own for batch in seen for example in batch)
    assert least <= sum(example not in EXAMPLES for batch in seen for example in batch) <= most


def test_decay_takes_every_rate_from_its_own_start_to_nothing(monkeypatch):
    seen = []
    step = torch.optim.Adam.step

    def note(self, *arguments, **options):
        seen.append([group["lr"] for group in self.param_groups])
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", note)
    fit(Line(), EXAMPLES, CONFIG.model_copy(update={"decay": True}), seed=0)
    assert seen[0] == [0.1, 0.01] and seen[15] == pytest.approx([0.05, 0.005])
    assert seen == sorted(seen, reverse=True) and 0 < seen[-1][0] < 0.001


@pytest.mark.parametrize("decay", [False, True])
def test_a_run_cut_short_goes_on_where_it_was(tmp_path, monkeypatch, decay):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    config = CONFIG.model_copy(update={"decay": decay})
    whole = Line()
    fit(whole, EXAMPLES, config, seed=0)

    class Cut(Exception):
        pass

    def cut(step, loss):
        if step == 13:
            raise Cut

    path = tmp_path / "run.safetensors"
    with pytest.raises(Cut):
        fit(Line(), EXAMPLES, config, seed=0, checkpoint=Checkpoint(path), on_step=cut)
    second = Line()
    report = fit(second, EXAMPLES, config, seed=0, checkpoint=Checkpoint(path))
    assert len(second.batches) == 17 and report["step"] == 30
    assert torch.equal(second.module.weight, whole.module.weight)
    assert list(tmp_path.iterdir()) == [path]  # until the outcome is kept


@pytest.mark.parametrize("harm", ["another run", "another model", "damaged"])
def test_a_checkpoint_that_does_not_fit_is_left_aside(tmp_path, monkeypatch, harm):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    path = tmp_path / "run.safetensors"
    seed = int(harm == "another run")
    with pytest.raises(ZeroDivisionError):
        fit(Line(), EXAMPLES, CONFIG, seed=seed, checkpoint=Checkpoint(path), on_step=lambda step, loss: 1 / (5 - step))
    if harm == "damaged":
        path.write_bytes(path.read_bytes()[:50])
    trainee = Line()
    if harm == "another model":
        trainee.name = "a line for another model"
    fit(trainee, EXAMPLES, CONFIG, seed=0, checkpoint=Checkpoint(path))
    assert len(trainee.batches) == 30


def test_who_keeps_the_checkpoint_elsewhere_is_told_of_every_change(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    path, copies = tmp_path / "run.safetensors", []
    checkpoint = Checkpoint(path, lambda: copies.append(path.read_bytes() if path.exists() else None))
    fit(Line(), EXAMPLES, CONFIG, seed=0, checkpoint=checkpoint)
    assert len(copies) == 30 and None not in copies  # after every step
    checkpoint.remove()
    assert len(copies) == 31 and copies[30] is None
    checkpoint.remove()
    assert len(copies) == 31  # there was nothing to remove
    path.write_bytes(copies[9])
    second = Line()
    fit(second, EXAMPLES, CONFIG, seed=0, checkpoint=Checkpoint(path))
    assert len(second.batches) == 20  # a copy is as good as the file


@pytest.mark.parametrize("harm", ["no progress", "progress of another form", "a weight of another shape",
                                  "a weight is missing", "half of Adam's state", "state of no parameter"])
def test_a_checkpoint_that_holds_something_else_is_left_aside_whole(tmp_path, monkeypatch, harm):
    """By whatever tool it was made: nothing of it gets into the run, which ends as if it had not been there."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    whole, path = Line(), tmp_path / "run.safetensors"
    fit(whole, EXAMPLES, CONFIG, seed=0)
    with pytest.raises(ZeroDivisionError):
        fit(Line(), EXAMPLES, CONFIG, seed=0, checkpoint=Checkpoint(path), on_step=lambda step, loss: 1 / (5 - step))
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["editfleet"])
    for name in ("format", "sha256", "tensors"):  # as files of format 1 are
        del header[name]
    match harm:
        case "no progress":
            del header["progress"]
        case "progress of another form":
            header["progress"]["step"] = "5"
        case "a weight of another shape":
            tensors["weights.now.weight"] = torch.ones(1)
        case "a weight is missing":
            del tensors["weights.best.weight"]
        case "half of Adam's state":
            del tensors["optimizer.0.exp_avg"]
        case _:
            tensors["optimizer.9.exp_avg"] = torch.ones(1)
    save_file(tensors, path, {"editfleet": json.dumps(header)})
    trainee = Line()
    with pytest.warns(UserWarning, match=rf"training starts anew: checkpoint file '{path}' is damaged"):
        fit(trainee, EXAMPLES, CONFIG, seed=0, checkpoint=Checkpoint(path))
    assert len(trainee.batches) == 30 and torch.equal(trainee.module.weight, whole.module.weight)


def test_a_folder_in_the_place_of_the_checkpoint_is_told_before_training(tmp_path):
    with pytest.raises(InputError, match="a folder is in its place; remove it"):
        fit(Line(), EXAMPLES, CONFIG, seed=0, checkpoint=Checkpoint(tmp_path))
