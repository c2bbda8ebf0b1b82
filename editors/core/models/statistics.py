"""Second moments of FFN keys: `C = E[k kᵀ]` over the tokens of a text, for ROME's and MEMIT's closed forms (Meng et al.
2022, Eq. 2; Meng et al. 2023, Eq. 15)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from editors.core.errors import InputError
from editors.core.files import Slot, all_finite, damaged, misfit, read_header, read_tensor, read_tensors, write_tensors
from editors.core.headers import MomentsHeader
from editors.core.memory import TEXT_TOKENS
from editors.core.models.batches import BlockRef, Encoded, by_length
from editors.core.models.capture import capture_inputs
from editors.core.models.model import LanguageModel
from editors.core.models.shards import WHOLE, Shard

EMPTY = "the text for second moments is empty"
STRETCH = 16  # passes over texts that are sorted by length together


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


def second_moments(model: LanguageModel, layers: Sequence[int], texts: Iterable[str], tokens: int,
                   shard: Shard = WHOLE) -> dict[str, SecondMoment]:
    """Moments, by module path, of the inputs of the down-projections of `layers` over `tokens` tokens of `texts`, or a
    shard of them.

    One pass for all layers, through the blocks it takes. Sums are kept in fp64. Texts longer than the model reads are
    cut; the text that reaches the budget is kept whole. A shard may find no text left: then its sums are zero. Raises
    `InputError` where the whole has none.
    """
    paths = [model.down_path(layer) for layer in layers]
    totals = {path: _zeros(model, path) for path in paths}
    count = 0
    for rows in _batches(model, shard.texts(texts), shard.tokens(tokens)):
        batch = model.collate(rows)
        real = batch.attention_mask.bool()
        with torch.no_grad(), capture_inputs(model, paths) as inputs:
            model.run_to(batch, BlockRef("decoder", max(layers) + 1))
        for path in paths:
            _add_products(totals[path], inputs[path][real].float())
        count += int(real.sum())
    if not count and shard == WHOLE:
        raise InputError(EMPTY)
    for total in totals.values():
        _mirror(total)
    return {path: SecondMoment(count, total) for path, total in totals.items()}


def _zeros(model: LanguageModel, path: str) -> Tensor:
    inner = model.matrix(path)[1]
    return torch.zeros(inner, inner, dtype=torch.float64, device=model.device)


def _strips(side: int) -> Iterator[slice]:
    """The rows of a square, in strips of an eighth."""
    step = math.ceil(side / 8)
    return (slice(start, start + step) for start in range(0, side, step))


def _add_products(total: Tensor, keys: Tensor) -> None:
    """Adds the sum of k kᵀ over `keys` [n, m] to `total` [m, m], of each strip what is not left of its first column:
    little more than half the products, as the sum is symmetric."""
    for strip in _strips(len(total)):
        # Σ k kᵀ of the batch, then added in fp64; += would copy the sums on themselves
        total[strip, strip.start:].add_(keys[:, strip].T @ keys[:, strip.start:])


def _mirror(total: Tensor) -> None:
    """Fills what `_add_products` left out."""
    for strip in _strips(len(total)):
        total[strip.stop:, strip] = total[strip, strip.stop:].T


def sum_moments(files: Sequence[Path]) -> dict[str, SecondMoment]:
    """The sum of the moments that `save_moments` wrote to these files, in their order; beside it, one tensor of one
    file is in memory at a time. Raises `InputError` where none of them has seen a text, or they are of other modules.
    """
    counts = [read_header(file, MomentsHeader).counts for file in files]
    names = list(counts[0])
    if any(each.keys() != counts[0].keys() for each in counts):
        raise InputError(f"the second moments in '{files[0].parent}' are of other modules: they do not add")
    if not all(sum(each[name] for each in counts) for name in names):
        raise InputError(EMPTY)
    summed = {}
    for name in names:
        total = _read_total(files[0], name).clone()  # what is read may be the file itself
        for file in files[1:]:
            more = _read_total(file, name)
            if more.shape != total.shape:  # the sum of one number and many would be many
                raise InputError(f"the second moments of '{name}' in '{files[0]}' and '{file}' are of other modules: "
                                 "they do not add")
            total.add_(more)
        summed[name] = SecondMoment(sum(each[name] for each in counts), total)
    return summed


def _read_total(path: Path, name: str) -> Tensor:
    """One of the sums in a file. Raises `InputError` like `load_moments`."""
    total = read_tensor(path, MomentsHeader, name)
    _refuse_others(path, {name: total}, [name])
    return total


def _refuse_others(path: Path, totals: Mapping[str, Tensor], names: Iterable[str]) -> None:
    """Raises `InputError` unless there is a square for each of these names."""
    sides = {name: len(totals[name]) if name in totals and totals[name].ndim else None for name in names}
    if problem := misfit(totals, {name: Slot(torch.float64, (side, side)) for name, side in sides.items()}):
        raise damaged(path, MomentsHeader, problem)


def tokens_of(moments: Mapping[str, SecondMoment]) -> int:
    """How many tokens moments of one pass over a text were taken over."""
    return max(moment.count for moment in moments.values())


def _batches(model: LanguageModel, texts: Iterable[str], tokens: int) -> Iterator[list[Encoded]]:
    """Texts until they have `tokens` tokens, those of a similar length together. They are too many to be sorted: a
    stretch of them is."""
    budget = model.at_once(TEXT_TOKENS, model.bytes.passing)
    for stretch in _stretches(_encoded(model, texts), tokens, STRETCH * budget):
        for group in by_length([len(row) for row in stretch], budget):
            yield [stretch[number] for number in group]


def _encoded(model: LanguageModel, texts: Iterable[str]) -> Iterator[Encoded]:
    """Texts as the model reads them, but those that it reads as nothing."""
    limit = model.max_length or 2048
    for text in texts:
        if plain := tuple(model.tokenizer.encode(text, add_special_tokens=False)):
            yield Encoded((model.start + plain)[:limit], ())


def _stretches(rows: Iterable[Encoded], tokens: int, most: int) -> Iterator[list[Encoded]]:
    """The rows up to the one that reaches `tokens` tokens, in lists, each up to the one that reaches `most`."""
    stretch: list[Encoded] = []
    seen = held = 0
    for row in rows:
        stretch.append(row)
        seen, held = seen + len(row), held + len(row)
        if seen >= tokens:
            break
        if held >= most:
            yield stretch
            stretch, held = [], 0
    if stretch:
        yield stretch


def save_moments(moments: dict[str, SecondMoment], path: Path) -> None:
    """Writes moments to one safetensors file, atomically."""
    write_tensors(path, MomentsHeader(counts={name: moment.count for name, moment in moments.items()}),
                  {name: moment.total for name, moment in moments.items()})


def load_moments(path: Path) -> dict[str, SecondMoment]:
    """Reads a file written by `save_moments`. Raises `InputError` for any other file."""
    header, tensors = read_tensors(path, MomentsHeader)
    _refuse_others(path, tensors, header.counts)
    return {name: SecondMoment(header.counts[name], total) for name, total in tensors.items()}


class KeySolver:
    """Solves `(C + r s I) x = k` in fp64 by one Cholesky factor, s the mean of C's diagonal and r the `ridge`.

    The ridge grows tenfold, with a warning, until the factor exists, which a C of fewer keys than dimensions needs.
    Raises `InputError` for moments that are zero or not finite.
    """

    def __init__(self, moment: SecondMoment, ridge: float = 1e-8) -> None:
        mean = moment.mean
        scale = float(mean.diagonal().mean())
        if not 0 < scale < math.inf or not all_finite(mean):  # else no ridge would ever be high enough
            raise InputError("the second moment is zero or not finite: no key statistics to solve with. Take them from "
                             "another text, or with the model in float32")
        asked = ridge
        while True:
            # C + r s I = L Lᵀ
            ridged = mean.clone()
            ridged.diagonal().add_(ridge * scale)
            self.factor, failed = torch.linalg.cholesky_ex(ridged)
            if not int(failed):
                break
            ridge *= 10
        if ridge > asked:
            warnings.warn(f"a second moment of {moment.count:,} keys of {len(mean):,} numbers could only be solved "
                          f"with a ridge of {ridge:.0e} of its mean diagonal; take it from more text", stacklevel=2)
        self.ridge = ridge

    def put(self, device: torch.device) -> None:
        """Where the factor lies while nothing is solved."""
        self.factor = self.factor.to(device)

    def solve(self, keys: Tensor) -> Tensor:
        """`C⁻¹ keys` in fp64, for keys [m, n], on their device."""
        return torch.cholesky_solve(keys.double(), self.factor.to(keys.device))
