"""What a task takes, in seconds of a reference device: for the order of tasks, forecasts and time limits.

What an edit takes, and training, the methods say. The reference device is one CPU core for models below 100 million
parameters, and a V100 in half precision for others. The CPU's rate and the counts of tokens below are those that the
built-in models were measured with; the V100's rate is a sixth of what it can do at most, and was not measured. Nothing
that a task holds depends on these numbers, so they may be bettered at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from editors import get_editor
from editors.core.models.architectures import Shape
from evaluators.scoring.measures import NOTHING_MORE, Measures

SMALL = 100_000_000  # parameters
CPU_RATE, GPU_RATE = 40e9, 20e12  # floating point operations per second
DISK_RATE = 200e6  # bytes per second

# Tokens read, or as many as would take the same time.
PROBES = 160  # all questions of a case
RECALLED = 15  # an edit's prompt with the true answer
HANDLED = 1  # a case whose answers are known already
WRITING = 0.1  # of what an edit takes: the rest of it, where its value is there


def rate(shape: Shape) -> float:
    """Floating point operations per second of the reference device for models of this size."""
    return CPU_RATE if shape.parameters < SMALL else GPU_RATE


def reading_seconds(shape: Shape, tokens: float) -> float:
    """To read so many tokens."""
    return shape.flops(tokens) / rate(shape)


def edit_seconds(shape: Shape, editor: str, config: Mapping[str, Any]) -> float:
    """To make one edit, as the method says."""
    method = get_editor(editor)
    return method.cost(method.Config.model_validate(config), shape) / rate(shape)


def baseline_seconds(shape: Shape, measures: Measures = NOTHING_MORE) -> float:
    """To ask the unedited model all questions of a case."""
    return reading_seconds(shape, PROBES + sum(measure.tokens_asked for measure in measures))


def known_seconds(shape: Shape) -> float:
    """To ask the unedited model for the fact that a case edits."""
    return reading_seconds(shape, RECALLED)


def score_seconds(shape: Shape, editor: str, measures: Measures = NOTHING_MORE) -> float:
    """To score one case, without what is taken once for each edited model."""
    if editor == "identity":  # its answers are the baseline's
        return reading_seconds(shape, HANDLED)
    more = sum(measure.tokens_scored for measure in measures)
    return baseline_seconds(shape, measures) + reading_seconds(shape, more)


def patch_seconds(shape: Shape, measures: Measures = NOTHING_MORE) -> float:
    """To take what is measured once for each edited model."""
    return reading_seconds(shape, sum(measure.tokens_per_patch for measure in measures))


def training_seconds(shape: Shape, editor: str, config: Mapping[str, Any]) -> float:
    """To train an editor, where it does not stop early, as the method says."""
    method = get_editor(editor)
    return method.training_cost(method.Config.model_validate(config), shape) / rate(shape)


def moments_bytes(shape: Shape, layers: Sequence[int]) -> int:
    """Of the second moments of these layers, in fp64."""
    return 8 * len(layers) * shape.inner**2


def statistics_seconds(shape: Shape, layers: Sequence[int], tokens: int) -> float:
    """To take second moments: the blocks it takes, and the outer products."""
    blocks = 2 * shape.parameters * (max(layers) + 1) / shape.depth
    return tokens * (blocks + 2 * len(layers) * shape.inner**2) / rate(shape)


def sum_seconds(shape: Shape, layers: Sequence[int], shards: int) -> float:
    """To add the second moments of so many shards."""
    return 1 + (shards + 1) * moments_bytes(shape, layers) / DISK_RATE


def time_limit(shape: Shape, seconds: float, on_gpu: bool = True) -> float:
    """After how many seconds a task of this cost hangs for sure: twenty times as long as it should take on such a
    device, ten minutes for what takes no time, and on top of that the time in which any disk would have read the
    model."""
    slower = 1.0 if on_gpu else rate(shape) / CPU_RATE
    return max(600.0, 20 * seconds * slower) + 4 * shape.parameters / 20e6
