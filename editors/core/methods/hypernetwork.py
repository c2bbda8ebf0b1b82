"""What KE and MEND share: a network turns the gradient of an edit into low-rank updates of chosen FFN matrices (De Cao
et al. 2021, section 4; Mitchell et al. 2022a, section 3). `hyper_editor` trains one, and edits with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from editors.core.methods.training import TrainingConfig
from editors.core.models.batches import Batch, BlockRef
from editors.core.models.capture import capture_factors
from editors.core.models.layouts import Stack
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import LowRank, Patch
from editors.core.requests import EditRequest


class HyperConfig(TrainingConfig):
    """Which matrices are edited, both projections of an FFN each, and how edits are practised.

    The loss of an edit that is practised is `edit_weight · NLL + locality_weight · KL`.
    """

    layers: tuple[int, ...] = Field(min_length=1)
    """Blocks of the decoder whose FFNs are edited, counted from 0. Mitchell et al. 2022a, published configuration: the
    last three of GPT-J, the last two of a T5."""

    encoder_layers: tuple[int, ...] = ()
    """Likewise, of a T5's encoder. Mitchell et al. 2022a, published configuration: the last two."""

    outer: Literal["rephrase", "inner"] = "rephrase"
    """Where the new answer is asked for in practice: after a paraphrase (Mitchell et al. 2022a, section 3.2), or after
    the edit's own prompt (EasyEdit's code)."""

    edit_weight: PositiveFloat = 0.1
    """Weight of the new answer's negative log-likelihood in the loss. Mitchell et al. 2022a, published
    configuration."""

    locality_weight: PositiveFloat = 1.0
    """Weight of the divergence from the unedited model's answers in the loss. Mitchell et al. 2022a, published
    configuration."""

    unchanged: PositiveInt = 1
    """Questions of each example, at most, on which the divergence is taken. Mitchell et al. 2022a, published
    configuration."""

    cache_bytes: NonNegativeInt = 2**30
    """Most bytes of hidden states, below the lowest edited block, that training keeps, and no more than a quarter of
    what is free; results do not depend on it. Ours."""

    edits_at_once: PositiveInt = 32
    """Most requests in one forward pass, which are fewer where memory is short; results do not depend on it. Ours."""

    @property
    def matrices(self) -> int:
        """How many are edited."""
        return 2 * (len(set(self.layers)) + len(set(self.encoder_layers)))

    @property
    def edited_layers(self) -> tuple[int, ...]:
        return self.layers

    @property
    def edited_encoder_layers(self) -> tuple[int, ...]:
        return self.encoder_layers


class Matrix(NamedTuple):
    """An edited weight [outputs, inputs] and the stack it is in."""

    path: str
    stack: Stack
    inputs: int
    outputs: int


class Factors(NamedTuple):
    """Edits at one matrix: inputs x [edits, length, in], the loss's gradient by the outputs [edits, length, out], and
    which tokens have both [edits, length]. Elsewhere both are 0. dL/dW = Σ_t grad_t x_tᵀ."""

    x: Tensor
    grad: Tensor
    real: Tensor


class Update(NamedTuple):
    """Edits of one matrix: ΔW = Σ_k a_k b_kᵀ with a [edits, rank, out], b [edits, rank, in]. Terms that are not
    `real` [edits, rank] are 0."""

    a: Tensor
    b: Tensor
    real: Tensor


class Hypernetwork(nn.Module, ABC):
    """From factors, and what is asked for, to updates; both by module path."""

    #: Endings of the names of weights that artefacts hold in half precision.
    in_half: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(self, factors: Mapping[str, Factors], requests: Sequence[EditRequest]) -> dict[str, Update]: ...

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters())}]


# --- factors and updates


def matrices(model: LanguageModel, config: HyperConfig) -> list[Matrix]:
    """The matrices a configuration names, the encoder's first."""
    places = [*(BlockRef("encoder", layer) for layer in config.encoder_layers),
              *(BlockRef("decoder", layer) for layer in config.layers)]
    found = []
    for stack, layer in dict.fromkeys(places):
        for path in (model.up_path(layer, stack), model.down_path(layer, stack)):
            outputs, inputs = model.matrix(path)
            found.append(Matrix(path, stack, inputs, outputs))
    return found


def first_block(model: LanguageModel, config: HyperConfig) -> BlockRef:
    """Up to where nothing of a forward pass can change; behind an encoder, the decoder reads the edited states."""
    if model.has_encoder:
        return BlockRef("encoder", min(config.encoder_layers, default=model.depth_of("encoder")))
    return BlockRef("decoder", min(config.layers))


def read_factors(model: LanguageModel, edited: Sequence[Matrix], batch: Batch, run: Callable[[Batch], Tensor],
                 total: int | None = None) -> dict[str, Factors]:
    """Factors of every row by itself, in fp32; `run` makes the final states.

    A row's loss is the mean NLL of its target tokens; with `total`, the sum over `total`, for a mean over many rows.
    """
    with torch.enable_grad(), capture_factors(model, [matrix.path for matrix in edited]) as found:
        nll = model.target_nll(run(batch), batch)
        # L = 1/T Σ_t -log p(o_t | p, o_<t) of each row, or that of all rows' tokens over `total`
        counts = torch.bincount(batch.row, minlength=len(batch.input_ids))
        loss = (nll / counts[batch.row]).sum() if total is None else nll.sum() / total
        # g_t = dL/dy_t at every token of every row, so that dL/dW = Σ_t g_t x_tᵀ
        grads = torch.autograd.grad(loss, [found[matrix.path].probe for matrix in edited])
    factors = {}
    for matrix, grad in zip(edited, grads, strict=True):
        x, grad = found[matrix.path].x.float(), grad.float()
        mask = batch.attention_mask
        if matrix.stack == "encoder":
            assert batch.source is not None
            mask = batch.source.attention_mask
        real = mask.bool() & (x != 0).any(-1) & (grad != 0).any(-1)
        factors[matrix.path] = Factors(x * real[..., None], grad * real[..., None], real)
    return factors


def patches(updates: Mapping[str, Update], info: Mapping[str, Any]) -> list[Patch]:
    """One patch per edit."""
    count = max(len(update.real) for update in updates.values())
    return [Patch(tuple(LowRank(path, update.a[edit, real].T.detach(), update.b[edit, real].T.detach())
                        for path, update in updates.items() if (real := update.real[edit]).any()), info)
            for edit in range(count)]


@contextmanager
def updated(model: LanguageModel, updates: Mapping[str, Update], rows: Tensor) -> Iterator[None]:
    """Inside, row i of every batch sees edit `rows[i]`: `overlay` without a loop over edits, for training."""
    with ExitStack() as stack:
        for path, update in updates.items():
            a, b = update.a[rows], update.b[rows]

            def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor, a: Tensor = a,
                     b: Tensor = b) -> Tensor:
                # y + Σ_k a_k (b_k · x)
                return (output + args[0].to(b.dtype) @ b.mT @ a).to(output.dtype)

            stack.callback(model.submodule(path).register_forward_hook(hook).remove)
        yield
