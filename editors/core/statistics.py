"""Second moments of FFN keys: `C = E[k kᵀ]` over the tokens of a text, for ROME's and MEMIT's closed forms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from editors.core.batches import Encoded, Place
from editors.core.capture import capture_inputs
from editors.core.errors import InputError
from editors.core.models import LanguageModel
from editors.core.tensorfiles import read_tensors, write_tensors

KIND = "second moments"  # of a file
VERSION = 1  # grows when moments of the same text change
BATCH_TOKENS = 2048


@dataclass(frozen=True, eq=False)
class SecondMoment:
    """`total` [m, m] is the sum of k kᵀ over `count` keys. Moments of disjoint texts add."""

    count: int
    total: Tensor

    def __add__(self, other: SecondMoment) -> SecondMoment:
        return SecondMoment(self.count + other.count, self.total + other.total)

    def to(self, device: torch.device | str) -> SecondMoment:
        return SecondMoment(self.count, self.total.to(device))

    @property
    def mean(self) -> Tensor:
        """E[k kᵀ] in fp64."""
        return self.total.double() / max(self.count, 1)


def second_moments(model: LanguageModel, layers: Sequence[int], texts: Iterable[str],
                   tokens: int) -> dict[str, SecondMoment]:
    """Moments, by module path, of the inputs of the down-projections of `layers` over `tokens` tokens of `texts`.

    One pass for all layers, through the blocks it takes. Sums are kept in fp64. Texts longer than the model reads are
    cut; the text that reaches the budget is kept whole.
    """
    paths = [model.down_path(layer) for layer in layers]
    totals: dict[str, Tensor] = {}
    count = 0
    for rows in _batches(model, texts, tokens):
        batch = model.collate(rows)
        real = batch.attention_mask.bool()
        with torch.no_grad(), capture_inputs(model, paths) as inputs:
            model.halt(batch, Place("decoder", max(layers) + 1))
        for path in paths:
            keys = inputs[path][real].float()
            update = (keys.T @ keys).double()
            totals[path] = totals[path] + update if path in totals else update
        count += int(real.sum())
    if not count:
        raise InputError("the text for second moments is empty")
    return {path: SecondMoment(count, total) for path, total in totals.items()}


def _batches(model: LanguageModel, texts: Iterable[str], tokens: int) -> Iterator[list[Encoded]]:
    limit = model.max_length or 2048
    rows: list[Encoded] = []
    seen = 0
    for text in texts:
        ids = tuple(model.tokenizer.encode(text, add_special_tokens=False)[:limit])
        if not ids:
            continue
        rows.append(Encoded(ids, ()))
        seen += len(ids)
        if max(map(len, rows)) * len(rows) >= BATCH_TOKENS or seen >= tokens:
            yield rows
            rows = []
        if seen >= tokens:
            return
    if rows:
        yield rows


def save_moments(moments: dict[str, SecondMoment], path: Path) -> None:
    """Writes moments to one safetensors file, atomically."""
    write_tensors(path, KIND, {"counts": {name: moment.count for name, moment in moments.items()}},
                  {name: moment.total for name, moment in moments.items()})


def load_moments(path: Path) -> dict[str, SecondMoment]:
    """Reads a file written by `save_moments`. Raises `InputError` for any other file."""
    header, tensors = read_tensors(path, KIND)
    return {name: SecondMoment(header["counts"][name], total) for name, total in tensors.items()}


class KeySolver:
    """Solves `(C + ridge) x = k` in fp64 by one cached Cholesky factor of C.

    `ridge` is relative to the mean of C's diagonal; it grows tenfold until the factor exists, which a C from fewer
    keys than dimensions needs.
    """

    def __init__(self, moment: SecondMoment, ridge: float = 1e-8) -> None:
        mean = moment.mean
        scale = float(mean.diagonal().mean())
        if not 0 < scale < math.inf:
            raise InputError("the second moment is zero or not finite: no key statistics to solve with. Take them from "
                             "another text, or with the model in float32")
        while True:
            ridged = mean.clone()
            ridged.diagonal().add_(ridge * scale)
            self.factor, failed = torch.linalg.cholesky_ex(ridged)
            if not int(failed):
                break
            ridge *= 10
        self.ridge = ridge

    def solve(self, keys: Tensor) -> Tensor:
        """`C⁻¹ keys` in fp64, for keys [m, n]."""
        return torch.cholesky_solve(keys.to(self.factor), self.factor)
