"""SERAC: keep edits in a memory and let a small model answer what lies in their scope (Mitchell et al. 2022; METHODS
section 2). The classifier that decides, and the small model, are trained; an edit is then a line of text."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from editors.core.artefacts import Artefact
from editors.core.editor import Editor, Resources
from editors.core.errors import InputError
from editors.core.examples import Example
from editors.core.methods.checkpoints import Checkpoint
from editors.core.methods.training import OnStep, Trainee, TrainingConfig, fit
from editors.core.models.architectures import Shape
from editors.core.models.batches import Encoded
from editors.core.models.loading import load_config, load_model, not_loaded
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Patch, Route
from editors.core.patches.route import Classifier, SideModel, Tokens
from editors.core.requests import EditRequest

SIDE = 200_000_000  # parameters of the model that is trained, at most
HEAD = "lm_head.weight"
HEAD_WIDTH = 32  # of the small classifier's attention
LONGEST = 512  # tokens a classifier reads of a prompt
NEAREST = 1e-6  # squared distance below which the loss of a negative grows no further


class SeracConfig(TrainingConfig):
    """`classifier` and `side_model` are hub names or folders: an encoder such as DistilBERT, and a model that shares
    the edited one's token ids.

    Without `classifier`, a DistilBERT of `classifier_layers` and `classifier_width` that reads the edited model's
    tokens starts from nothing but its token embeddings, where they are as wide. Without `side_model`, the edited
    model's first `side_layers` blocks (of each stack), its embeddings and its head are copied and trained. Out of
    scope are `unchanged` questions of each example, and the others of its batch. The defaults of training are the
    authors'.
    """

    steps: PositiveInt = 100_000
    batch_size: PositiveInt = 10
    learning_rate: PositiveFloat = 1e-5
    accumulate: PositiveInt = 10
    validate_every: PositiveInt = 500
    validation_examples: PositiveInt = 500
    patience: int = Field(4000, ge=1)
    classifier: str | None = None
    side_model: str | None = None
    classifier_layers: PositiveInt = 2
    classifier_width: PositiveInt = Field(256, multiple_of=HEAD_WIDTH)
    side_layers: PositiveInt = 2
    edit_weight: PositiveFloat = 0.1
    scope_weight: PositiveFloat = 1.0
    unchanged: PositiveInt = 1


class SERAC(Editor[SeracConfig]):
    """Adds requests to the memory of a `Route`; nothing is computed, and an artefact holds all that was learned."""

    name = "serac"
    version = 1
    Config = SeracConfig
    joint = True
    trained = True

    def __init__(self, model: LanguageModel, config: SeracConfig, resources: Resources | None = None,
                 seed: int = 0) -> None:
        super().__init__(model, config, resources, seed)
        if self.artefact.digest not in model.sides:
            model.sides[self.artefact.digest] = restore(model, self.artefact)

    @classmethod
    def cost(cls, config: SeracConfig, shape: Shape) -> float:
        return 0.0  # an edit is a line of text

    @classmethod
    def training_cost(cls, config: SeracConfig, shape: Shape) -> float:
        return config.cost(replace(shape, parameters=min(shape.parameters, SIDE)))

    @classmethod
    def check(cls, config: SeracConfig, model_config: Any) -> None:
        if config.side_model is not None:
            _side_config(config.side_model, model_config.model_type)
        elif config.side_layers > model_config.num_hidden_layers:
            raise InputError(f"configuration of editor 'serac': side_layers {config.side_layers} is more than the "
                             f"{model_config.num_hidden_layers} layers of the model")
        if config.classifier is not None:
            from transformers import AutoConfig

            with _named_classifier(config.classifier):
                AutoConfig.from_pretrained(config.classifier)

    def edit_each(self, requests: Sequence[EditRequest]) -> list[Patch]:
        return [self.edit([request]) for request in requests]

    def edit(self, requests: Sequence[EditRequest]) -> Patch:
        if not requests:
            return Patch()
        for request in requests:
            self.model.encode(request.prompt, request.target)  # what cannot be read is refused now
        memory = tuple((request.prompt, request.target) for request in requests)
        return Patch((Route(side=self.artefact.digest, memory=memory),), {"editor": "serac"})

    @classmethod
    def train(cls, model: LanguageModel, config: SeracConfig, examples: Sequence[Example], *, seed: int = 0,
              checkpoint: Checkpoint | None = None, on_step: OnStep | None = None) -> Artefact:
        cls.check(config, model.module.config)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            side = build(model, config)
        trainee = _Trainee(side, config, model.digest)
        report = fit(trainee, examples, config, seed=seed, checkpoint=checkpoint, on_step=on_step)
        tensors = {name: weight.detach().half() for name, weight in _learned(side)}
        return Artefact(cls.name, cls.version, cls.training_settings(config), model.digest, tensors, report)


def restore(model: LanguageModel, artefact: Artefact) -> SideModel:
    """The classifier and the side model that an artefact holds, in fp32 and frozen."""
    with torch.random.fork_rng():
        side = build(model, SeracConfig.model_validate(artefact.config), artefact.tensors)
    weights = dict(_learned(side))
    if weights.keys() != artefact.tensors.keys():
        odd = min(weights.keys() ^ artefact.tensors.keys())
        raise InputError(f"the artefact's weights are not those of its models: they differ in '{odd}'; train it again")
    for name, weight in weights.items():
        weight.data.copy_(artefact.tensors[name])
        weight.requires_grad_(False)
    return side


def _learned(side: SideModel) -> Iterator[tuple[str, nn.Parameter]]:
    """The weights that training changes, by name."""
    return ((name, weight) for name, weight in _modules(side).named_parameters() if weight.requires_grad)


def _modules(side: SideModel) -> nn.ModuleDict:
    return nn.ModuleDict({"classifier": side.classifier.module, "model": side.model.module})


# --- the two models


def build(model: LanguageModel, config: SeracConfig, learned: Mapping[str, Tensor] | None = None) -> SideModel:
    """A side for a model, ready to be trained, in fp32. To be filled with `learned`, it leaves the weights that
    training changes as they come: of models by name nothing but configurations and tokenizers is read."""
    c = _shortened(model, config.side_layers) if config.side_model is None else _named(model, config, learned)
    g = _small_classifier(model, config) if config.classifier is None else _encoder(model, config, learned)
    g.module.eval().requires_grad_().to(model.device)
    return SideModel(c, g)


def _blank(model: LanguageModel, config: Any, *, tied: bool) -> Any:
    """A module of a model's class; T5's always has its head tied to its embeddings, which many a checkpoint's is
    not."""
    module = type(model.module)(config)
    head = module.get_output_embeddings()
    if not tied:
        head.weight = nn.Parameter(head.weight.detach().clone())
    return module


def _wrap(model: LanguageModel, module: Any, name: str) -> LanguageModel:
    """Another module in the place of a model's."""
    wrapped = type(model)(module.float().to(model.device), model.tokenizer, name)
    wrapped.module.requires_grad_()
    return wrapped


