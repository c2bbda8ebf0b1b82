"""Reads what flows through named modules during a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from editors.core.models import LanguageModel


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


@contextmanager
def _capture(model: LanguageModel, paths: Sequence[str], *, outputs: bool) -> Iterator[dict[str, Tensor]]:
    seen: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for path in paths:
            def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...],
                     path: str = path) -> None:
                value = output if outputs else args
                seen[path] = value if isinstance(value, Tensor) else value[0]

            stack.callback(model.submodule(path).register_forward_hook(hook).remove)
        yield seen
