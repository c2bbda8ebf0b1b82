"""The model families that editors know, one entry each: where a family keeps what editors touch, and how large a model
of one of its configurations is. Nothing here needs the model, or torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from editors.core.errors import InputError

Stack = Literal["decoder", "encoder"]


@dataclass(frozen=True)
class Layout:
    """Where one stack of blocks keeps what editors touch: `ffn` is relative to a block, `up` and `down` to its FFN.

    `up` lists candidates, the first that exists counts; in a gated FFN it is the half that passes the activation.
    `depth` is the configuration's field that tells the number of blocks.
    """

    backbone: str
    blocks: str
    norm: str
    ffn: str
    up: tuple[str, ...]
    down: str
    depth: str


@dataclass(frozen=True)
class Architecture:
    """A family of models. `activation` is the configuration's field that names the FFN's activation function, `sizes`
    are those that hold positive numbers, and `tokens` those that have to hold a token's id.

    The functions are given a Hugging Face configuration: `inner` tells the width of the FFNs, `own_head` whether the
    head has a weight of its own or shares that of the token embeddings, and `parameters` how many a model has. `limits`
    tells how large some of the `sizes` may be at most. Hidden states are too large for the dtypes that `overflows`
    lists.
    """

    layouts: Mapping[Stack, Layout]
    activation: str
    sizes: tuple[str, ...]
    inner: Callable[[Any], int]
    own_head: Callable[[Any], bool]
    parameters: Callable[[Any], int]
    overflows: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    limits: Callable[[Any], Mapping[str, int]] = lambda config: {}

    def depth(self, config: Any, stack: Stack) -> int:
        """Number of blocks of a stack, 0 where the family has no such stack."""
        return int(getattr(config, self.layouts[stack].depth)) if stack in self.layouts else 0


@dataclass(frozen=True)
class Shape:
    """The size of a model: its `parameters`, the `depth` in blocks of the decoder and of the `encoder`, the `width` of
    hidden states, the `inner` width of the FFNs and the tokens of its `vocabulary`."""

    parameters: int = 0
    depth: int = 1
    width: int = 0
    inner: int = 0
    vocabulary: int = 0
    encoder: int = 0

    @staticmethod
    def of(config: Any) -> Shape:
        """Of a model with this Hugging Face configuration. No weights are read or made."""
        family = architecture(config, config.name_or_path)
        return Shape(family.parameters(config), family.depth(config, "decoder"), config.hidden_size,
                     family.inner(config), config.vocab_size, family.depth(config, "encoder"))

    def flops(self, tokens: float) -> float:
        """Floating point operations of reading so many tokens: each parameter multiplies, and adds, once a token."""
        return 2 * self.parameters * tokens


UNKNOWN = Shape()


def architecture(config: Any, name: str) -> Architecture:
    """The family of a Hugging Face configuration, that of the model `name`. Raises `InputError` for an unknown one."""
    if config.model_type not in ARCHITECTURES:
        raise InputError(f"model '{name}' is of type '{config.model_type}'; supported types: "
                         f"{', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[config.model_type]


# --- GPT-J


def _gptj_inner(config: Any) -> int:
    return int(config.n_inner or 4 * config.n_embd)


def _gptj_parameters(config: Any) -> int:
    vocabulary, width, inner = config.vocab_size, config.n_embd, _gptj_inner(config)
    # Queries, keys, values and output without biases; both projections of the FFN, and one norm, with them.
    block = 4 * width**2 + (2 * width * inner + inner + width) + 2 * width
    head = vocabulary + (0 if config.tie_word_embeddings else vocabulary * width)
    return int(vocabulary * width + config.n_layer * block + 2 * width + head)


# --- T5


def _t5_own_head(config: Any) -> bool:
    # T5 v1.1 has one, though the library ties it until a checkpoint holds another. What is left of the difference in a
    # configuration is that v1.0 scales what its head, the embeddings, reads.
    return not config.scale_decoder_outputs


def _t5_parameters(config: Any) -> int:
    width, heads = config.d_model, config.num_heads
    attention = 4 * width * heads * config.d_kv + width  # with the norm before it, and nowhere a bias
    ffn = (3 if config.is_gated_act else 2) * width * config.d_ff + width
    stack = config.relative_attention_num_buckets * heads + width  # the first block's position bias, the last norm
    blocks = config.num_layers * (attention + ffn) + config.num_decoder_layers * (2 * attention + ffn)
    tables = 2 if _t5_own_head(config) else 1
    return int(blocks + 2 * stack + tables * config.vocab_size * width)


def _t5_layout(stack: Stack, ffn: int, depth: str) -> Layout:
    return Layout(stack, "block", "final_layer_norm", f"layer.{ffn}.DenseReluDense", ("wi", "wi_0"), "wo", depth)


#: By the configuration's `model_type`.
ARCHITECTURES: dict[str, Architecture] = {
    "gptj": Architecture(
        {"decoder": Layout("transformer", "h", "ln_f", "mlp", ("fc_in",), "fc_out", "num_hidden_layers")},
        activation="activation_function",
        sizes=("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "rotary_dim"), inner=_gptj_inner,
        own_head=lambda config: not config.tie_word_embeddings, parameters=_gptj_parameters,
        # Heads that do not divide the width are refused by the library.
        limits=lambda config: {} if config.n_embd % config.n_head else {"rotary_dim": config.n_embd // config.n_head}),
    "t5": Architecture(
        {"decoder": _t5_layout("decoder", 2, "num_decoder_layers"), "encoder": _t5_layout("encoder", 1, "num_layers")},
        activation="dense_act_fn",
        sizes=("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads",
               "relative_attention_num_buckets", "relative_attention_max_distance"),
        inner=lambda config: int(config.d_ff), own_head=_t5_own_head, parameters=_t5_parameters,
        overflows=("float16",), tokens=("decoder_start_token_id", "eos_token_id")),
}
