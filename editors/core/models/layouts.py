"""What editors have to know of a family of models. `families` says it of each. Nothing here needs a model, or torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Stack = Literal["decoder", "encoder"]

# Names of one activation function that the library composes of six operations, of which four keep a tensor for a
# gradient. PyTorch has it as one that keeps its input alone, and equal but for rounding: `activations` puts that there.
COMPOSED = ("gelu_new", "gelu_fast", "gelu_python_tanh")


@dataclass(frozen=True)
class Layout:
    """Where one stack of blocks keeps what editors touch: `ffn`, `up` and `down` are relative to a block.

    `up` lists candidates, the first that exists counts; in a gated FFN it is the half that passes the activation, or
    both in one. `depth` is the configuration's field that tells the number of blocks. `positions` is the backbone's
    part that adds to embeddings on their way to the first block, and `after` the norm, relative to a block, of what an
    FFN writes; families that have none leave them out.
    """

    backbone: str
    blocks: str
    norm: str
    ffn: str
    up: tuple[str, ...]
    down: str
    depth: str = "num_hidden_layers"
    positions: str | None = None
    after: str | None = None


def _tied_or_not(config: Any) -> bool:
    return not config.tie_word_embeddings


@dataclass(frozen=True)
class Architecture:
    """A family of models. `activation` is the configuration's field that names the FFN's activation function, `sizes`
    are those that hold positive numbers, and `tokens` those that have to hold a token's id.

    The functions are given a Hugging Face configuration: `inner` tells the width of the FFNs, `gated` whether they
    multiply their activations with a second, linear projection, `parallel` whether they read what their block reads and
    not what its attention has made of it, `alibi` whether attention counts positions along the row, whatever they are
    said to be, `own_head` whether the head has a weight of its own or shares that of the token embeddings, and
    `parameters` how many a model has. `limits` tells how large some of the `sizes` may be at most, and `problem` what
    keeps editors from a model of the family, if anything does. Hidden states are too large for the dtypes that
    `overflows` lists. The field `softcap` bounds logits. Old checkpoints have weights under names that begin as the
    keys of `renamed` do. `prepare` is given a module that was loaded.
    """

    layouts: Mapping[Stack, Layout]
    activation: str
    sizes: tuple[str, ...]
    inner: Callable[[Any], int]
    parameters: Callable[[Any], int]
    own_head: Callable[[Any], bool] = _tied_or_not
    gated: Callable[[Any], bool] = lambda config: False
    parallel: Callable[[Any], bool] = lambda config: False
    alibi: Callable[[Any], bool] = lambda config: False
    overflows: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    limits: Callable[[Any], Mapping[str, int]] = lambda config: {}
    problem: Callable[[Any], str | None] = lambda config: None
    softcap: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Any], None] = lambda module: None

    def depth(self, config: Any, stack: Stack) -> int:
        """Number of blocks of a stack, 0 where the family has no such stack."""
        return int(getattr(config, self.layouts[stack].depth)) if stack in self.layouts else 0

    def shorten(self, config: Any, depth: int) -> None:
        """Makes a configuration that of the first `depth` blocks of each stack."""
        for layout in self.layouts.values():
            setattr(config, layout.depth, depth)
        if kinds := getattr(config, "layer_types", None):  # of attention, one for every block
            config.layer_types = kinds[:depth]


def longest(config: Any) -> int | None:
    """Most tokens a model can read at once; None where there is no limit.

    No more than a window over which a block attends: then every block sees the whole text. No more than what rotary
    positions were trained for, either, where longer texts turn all positions another way.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    bounds = [getattr(config, "max_position_embeddings", None), getattr(config, "sliding_window", None)]
    if rope.get("rope_type") == "longrope":
        trained = "original_max_position_embeddings"
        bounds.append(rope.get(trained) or getattr(config, trained, None))
    return min((bound for bound in bounds if bound is not None), default=None)
