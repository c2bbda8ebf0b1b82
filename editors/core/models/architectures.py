"""Which family a configuration is of, and how large its model is. Nothing here needs the model, or torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from editors.core.errors import InputError
from editors.core.models.families import ARCHITECTURES
from editors.core.models.layouts import Architecture


@dataclass(frozen=True)
class Shape:
    """The size of a model: its `parameters`, the `depth` in blocks of the decoder and of the `encoder`, the `width` of
    hidden states, the `inner` width of the FFNs and whether these are `gated`, and the tokens of its `vocabulary`."""

    parameters: int = 0
    depth: int = 1
    width: int = 0
    inner: int = 0
    vocabulary: int = 0
    encoder: int = 0
    gated: bool = False

    @staticmethod
    def of(config: Any) -> Shape:
        """Of a model with this Hugging Face configuration. No weights are read or made."""
        family = architecture(config, config.name_or_path)
        return Shape(family.parameters(config), family.depth(config, "decoder"), config.hidden_size,
                     family.inner(config), config.vocab_size, family.depth(config, "encoder"), family.gated(config))

    def flops(self, tokens: float) -> float:
        """Floating point operations of reading so many tokens: each parameter multiplies, and adds, once a token."""
        return 2 * self.parameters * tokens


UNKNOWN = Shape()


def architecture(config: Any, name: str) -> Architecture:
    """The family of a Hugging Face configuration, that of the model `name`. Raises `InputError` for an unknown one,
    with the entry that would make it known as far as its configuration tells, and for a model that editors cannot
    take although they know its family."""
    if config.model_type not in ARCHITECTURES:
        raise InputError(f"model '{name}' is of type '{config.model_type}'; supported types: "
                         f"{', '.join(sorted(ARCHITECTURES))}. Take one of those, or add the type to "
                         f"editors/core/models/families.py, for example as {_entry(config)}")
    family = ARCHITECTURES[config.model_type]
    if problem := family.problem(config):
        raise InputError(f"model '{name}' of type '{config.model_type}' cannot be edited: {problem}")
    return family


def _entry(config: Any) -> str:
    """An entry of `ARCHITECTURES`, for someone to look through who knows the model."""
    def field(*names: str) -> str:
        return next((name for name in names if getattr(config, name, None) is not None), "?")

    inner = field("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "d_ff")
    return (f"\"{config.model_type}\": Architecture({{\"decoder\": Layout(backbone=\"model\", blocks=\"layers\", "
            f"norm=\"norm\", ffn=\"mlp\", up=(\"mlp.gate_proj\",), down=\"mlp.down_proj\", "
            f"depth=\"{field('num_hidden_layers', 'n_layer', 'num_layers')}\")}}, "
            f"activation=\"{field('hidden_act', 'activation_function', 'hidden_activation', 'activation')}\", "
            f"sizes=(*SIZES, \"{inner}\"), inner=lambda config: config.{inner}, gated=lambda config: True, "
            "parameters=...), with the modules' own names")
