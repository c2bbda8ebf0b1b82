"""KE: a recurrent network reads what is to change and gates the edit's gradient (De Cao et al. 2021; METHODS
section 5)."""

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
from editors.core.methods.hypernetwork import (
    Factors,
    HyperConfig,
    HyperEditor,
    Hypernetwork,
    HyperTrainee,
    Matrix,
    Update,
    matrices,
)
from editors.core.models.batches import Encoded
from editors.core.models.model import LanguageModel
from editors.core.requests import EditRequest


class KEConfig(HyperConfig):
    """The network reads `{old answer} >> {new answer} || {prompt}` (`condition: answers`) or prompt and new answer
    (`prompt`, as the MEND authors' port does for GPT models). Widths are the LSTM's per direction, the condition's and
    each conditioner's. `max_scale` bounds the update's size: the softmax gates over a matrix's rows are about one over
    their number, so that wide matrices hardly change with the authors' 1."""

    condition: Literal["answers", "prompt"] = "answers"
    lstm_width: PositiveInt = 512
    condition_width: PositiveInt = 768
    hidden_width: PositiveInt = 512
    max_scale: PositiveFloat = 1.0


class KENetwork(Hypernetwork):
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
        """`dW = max_scale * sigmoid(eta) * (G * (p qᵀ) + p' q'ᵀ)`, where G is the gradient, p and p' are softmaxes
        over the outputs and q and q' are over the inputs; never made whole, for `G * (p qᵀ)` has G's rank."""
        condition = self.read(requests)
        updates = {}
        for matrix, conditioner in zip(self.matrices, self.conditioners, strict=True):
            sizes = [matrix.inputs, matrix.outputs, matrix.inputs, matrix.outputs, 1]
            q, p, own_q, own_p, eta = conditioner(condition)[:, None].split(sizes, -1)
            x, grad, real = factors[matrix.path]
            scale = self.config.max_scale * eta.sigmoid()
            updates[matrix.path] = Update(scale * torch.cat([p.softmax(-1) * grad, own_p.softmax(-1)], 1),
                                          torch.cat([q * x, own_q], 1),
                                          torch.cat([real, real.new_ones(len(real), 1)], 1))
        return updates

    def read(self, requests: Sequence[EditRequest]) -> Tensor:
        """The condition [requests, condition width]."""
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
    version = 1
    Config = KEConfig

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


@torch.no_grad()
def with_answers(model: LanguageModel, requests: Sequence[EditRequest]) -> list[EditRequest]:
    """The requests, those without an old answer with the model's own: greedy, up to its end token and no longer than
    the new one."""
    end = model.tokenizer.eos_token_id
    asked = [model.encode(request.prompt, request.target) for request in requests]
    answers: list[tuple[int, ...]] = [() for _ in requests]
    while growing := [number for number, request in enumerate(requests)
                      if request.target_true is None and len(answers[number]) < len(asked[number].target)
                      and end not in answers[number]]:
        rows = [Encoded(asked[number].prompt, (*answers[number], 0)) for number in growing]
        last = torch.tensor([len(row.target) for row in rows], device=model.device).cumsum(0) - 1
        chosen = model.own_target_logits(model.collate(rows))[last].argmax(-1)
        for number, token in zip(growing, chosen.tolist(), strict=True):
            answers[number] += (token,)
    return [request if request.target_true is not None else
            replace(request, target_true=str(model.tokenizer.decode(list(answer), skip_special_tokens=True)).strip())
            for request, answer in zip(requests, answers, strict=True)]
