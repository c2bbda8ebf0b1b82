"""The model families that editors know, one entry each in `ARCHITECTURES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from editors.core.models.layouts import Architecture, Layout, Stack

SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")


def _affine(inputs: int, outputs: int, bias: bool = True) -> int:
    """Numbers in a linear map."""
    return inputs * outputs + (outputs if bias else 0)


def _whole(config: Any, block: int, rest: int, head_bias: bool = False) -> int:
    """Numbers in a decoder of such blocks, with the embeddings, the head and the `rest`."""
    table = config.vocab_size * config.hidden_size
    head = (0 if config.tie_word_embeddings else table) + (config.vocab_size if head_bias else 0)
    return int(table + config.num_hidden_layers * block + rest + head)


def _uneven(config: Any) -> str | None:
    """Why heads cannot be dealt out, where they cannot: the library would only notice when it runs."""
    heads, pairs = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    if getattr(config, "head_dim", None) is None and config.hidden_size % heads:
        return f"hidden_size ({config.hidden_size}) is no multiple of num_attention_heads ({heads})"
    if pairs and heads % pairs:
        return f"num_attention_heads ({heads}) is no multiple of num_key_value_heads ({pairs})"
    return None


# --- Llama and its kin: RMS norms, a gated FFN, grouped heads


def _llama_parameters(config: Any, *, qkv_bias: bool | None = None, out_bias: bool | None = None,
                      head_norms: str = "none", norms: int = 2, mlp_bias: bool = False) -> int:
    width, heads = config.hidden_size, config.num_attention_heads
    pairs = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or width // heads
    biased = getattr(config, "attention_bias", False)
    attention = (_affine(width, (heads + 2 * pairs) * size, biased if qkv_bias is None else qkv_bias)
                 + _affine(heads * size, width, biased if out_bias is None else out_bias))
    attention += {"none": 0, "each": 2 * size, "all": (heads + pairs) * size}[head_norms]
    ffn = 2 * _affine(width, config.intermediate_size, mlp_bias) + _affine(config.intermediate_size, width, mlp_bias)
    return _whole(config, attention + ffn + norms * width, width)


def _llama(count: Callable[[Any], int], *, activation: str = "hidden_act", up: tuple[str, ...] = ("mlp.gate_proj",),
           after: str | None = None, overflows: tuple[str, ...] = (), softcap: str | None = None,
           problem: Callable[[Any], str | None] = _uneven) -> Architecture:
    layout = Layout("model", "layers", "norm", "mlp", up, "mlp.down_proj", after=after)
    return Architecture({"decoder": layout}, activation, (*SIZES, "intermediate_size"),
                        lambda config: int(config.intermediate_size), count, gated=lambda config: True,
                        overflows=overflows, softcap=softcap, problem=problem)


def _gemma_problem(config: Any) -> str | None:
    if config.use_bidirectional_attention:
        return "use_bidirectional_attention is true, and editors read from left to right"
    return _uneven(config)


# --- GPT-J and GPT-2


def _gpt_inner(config: Any) -> int:
    return int(config.n_inner or 4 * config.n_embd)


def _gptj_parameters(config: Any) -> int:
    width, inner = config.n_embd, _gpt_inner(config)
    # Queries, keys, values and output without biases; both projections of the FFN, and one norm, with them.
    return _whole(config, 4 * width**2 + _affine(width, inner) + _affine(inner, width) + 2 * width, 2 * width,
                  head_bias=True)


def _gpt2_parameters(config: Any) -> int:
    width, inner = config.n_embd, _gpt_inner(config)
    block = _affine(width, 3 * width) + _affine(width, width) + _affine(width, inner) + _affine(inner, width)
    return _whole(config, block + 4 * width, config.n_positions * width + 2 * width)


# --- GPT-NeoX, Phi, OPT, Falcon: layer norms, a plain FFN


def _neox_parameters(config: Any) -> int:
    width, inner, bias = config.hidden_size, config.intermediate_size, config.attention_bias
    block = (_affine(width, 3 * width, bias) + _affine(width, width, bias) + _affine(width, inner)
             + _affine(inner, width) + 4 * width)
    return _whole(config, block, 2 * width)


def _phi_parameters(config: Any) -> int:
    width, inner, size = config.hidden_size, config.intermediate_size, config.hidden_size // config.num_attention_heads
    pairs = config.num_key_value_heads or config.num_attention_heads
    block = (_affine(width, width + 2 * pairs * size) + _affine(width, width) + _affine(width, inner)
             + _affine(inner, width) + 2 * width + (4 * size if config.qk_layernorm else 0))
    return _whole(config, block, 2 * width, head_bias=True)


def _opt_parameters(config: Any) -> int:
    width, inner, bias = config.hidden_size, config.ffn_dim, config.enable_bias
    norm = 2 * width if config.layer_norm_elementwise_affine else 0
    block = 4 * _affine(width, width, bias) + _affine(width, inner, bias) + _affine(inner, width, bias) + 2 * norm
    return _whole(config, block, (config.max_position_embeddings + 2) * width + norm)  # the first two are never read


def _opt_problem(config: Any) -> str | None:
    if config.word_embed_proj_dim != config.hidden_size:  # of opt-350m
        return "word_embed_proj_dim is not hidden_size, and editors take embeddings for hidden states"
    if not config.do_layer_norm_before or config._remove_final_layer_norm:
        return "it has norms after its blocks or none at the end, which editors do not know of OPT"
    return _uneven(config)


def _opt_prepare(module: Any) -> None:
    from editors.core.models.opt import give_ffns  # loads torch

    give_ffns(module.model.decoder.layers)


def _falcon_parameters(config: Any) -> int:
    width, inner, heads = config.hidden_size, config.ffn_hidden_size, config.num_attention_heads
    size, new = width // heads, config.new_decoder_architecture
    queried = (heads + 2 * config.num_kv_heads) * size if new else width + 2 * size if config.multi_query else 3 * width
    norms = 1 if config.parallel_attn and not (new and config.num_ln_in_parallel_attn != 1) else 2
    block = (_affine(width, queried, config.bias) + _affine(width, width, config.bias)
             + _affine(width, inner, config.bias) + _affine(inner, width, config.bias) + norms * 2 * width)
    return _whole(config, block, 2 * width)


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


def _t5_layout(stack: Stack, number: int, depth: str) -> Layout:
    ffn = f"layer.{number}.DenseReluDense"
    return Layout(stack, "block", "final_layer_norm", ffn, (f"{ffn}.wi", f"{ffn}.wi_0"), f"{ffn}.wo", depth)


#: By the configuration's `model_type`.
ARCHITECTURES: dict[str, Architecture] = {
    "llama": _llama(lambda config: _llama_parameters(config, mlp_bias=config.mlp_bias)),
    "mistral": _llama(_llama_parameters),
    "qwen2": _llama(lambda config: _llama_parameters(config, qkv_bias=True, out_bias=False)),
    "qwen3": _llama(lambda config: _llama_parameters(config, head_norms="each")),
    # Up and gate are one matrix: rows of the gate, then as many of the other half.
    "phi3": _llama(_llama_parameters, up=("mlp.gate_up_proj",)),
    "olmo2": _llama(lambda config: _llama_parameters(config, head_norms="all"), after="post_feedforward_layernorm"),
    "gemma2": _llama(lambda config: _llama_parameters(config, norms=4), activation="hidden_activation",
                     after="post_feedforward_layernorm", overflows=("float16",), softcap="final_logit_softcapping",
                     problem=_gemma_problem),
    "gemma3_text": _llama(lambda config: _llama_parameters(config, norms=4, head_norms="each"),
                          activation="hidden_activation", after="post_feedforward_layernorm", overflows=("float16",),
                          softcap="final_logit_softcapping", problem=_gemma_problem),
    "gptj": Architecture(
        {"decoder": Layout("transformer", "h", "ln_f", "mlp", ("mlp.fc_in",), "mlp.fc_out")},
        activation="activation_function",
        sizes=("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "rotary_dim"), inner=_gpt_inner,
        parameters=_gptj_parameters, parallel=lambda config: True,
        # Heads that do not divide the width are refused by the library.
        limits=lambda config: {} if config.n_embd % config.n_head else {"rotary_dim": config.n_embd // config.n_head}),
    "gpt2": Architecture(
        {"decoder": Layout("transformer", "h", "ln_f", "mlp", ("mlp.c_fc",), "mlp.c_proj", positions="wpe")},
        activation="activation_function", sizes=("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"),
        inner=_gpt_inner, parameters=_gpt2_parameters),
    "gpt_neox": Architecture(
        {"decoder": Layout("gpt_neox", "layers", "final_layer_norm", "mlp", ("mlp.dense_h_to_4h",),
                           "mlp.dense_4h_to_h")},
        activation="hidden_act", sizes=(*SIZES, "intermediate_size"),
        inner=lambda config: int(config.intermediate_size), parameters=_neox_parameters, problem=_uneven,
        parallel=lambda config: bool(config.use_parallel_residual),
        renamed={"embed_out.": "lm_head."}),
    "opt": Architecture(
        {"decoder": Layout("model.decoder", "layers", "final_layer_norm", "ffn", ("fc1",), "fc2",
                           positions="embed_positions")},
        activation="activation_function", sizes=(*SIZES, "ffn_dim"), inner=lambda config: int(config.ffn_dim),
        parameters=_opt_parameters, problem=_opt_problem, prepare=_opt_prepare),
    "phi": Architecture(
        {"decoder": Layout("model", "layers", "final_layernorm", "mlp", ("mlp.fc1",), "mlp.fc2")},
        activation="hidden_act", sizes=(*SIZES, "intermediate_size"),
        inner=lambda config: int(config.intermediate_size), parameters=_phi_parameters, problem=_uneven,
        parallel=lambda config: True),
    "falcon": Architecture(
        {"decoder": Layout("transformer", "h", "ln_f", "mlp", ("mlp.dense_h_to_4h",), "mlp.dense_4h_to_h")},
        activation="activation", sizes=(*SIZES, "ffn_hidden_size"), inner=lambda config: int(config.ffn_hidden_size),
        parameters=_falcon_parameters, problem=_uneven,
        parallel=lambda config: bool(config.parallel_attn or config.new_decoder_architecture),
        alibi=lambda config: bool(config.alibi)),
    "t5": Architecture(
        {"decoder": _t5_layout("decoder", 2, "num_decoder_layers"), "encoder": _t5_layout("encoder", 1, "num_layers")},
        activation="dense_act_fn",
        sizes=("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads",
               "relative_attention_num_buckets", "relative_attention_max_distance"),
        inner=lambda config: int(config.d_ff), own_head=_t5_own_head, parameters=_t5_parameters,
        gated=lambda config: bool(config.is_gated_act),
        overflows=("float16",), tokens=("decoder_start_token_id", "eos_token_id")),
}
