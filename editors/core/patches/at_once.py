"""Small terms of many patches in one product: each row of a batch gets a copy of its own term's factors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def low_rank(a: Sequence[Tensor], b: Sequence[Tensor], index: Tensor, x: Tensor) -> Tensor:
    """`(x_i b) aᵀ` for row i of x [rows, ..., in], with the factors a [out, rank] and b [in, rank] of number
    `index[i]`."""
    rank = max(factor.shape[1] for factor in b)
    flat = x.to(b[0].dtype).reshape(x.shape[0], -1, x.shape[-1])
    # where a rank is below the largest, with columns of zeros
    made = torch.bmm(torch.bmm(flat, _own(b, rank, index)), _own(a, rank, index).transpose(1, 2))
    return made.reshape(*x.shape[:-1], made.shape[2])


def neurons(keys: Sequence[Tensor], biases: Sequence[Tensor | None], gates: Sequence[Tensor] | None,
            values: Sequence[Tensor], active: Callable[[Tensor], Tensor], index: Tensor, x: Tensor) -> Tensor:
    """`(active(x_i keysᵀ + bias) * (x_i gateᵀ)) valuesᵀ` for row i of x [rows, ..., in], with what has number
    `index[i]`. Neurons that are filled in where there are fewer have a value of 0, whatever they fire."""
    count = max(map(len, keys))
    flat = x.to(keys[0].dtype).reshape(x.shape[0], -1, x.shape[-1])
    bias = [(key.new_zeros(len(key)) if own is None else own)[None] for key, own in zip(keys, biases, strict=True)]
    fired = active(torch.baddbmm(_own(bias, count, index), flat, _own([key.T for key in keys], count, index)))
    if gates is not None:
        fired = fired * torch.bmm(flat, _own([gate.T for gate in gates], count, index))
    made = torch.bmm(fired, _own(values, count, index).transpose(1, 2))
    return made.reshape(*x.shape[:-1], made.shape[2])


def _own(matrices: Sequence[Tensor], columns: int, index: Tensor) -> Tensor:
    """The matrix of each row, with as many columns."""
    return torch.stack([torch.nn.functional.pad(matrix, (0, columns - matrix.shape[1])) for matrix in matrices])[index]
