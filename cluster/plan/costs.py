"""What a task costs, from the model's configuration, the method and the campaign alone: a table, in seconds.

The reference device is one CPU core for models below 100 million parameters, and a V100 in half precision for others.
The CPU's rate and the counts of tokens below are those that the built-in models were measured with; the V100's rate is
a sixth of what it can do at most, and was not measured. Costs decide how tasks are cut, so **a change of this table
needs a new `COSTS_VERSION`**: stores keep the sizes that a campaign was first planned with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PretrainedConfig

from evaluators.scoring.measures import NOTHING_MORE, Measures

COSTS_VERSION = 1

SMALL = 100_000_000  # parameters
CPU_RATE, GPU_RATE = 40e9, 20e12  # floating point operations per second
DISK_RATE = 200e6  # bytes per second
TARGET = 60.0  # seconds a task should take
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # cases per task: few, so that small changes of a method change none

# Tokens read, or as many as would take the same time.
PROBES = 160  # all questions of a case
TEXT = 100  # a text of the perplexity's
HANDLED = 1  # a case whose answers are known already
REQUEST = 10  # an edit's prompt and answer, forth and back, as far as it is run before it holds
CONTEXT = 7  # likewise in one of the contexts of ROME and MEMIT, through the blocks above the edited one
TAIL = 12  # likewise through all blocks, of which CaliNET runs the last
NEURONS = 5  # likewise for T-Patcher, which runs the last block
ATTRIBUTED = 3  # an answer's tokens, forth and back through half of the blocks
HYPER = 30  # an edit's gradient and what a network makes of it
PRACTISED = 120  # a training example: the edit, and what should and should not follow from it, forth and back
SIDE = 200_000_000  # parameters of the model that SERAC trains, at most


@dataclass(frozen=True)
class Shape:
    """The size of a model: `inner` is the width of its FFNs, `depth` the blocks of one stack."""

    parameters: int = 0
    depth: int = 1
    width: int = 0
    inner: int = 0
    vocabulary: int = 0

    @staticmethod
    def of(config: PretrainedConfig) -> Shape:
        """Of a model with this configuration. No weights are read or made."""
        inner = getattr(config, "n_inner", None) or getattr(config, "d_ff", None) or 4 * config.hidden_size
        return Shape(_parameters(json.dumps(config.to_dict(), sort_keys=True, default=str)), config.num_hidden_layers,
                     config.hidden_size, inner, config.vocab_size)

    @property
    def rate(self) -> float:
        return CPU_RATE if self.parameters < SMALL else GPU_RATE

    def seconds(self, tokens: float) -> float:
        """To read so many tokens."""
        return 2 * self.parameters * tokens / self.rate


UNKNOWN = Shape()


@cache
def _parameters(config: str) -> int:
    fields = json.loads(config)
    known = AutoConfig.for_model(fields.pop("model_type"), **fields)
    make: Any = AutoModelForSeq2SeqLM if known.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        module = make.from_config(known)
    counted: int = sum(parameter.numel() for parameter in module.parameters())
    own_head = known.is_encoder_decoder and not known.scale_decoder_outputs  # a T5 v1.1's, though the library ties it
    return counted + (known.vocab_size * known.d_model if own_head else 0)


def _rows(config: Mapping[str, Any]) -> int:
    """Of one edit of ROME or MEMIT: the prompt in its contexts, bare, and what the edit should leave as it was."""
    sampled: int = sum(count for _, count in config["contexts"])
    return 2 + sampled


#: Tokens that making one edit takes, by editor, from its configuration and the model.
EDITS: dict[str, Callable[[Mapping[str, Any], Shape], float]] = {
    "identity": lambda config, shape: 0,
    "serac": lambda config, shape: 0,
    "ke": lambda config, shape: HYPER,
    "mend": lambda config, shape: HYPER,
    "ft": lambda config, shape: REQUEST * config["steps"],
    "calinet": lambda config, shape: TAIL * config["steps"] * (shape.depth - min(config["layers"])) / shape.depth,
    "t-patcher": lambda config, shape: NEURONS * config["steps"] / shape.depth,
    "kn": lambda config, shape: ATTRIBUTED * config["steps"] * shape.depth,
    "rome": lambda config, shape: CONTEXT * config["steps"] * _rows(config),
    "memit": lambda config, shape: CONTEXT * config["steps"] * _rows(config),
}


def edit_seconds(shape: Shape, editor: str, config: Mapping[str, Any]) -> float:
    """To make one edit. An editor that is not in the table is taken to be like fine-tuning."""
    known = EDITS.get(editor)
    return shape.seconds(known(config, shape) if known else REQUEST * config.get("steps", 1))


def baseline_seconds(shape: Shape, measures: Measures = NOTHING_MORE) -> float:
    """To ask the unedited model all questions of a case."""
    return shape.seconds(PROBES + sum(measure.tokens_asked for measure in measures))


def score_seconds(shape: Shape, editor: str, measures: Measures = NOTHING_MORE) -> float:
    """To score one case, without what is taken once for each edited model."""
    if editor == "identity":  # its answers are the baseline's
        return shape.seconds(HANDLED)
    return baseline_seconds(shape, measures) + shape.seconds(sum(measure.tokens_scored for measure in measures))


def patch_seconds(shape: Shape, measures: Measures = NOTHING_MORE) -> float:
    """To take what is measured once for each edited model."""
    return shape.seconds(sum(measure.tokens_per_patch for measure in measures))


def training_seconds(shape: Shape, editor: str, config: Mapping[str, Any]) -> float:
    """To train an editor, where it does not stop early."""
    if "batch_size" not in config:  # it looks at the training cases
        return shape.seconds(TEXT * config.get("memory_queries", 1000) / 5)
    examples = config["steps"] * config["batch_size"] * config.get("accumulate", 1)
    trained = Shape(min(shape.parameters, SIDE)) if editor == "serac" else shape
    return trained.seconds(PRACTISED * examples)


def moments_bytes(shape: Shape, layers: Sequence[int]) -> int:
    """Of the second moments of these layers, in fp64."""
    return 8 * len(layers) * shape.inner**2


def statistics_seconds(shape: Shape, layers: Sequence[int], tokens: int) -> float:
    """To take second moments: the blocks it takes, and the outer products."""
    blocks = 2 * shape.parameters * (max(layers) + 1) / shape.depth
    return tokens * (blocks + 2 * len(layers) * shape.inner**2) / shape.rate


def sum_seconds(shape: Shape, layers: Sequence[int], shards: int) -> float:
    """To add the second moments of so many shards."""
    return 1 + (shards + 1) * moments_bytes(shape, layers) / DISK_RATE


def cases_per_task(seconds: float) -> int:
    """How many cases of so many seconds make a task of about a minute."""
    return max([size for size in SIZES if size * seconds <= TARGET], default=1)


def shards(shape: Shape, layers: Sequence[int], tokens: int) -> int:
    """How many shards a pass over a text is cut into: of about a minute, but no more than a tenth of it to write."""
    lasting = max(TARGET, 10 * moments_bytes(shape, layers) / DISK_RATE)
    return max(1, round(statistics_seconds(shape, layers, tokens) / lasting))


def time_limit(shape: Shape, seconds: float, on_gpu: bool = True) -> float:
    """After how many seconds a task of this cost hangs for sure: twenty times as long as it should take on such a
    device, ten minutes for what takes no time, and on top of that the time in which any disk would have read the
    model."""
    slower = 1.0 if on_gpu else shape.rate / CPU_RATE
    return max(600.0, 20 * seconds * slower) + 4 * shape.parameters / 20e6