def _shortened(model: LanguageModel, layers: int) -> LanguageModel:
    """The first blocks of a model, between copies of its embeddings and head."""
    config = copy.deepcopy(model.module.config)
    for field in ("num_layers", "num_decoder_layers") if model.has_encoder else ("n_layer",):
        setattr(config, field, layers)
    module = _blank(model, config, tied=model.output_table is model.input_table)
    weights = dict(model.module.named_parameters(remove_duplicate=False))
    for name, copied in module.named_parameters(remove_duplicate=False):
        with model.weights.whole(weights[name]):
            copied.data.copy_(weights[name])
    return _wrap(model, module, f"{layers} layers of {model.name}")


def _named(model: LanguageModel, config: SeracConfig, learned: Mapping[str, Tensor] | None) -> LanguageModel:
    """A side model by name. Raises `InputError` unless it is of the model's kind and reads its tokens."""
    name = config.side_model
    assert name is not None
    found = _side_config(name, model.module.config.model_type)
    if learned is not None:
        return _wrap(model, _blank(model, found, tied=f"model.{HEAD}" not in learned), name)
    side = load_model(name)
    ids, added = side.tokenizer.get_vocab(), model.tokenizer.get_added_vocab()
    if strange := next((token for token, number in model.tokenizer.get_vocab().items()
                        if ids.get(token, added.get(token)) != number), None):
        raise InputError(f"side model '{name}' has other token ids than '{model.name}', first for '{strange}'; "
                         "take one that was trained with the same tokenizer")
    return _wrap(model, side.module, name)


def _side_config(name: str, wanted: str) -> Any:
    found = load_config(name)
    if found.model_type != wanted:
        raise InputError(f"side model '{name}' is of type '{found.model_type}', and the edited model of type "
                         f"'{wanted}'; both have to read the same tokens")
    return found


