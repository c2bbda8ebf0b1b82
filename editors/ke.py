"""KE: a recurrent network reads what is to change and gates the edit's gradient (De Cao et al. 2021, section 4, as
ported by Mitchell et al. 2022a)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from editors.core.examples import Example
from editors.core.methods.hyper_editor import HyperEditor, HyperTrainee
from editors.core.methods.hypernetwork import Factors, HyperConfig, Hypernetwork, Matrix, Update, matrices
from editors.core.methods.writing import write
from editors.core.models.architectures import Shape
from editors.core.models.model import LanguageModel
from editors.core.requests import EditRequest


class KEConfig(HyperConfig):
    """The settings of practice, and of the network that reads what is to change."""

    condition: Literal["answers", "prompt"] = "answers"
    """What the network reads: `answers` is "{old answer} >> {new answer} || {prompt}" (De Cao et al. 2021, section 4),
    as it also is in EasyEdit; `prompt` is prompt and new answer (Mitchell et al. 2022a, published code, for GPT
    models)."""

    lstm_width: PositiveInt = 512
    """Width of the LSTM, in each direction. Mitchell et al. 2022a, published code."""

    condition_width: PositiveInt = 768
    """Width of the condition that the LSTM's states become. Mitchell et al. 2022a, published code."""

    hidden_width: PositiveInt = 512
    """Width of the layer between the condition and each matrix's gates. Mitchell et al. 2022a, published code."""

    max_scale: PositiveFloat = 1.0
    """Factor of the update, at most. The gates over a matrix's rows sum to 1, so that wide ones hardly change with the
    published 1. De Cao et al. 2021; Yao et al. 2023, appendix A."""


class KENetwork(Hypernetwork):
    """One LSTM for all matrices, and for each a conditioner that makes its gates."""

    in_half = ("",)  # all

    def __init__(self, model: LanguageModel, edited: Sequence[Matrix], config: KEConfig) -> None:
        super().__init__()
        self.matrices, self.config, self.model = edited, config, model
        tokens, width = model.weights.shape(model.input_table)
        self.embedding = nn.Embedding(tokens, width)
        self.lstm = nn.LSTM(self.embedding.embedding_dim, config.lstm_width, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(2 * config.lstm_width, config.condition_width)
        self.conditioners = nn.ModuleList(
            nn.Sequential(weight_norm(nn.Linear(config.condition_width, config.hidden_width)), nn.Tanh(),
                          weight_norm(nn.Linear(config.hidden_width, 2 * (matrix.inputs + matrix.outputs) + 1)))
            for matrix in edited)

    def forward(self, factors: Mapping[str, Factors], requests: Sequence[EditRequest]) -> dict[str, Update]:
        """ΔW = max_scale sigmoid(η) [G ⊙ (softmax(p) qᵀ) + softmax(p') q'ᵀ] for the gradient G = Σ_t g_t x_tᵀ, p and p'
        over the outputs and q and q' over the inputs. It is never made whole: G ⊙ (p qᵀ) = Σ_t (p ⊙ g_t)(q ⊙ x_t)ᵀ."""
        condition = self.read(requests)
        updates = {}
        for matrix, conditioner in zip(self.matrices, self.conditioners, strict=True):
            sizes = [matrix.inputs, matrix.outputs, matrix.inputs, matrix.outputs, 1]
            q, p, own_q, own_p, eta = conditioner(condition)[:, None].split(sizes, -1)
            x, grad, real = factors[matrix.path]
            # max_scale sigmoid(η) Σ_t (softmax(p) ⊙ g_t)(q ⊙ x_t)ᵀ, a rank for every token, and softmax(p') q'ᵀ
            scale = self.config.max_scale * eta.sigmoid()
            updates[matrix.path] = Update(scale * torch.cat([p.softmax(-1) * grad, own_p.softmax(-1)], 1),
                                          torch.cat([q * x, own_q], 1),
                                          torch.cat([real, real.new_ones(len(real), 1)], 1))
        return updates

    def read(self, requests: Sequence[EditRequest]) -> Tensor:
        """The condition c = tanh(A h + a) [requests, condition width], h the LSTM's final state in both directions."""
        texts = [torch.tensor(self.tokens(request), device=self.model.device) for request in requests]
        lengths = torch.tensor([len(text) for text in texts])
        embedded = self.embedding(pad_sequence(texts, batch_first=True))
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        _, (final, _) = self.lstm(packed)
        condition: Tensor = self.linear(final.transpose(0, 1).flatten(1)).tanh()
        return condition

    def tokens(self, request: EditRequest) -> tuple[int, ...]:
        if self.config.condition == "prompt":
            encoded = self.model.encode(request.prompt, request.target)
            return encoded.prompt + encoded.target
        return self.model.tokenise(f"{request.target_true} >> {request.target} || {request.prompt}")


class KE(HyperEditor[KEConfig]):
    """Gates the gradient row by row and column by column, and adds a rank of its own; a joint edit is the sum."""

    name = "ke"
    version = 2
    Config = KEConfig

    @classmethod
    def network_numbers(cls, config: KEConfig, of: Shape) -> float:
        lstm = 2 * 4 * config.lstm_width * (of.width + config.lstm_width)
        return of.vocabulary * of.width + lstm + config.matrices * config.hidden_width * (
            config.condition_width + 2 * (of.width + of.inner))

    @classmethod
    def build(cls, model: LanguageModel, config: KEConfig) -> KENetwork:
        return KENetwork(model, matrices(model, config), config)

    @classmethod
    def begin(cls, trainee: HyperTrainee, examples: Sequence[Example], seed: int) -> None:
        """The token embeddings start as the model's."""
        assert isinstance(trainee.module, KENetwork)
        table = trainee.model.input_table
        with trainee.model.weights.whole(table):
            trainee.module.embedding.weight.data.copy_(table)

    @classmethod
    def complete(cls, model: LanguageModel, config: KEConfig,
                 requests: Sequence[EditRequest]) -> list[EditRequest]:
        return with_answers(model, requests) if config.condition == "answers" else list(requests)


def with_answers(model: LanguageModel, requests: Sequence[EditRequest]) -> list[EditRequest]:
    """The requests, those without an old answer with the model's own: greedy, up to its end token and no longer than
    the new one."""
    asked = [model.encode(request.prompt, request.target) for request in requests]
    lengths = [len(row.target) if request.target_true is None else 0
               for request, row in zip(requests, asked, strict=True)]
    answers = write(model, [row.prompt for row in asked], lengths, lambda logits: logits.argmax(-1),
                    end=model.tokenizer.eos_token_id)
    return [request if request.target_true is not None else
            replace(request, target_true=str(model.tokenizer.decode(list(answer), skip_special_tokens=True)).strip())
            for request, answer in zip(requests, answers, strict=True)]
