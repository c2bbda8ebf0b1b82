"""A model too large for one device: each rank of a process group holds a part of every weight (ZeRO stage 3 of
Rajbhandari et al. 2020, by DeepSpeed).

A weight is whole only while its module runs, or inside `Weights.whole`. All ranks must run the same modules in the same
order, so all do the same work on the same batches.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import deepspeed
import torch
from deepspeed.ops.op_builder import AsyncIOBuilder
from deepspeed.runtime.zero import parameter_offload
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.initialization import no_init_weights

from cluster.workers.scratch import Scratch
from editors.core.errors import InputError
from editors.core.models.checkpoint import Checkpoint
from editors.core.models.configuration import LIBRARY_CODE
from editors.core.models.fitting import as_named, stored_name, tied_weights
from editors.core.models.hugging_face import auto_class
from editors.core.models.loading import load_by
from editors.core.models.model import LanguageModel
from editors.core.models.weights import Weights

Offload = Literal["none", "cpu", "nvme"]
NVME_BUFFERS = 8  # weights on their way from the disk at once


def load_sharded(path: str | Path, *, device: str = "cpu", dtype: str = "float32", offload: Offload = "none",
                 files: Path | None = None) -> LanguageModel:
    """Loads a model onto the ranks of the process group there is; every rank has to call it.

    The rest of the weights that a rank holds is on its `device`, in its main memory (`offload="cpu"`), or in the folder
    `files` (`offload="nvme"`; see `weight_files`). No rank ever holds more than its part and one weight. Raises
    `InputError` like `load_model`.
    """
    # DeepSpeed keeps every model it was ever given; the one before has to make room.
    parameter_offload.FWD_MODULE_STACK.clear()
    gc.collect()

    def build(config: PretrainedConfig, checkpoint: Checkpoint) -> Any:
        settings = _settings(device, dtype, offload, files, checkpoint.largest)
        module = _empty(config, dtype, settings)
        _fill(module, checkpoint)
        module.requires_grad_(False)
        engine = deepspeed.initialize(model=module, config=settings)[0]
        # At every call of the whole model, DeepSpeed expects the modules to run in the order of the call before. Ours
        # run in parts and in any order.
        engine.optimizer.fwd_pre_hook.remove()
        # DeepSpeed's hooks start this count of gradients on the module they are called for, and go on with it on that
        # they were made for, which a block that is run in another's place is not.
        for part in engine.module.modules():
            part.ds_grads_remaining = 0
        return engine.module

    return load_by(path, build, dtype=dtype, weights=ShardedWeights())


def weight_files(nvme: str) -> Path:
    """A folder under `nvme` for the weights of this process alone, as long as it lives. Raises `InputError` where they
    cannot be kept in files."""
    host, scratch = os.uname().nodename, Scratch(nvme)
    try:
        folder = scratch.folder
    except OSError as error:
        raise InputError(f"'nvme: {nvme}' cannot be written on host '{host}' ({error.strerror}); give a folder that "
                         "can, on every node") from error
    if not AsyncIOBuilder().is_compatible():
        scratch.remove()
        raise InputError(f"'offload: nvme' needs libaio and a C++ compiler, and host '{host}' lacks one: install "
                         "libaio-dev (Debian, Ubuntu) or libaio-devel (Fedora, RHEL) and g++ on every node, or take "
                         "'offload: cpu'")
    AsyncIOBuilder().load(verbose=False)  # compiles for minutes where it never has
    return folder


class ShardedWeights(Weights):
    """Weights of which each rank has a part; asking is something that all ranks do together."""

    def shape(self, weight: Tensor) -> tuple[int, ...]:
        return tuple(weight.ds_shape)  # type: ignore[attr-defined]

    def free(self, device: torch.device) -> float:
        least = torch.tensor(super().free(device), dtype=torch.float64, device=device)
        torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
        return float(least)

    @contextmanager
    def whole(self, *weights: Tensor) -> Iterator[None]:
        with deepspeed.zero.GatheredParameters(list(weights)):
            yield


def tidy(module: nn.Module) -> None:
    """Puts every weight back in parts: an error in the middle of a module leaves its weights whole."""
    for weight in module.parameters():
        weight.ds_active_sub_modules.clear()  # type: ignore[attr-defined]
        if weight.ds_status.name == "AVAILABLE":  # type: ignore[attr-defined]
            weight.partition()  # type: ignore[attr-defined]
    del parameter_offload.FWD_MODULE_STACK[1:]


# --- loading


def _settings(device: str, dtype: str, offload: Offload, files: Path | None, largest: int) -> dict[str, Any]:
    """DeepSpeed's configuration: parameters in parts, no optimiser, nothing fetched ahead."""
    world = torch.distributed.get_world_size()
    zero: dict[str, Any] = {"stage": 3, "stage3_param_persistence_threshold": 0, "stage3_prefetch_bucket_size": 0,
                            "stage3_max_reuse_distance": 0}
    if offload != "none":
        zero["offload_param"] = {"device": offload, "pin_memory": device != "cpu"}
    settings: dict[str, Any] = {"train_batch_size": world, "train_micro_batch_size_per_gpu": 1, "steps_per_print": 0,
                                "zero_optimization": zero, "fp16": {"enabled": dtype == "float16"},
                                "bf16": {"enabled": dtype == "bfloat16"}}
    if offload == "nvme":
        part = -(-largest // world)
        zero["offload_param"] |= {"nvme_path": str(files), "buffer_count": NVME_BUFFERS, "buffer_size": part + 2**20}
        settings["aio"] = {"block_size": 2**20, "queue_depth": 8, "thread_count": 1, "single_submit": False,
                           "overlap_events": True}
    return settings


def _empty(config: PretrainedConfig, dtype: str, settings: dict[str, Any]) -> Any:
    """A module whose weights are in parts from the start, with anything in them."""
    with no_init_weights(), deepspeed.zero.Init(config_dict_or_path=settings):
        module = auto_class(config).from_config(config, dtype=getattr(torch, dtype), **LIBRARY_CODE)
    for part in module.modules():
        if part._non_persistent_buffers_set:  # tables made by formula, in whatever dtype was the default just then
            rebuilt = {name: buffer.float() for name, buffer in part.named_buffers(recurse=False)}
            for name, buffer in rebuilt.items():
                part.register_buffer(name, buffer, persistent=name not in part._non_persistent_buffers_set)
            module._init_weights(part)
    return module


def _fill(module: Any, checkpoint: Checkpoint) -> None:
    """Reads the checkpoint on rank 0, file after file and weight by weight, and deals each out."""
    pairs, checkpoint = tied_weights(module, module.config), as_named(module, checkpoint)
    _tie(module, pairs, checkpoint)
    weights = dict(module.named_parameters())
    stored = {name: there for name in weights
              if (there := stored_name(name, pairs, checkpoint.weights)) is not None}  # all: it was looked at before
    for name in sorted(weights, key=lambda name: (checkpoint.weights[stored[name]].file, name)):
        weight = weights[name]
        with torch.no_grad(), deepspeed.zero.GatheredParameters([weight], modifier_rank=0):
            if torch.distributed.get_rank() == 0:
                weight.copy_(checkpoint.read(stored[name]))


def _tie(module: Any, pairs: Mapping[str, str], checkpoint: Checkpoint) -> None:
    """Ties what the checkpoint lacks, or holds twice. Asking the library would not do: it compares the weights, of
    which ranks have empty placeholders, and a T5 v1.1 would lose its head."""
    def alike(target: str, source: str) -> bool:
        there = stored_name(source, pairs, checkpoint.weights)
        return there is not None and torch.equal(checkpoint.read(target), checkpoint.read(there))

    module.all_tied_weights_keys = {target: source for target, source in pairs.items()
                                    if target not in checkpoint.weights or alike(target, source)}
    module.tie_weights(recompute_mapping=False)