def _small_classifier(model: LanguageModel, config: SeracConfig) -> Classifier:
    """An encoder of the model's tokens behind one more of its own, whose state is the CLS vector."""
    from transformers import DistilBertConfig, DistilBertModel

    table = model.input_table
    first, width = model.weights.shape(table)
    module = DistilBertModel(DistilBertConfig(
        vocab_size=first + 1, max_position_embeddings=LONGEST, dim=config.classifier_width,
        n_layers=config.classifier_layers, n_heads=config.classifier_width // HEAD_WIDTH,
        hidden_dim=2 * config.classifier_width, dropout=0.0, attention_dropout=0.0))
    if width == config.classifier_width:
        with model.weights.whole(table):
            module.embeddings.word_embeddings.weight.data[:first] = table.float()

    def read(prompt: Tokens) -> Tokens:
        return (first, *prompt[: LONGEST - 1])

    return Classifier(module, read)


def _encoder(model: LanguageModel, config: SeracConfig, learned: Mapping[str, Tensor] | None) -> Classifier:
    """An encoder by name; it reads a prompt's text."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    name = config.classifier
    assert name is not None
    with _named_classifier(name):
        module = (AutoModel.from_pretrained(name) if learned is None
                  else AutoModel.from_config(AutoConfig.from_pretrained(name)))
        tokenizer = AutoTokenizer.from_pretrained(name)

    def read(prompt: Tokens) -> Sequence[int]:
        text = model.tokenizer.decode(list(prompt[:-1] if model.has_encoder else prompt))
        ids: list[int] = tokenizer(text, truncation=True, max_length=LONGEST)["input_ids"]
        return ids

    return Classifier(module.float(), read)


@contextmanager
def _named_classifier(name: str) -> Iterator[None]:
    """Inside, what keeps a classifier from being loaded is an `InputError` with the cure."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise not_loaded(name, error, "classifier") from error


# --- training


class _Trainee(Trainee):
    """Classifier and side model, each by its own loss: neither sees the other, nor the edited model."""

    config: SeracConfig

    def __init__(self, side: SideModel, config: SeracConfig, digest: str = "") -> None:
        self.side, self.config = side, config
        self.module = _modules(side)
        self.name = f"SERAC for {digest}"

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [weight for _, weight in _learned(self.side)]}]

    def loss(self, examples: Sequence[Example], rng: random.Random) -> Tensor:
        """`edit_weight * NLL(c | the right entry) + scope_weight * (negative log-likelihood of the scope scores)`."""
        questions = [rng.choice((example.request.prompt, *example.paraphrases)) for example in examples]
        outside = [[question.prompt for question in example.sample_unchanged(self.config.unchanged, rng)]
                   for example in examples]
        return (self.config.edit_weight * self._nll(examples, questions)
                + self.config.scope_weight * self._scope(examples, questions, outside))

    def _nll(self, examples: Sequence[Example], questions: Sequence[str]) -> Tensor:
        model = self.side.model
        rows: list[Encoded] = []
        for example, question in zip(examples, questions, strict=True):
            request = example.request
            asked = model.encode(question, request.target, end=True)
            rows.append(self.side.in_context((request.prompt, request.target), asked))
        batch = model.collate(rows)
        return nn.functional.cross_entropy(model.target_logits(batch), batch.target)

    def _scope(self, examples: Sequence[Example], questions: Sequence[str], outside: Sequence[list[str]]) -> Tensor:
        """Out of an entry's scope are the texts of `outside`, and what the batch asks about other subjects."""
        entries = [example.request.prompt for example in examples]
        texts = list(dict.fromkeys([*entries, *questions, *(text for some in outside for text in some)]))
        place = {text: number for number, text in enumerate(texts)}
        pairs = [(entry, text) for entry, some in zip(entries, outside, strict=True) for text in some]
        pairs += [(entry, text) for entry, one in zip(entries, examples, strict=True)
                  for text, other in zip(questions, examples, strict=True)
                  if one.request.subject != other.request.subject]
        vectors = self.side.classifier([self.side.encode(text).prompt for text in texts])

        def distance(pairs: Sequence[tuple[str, str]]) -> Tensor:
            left, right = ([place[pair[end]] for pair in pairs] for end in (0, 1))
            return (vectors[left] - vectors[right]).square().sum(1)

        inside = distance(list(zip(entries, questions, strict=True))).mean()
        apart = [pair for pair in pairs if pair[0] != pair[1]]
        if not apart:
            return inside
        return inside - (-torch.expm1(-distance(apart).clamp(min=NEAREST))).log().mean()
