"""Reads what flows through named modules during a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from editors.core.models.kept import Passed
from editors.core.models.model import LanguageModel


@contextmanager
def capture_inputs(model: LanguageModel, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yields a dict that each forward pass fills with the inputs of the modules at `paths`."""
    with _capture(model, paths, outputs=False) as seen:
        yield seen


@contextmanager
def capture_outputs(model: LanguageModel, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yields a dict that each forward pass fills with the outputs of the modules at `paths` (of tuples, the first)."""
    with _capture(model, paths, outputs=True) as seen:
        yield seen


class Factor(NamedTuple):
    """What a linear module's weight gradient is made of: its input x [..., in] and, by `torch.autograd.grad` with
    respect to the zero `probe` [..., out] that was added to its output, the output's gradient."""

    x: Tensor
    probe: Tensor


@contextmanager
def capture_factors(model: LanguageModel, paths: Sequence[str]) -> Iterator[dict[str, Factor]]:
    """Yields a dict that each forward pass fills with the `Factor` of the linear modules at `paths`.

    `dL/dW = sum over rows and positions of (dL/dy) xᵀ`, without the weight ever needing a gradient.
    """
    seen: dict[str, Factor] = {}
    with ExitStack() as stack:
        for path in paths:
            def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor, path: str = path) -> Tensor:
                probe = torch.zeros_like(output, requires_grad=True)
                seen[path] = Factor(args[0].detach(), probe)
                return output + probe

            stack.callback(model.submodule(path).register_forward_hook(hook).remove)
        yield seen


def pass_block(model: LanguageModel, path: str, run: Callable[[], Tensor]) -> Passed:
    """The block with the module at `path`, as `run` passes it and gives the hidden states that leave it."""
    with capture_inputs(model, [path]) as inputs, capture_outputs(model, [path]) as outputs:
        hidden = run()
    return Passed(path, inputs[path], outputs[path] if model.layout("decoder").after else None, hidden)


@contextmanager
def _capture(model: LanguageModel, paths: Sequence[str], *, outputs: bool) -> Iterator[dict[str, Tensor]]:
    seen: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for path in paths:
            def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...],
                     path: str = path) -> None:
                value = output if outputs else args
                value = value if isinstance(value, Tensor) else value[0]
                seen[path] = value.clone() if outputs else value  # Falcon's blocks go on writing into what an FFN gave

            stack.callback(model.submodule(path).register_forward_hook(hook).remove)
        yield seen
