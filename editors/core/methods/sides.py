"""The two models that answer for an edited one in SERAC: a scope classifier, and a small counterfactual model. Both are
given by name, or made from the edited model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from editors.core.editor import EditorConfig
from editors.core.errors import InputError
from editors.core.models.architectures import Shape
from editors.core.models.checkpoint import Checkpoint
from editors.core.models.configuration import LIBRARY_CODE, library_config
from editors.core.models.fitting import HEAD, read_weights
from editors.core.models.hub import model_folder
from editors.core.models.loading import fetched_weights, find_model, load_config, load_model, load_tokenizer
from editors.core.models.model import LanguageModel
from editors.core.patches.route import Classifier, SideModel, Tokens

CLASSIFIER = "classifier"
HEAD_WIDTH = 32  # of the small classifier's attention
LONGEST = 512  # tokens a classifier reads of a prompt


class SideConfig(EditorConfig):
    """Which two models answer for the edited one."""

    models: ClassVar[tuple[str, ...]] = ("classifier", "side_model")

    classifier: str | None = None
    """Hub name or folder of an encoder, such as DistilBERT (Mitchell et al. 2022b); without it, a DistilBERT is made
    that reads the edited model's tokens, and starts from nothing but its token embeddings, where they are as wide."""

    side_model: str | None = None
    """Hub name or folder of a model that has the edited one's token ids (Yao et al. 2023, appendix A: t5-small, and
    architext/gptj-162M); without it, the edited model's first blocks, embeddings and head are copied."""

    classifier_layers: PositiveInt = 2
    """Blocks of the classifier that is made. Ours."""

    classifier_width: PositiveInt = Field(256, multiple_of=HEAD_WIDTH)
    """Width of the classifier that is made. Ours."""

    side_layers: PositiveInt = 2
    """Blocks, of each stack, of the side model that is made. Ours."""

    entry: Literal["question", "answered"] = "question"
    """What the classifier sees of a memory entry: its `question`, as it is cut to in the published code for GPT models,
    or `answered`, with its answer, as there for sequence-to-sequence models. Mitchell et al. 2022b, published code."""


def check_sides(config: SideConfig, model_config: Any) -> None:
    """Raises `InputError` where the two models are missing, or do not go with a model of this Hugging Face
    configuration. Reads no weights."""
    shape = Shape.of(model_config)
    layers = min(shape.depth, shape.encoder or shape.depth)
    if config.side_model is not None:
        _of_kind(config.side_model, find_model(config.side_model, weights=False).config, model_config.model_type)
    elif config.side_layers > layers:
        raise InputError(f"configuration of editor 'serac': side_layers {config.side_layers} is more than the "
                         f"{layers} layers of the model")
    if config.classifier is not None:
        folder = model_folder(config.classifier, weights=False, what=CLASSIFIER)
        library_config(folder)
        load_tokenizer(folder)
        with folder.reading():
            fetched_weights(folder)  # raises where they are damaged


def build(model: LanguageModel, config: SideConfig, learned: Mapping[str, Tensor] | None = None) -> SideModel:
    """A side for a model, ready to be trained, in fp32. To be filled with `learned`, it leaves the weights that
    training changes as they come: of models by name nothing but configurations and tokenizers is read."""
    c = _shortened(model, config.side_layers) if config.side_model is None else _named(model, config, learned)
    g = _small_classifier(model, config) if config.classifier is None else _encoder(model, config, learned)
    g.module.eval().requires_grad_().to(model.device)
    return SideModel(c, g, answered=config.entry == "answered")


def _blank(model: LanguageModel, config: Any, *, tied: bool) -> Any:
    """A module of a model's class, its head tied to its embeddings or not."""
    module = type(model.module)(config)
    head = module.get_output_embeddings()
    # The library ties a T5's head always, and many a checkpoint's is not.
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
    model.architecture.shorten(config, layers)
    module = _blank(model, config, tied=model.output_table is model.input_table)
    weights = dict(model.module.named_parameters(remove_duplicate=False))
    for name, copied in module.named_parameters(remove_duplicate=False):
        with model.weights.whole(weights[name]):
            copied.data.copy_(weights[name])
    return _wrap(model, module, f"{layers} layers of {model.name}")


def _named(model: LanguageModel, config: SideConfig, learned: Mapping[str, Tensor] | None) -> LanguageModel:
    """A side model by name. Raises `InputError` unless it is of the model's kind and reads its tokens."""
    name = config.side_model
    assert name is not None
    found = load_config(name)
    _of_kind(name, found, model.module.config.model_type)
    if learned is not None:
        return _wrap(model, _blank(model, found, tied=f"model.{HEAD}" not in learned), name)
    side = load_model(name)
    ids, added = side.tokenizer.get_vocab(), model.tokenizer.get_added_vocab()
    if strange := next((token for token, number in model.tokenizer.get_vocab().items()
                        if ids.get(token, added.get(token)) != number), None):
        raise InputError(f"side model '{name}' has other token ids than '{model.name}', first for '{strange}'; "
                         "take one that was trained with the same tokenizer")
    return _wrap(model, side.module, name)


def _of_kind(name: str, config: Any, wanted: str) -> None:
    if config.model_type != wanted:
        raise InputError(f"side model '{name}' is of type '{config.model_type}', and the edited model of type "
                         f"'{wanted}'; both have to read the same tokens")


def _small_classifier(model: LanguageModel, config: SideConfig) -> Classifier:
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


def _encoder(model: LanguageModel, config: SideConfig, learned: Mapping[str, Tensor] | None) -> Classifier:
    """An encoder by name; it reads a prompt's text."""
    from transformers import AutoModel

    assert config.classifier is not None
    folder = model_folder(config.classifier, weights=learned is None, what=CLASSIFIER)
    found = library_config(folder)
    with folder.reading():
        if learned is None:
            Checkpoint.of(folder)  # likewise
        module = (read_weights(AutoModel, folder, partly=True, config=found) if learned is None
                  else AutoModel.from_config(found, **LIBRARY_CODE))
    tokenizer = load_tokenizer(folder)

    def read(prompt: Tokens) -> Sequence[int]:
        ids: list[int] = tokenizer(model.text_of(prompt), truncation=True, max_length=LONGEST)["input_ids"]
        return ids

    return Classifier(module.float(), read)
