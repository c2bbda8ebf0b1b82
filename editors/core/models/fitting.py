"""Whether a checkpoint's weights are those of a model: all of them, no more, each in its shape."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from editors.core.errors import InputError
from editors.core.models.architectures import architecture
from editors.core.models.checkpoint import Checkpoint
from editors.core.models.configuration import CONFIG, LIBRARY_CODE
from editors.core.models.folder import ModelFolder
from editors.core.models.hugging_face import auto_class, quiet

if TYPE_CHECKING:
    from transformers import PretrainedConfig

HEAD = "lm_head.weight"  # in every family
TABLES = r"\.(rotary_emb\.inv_freq|(attn|attention)\.(masked_)?bias)$"
FEW = 100  # blocks: a module of so many more is made in no time, and tells which weights are missing


def refuse_misfits(config: PretrainedConfig, checkpoint: Checkpoint) -> None:
    """Raises `InputError` unless a checkpoint's weights are, by name and shape, those of a model of this configuration:
    the library would fill in random ones for what is missing, and leave out what is left over."""
    _refuse_depths(config, checkpoint)
    with checkpoint.folder.reading(CONFIG, Exception), torch.device("meta"), quiet():
        module = auto_class(config).from_config(config, **LIBRARY_CODE)
    wanted, there = module.state_dict(), as_named(module, checkpoint).weights
    tied = tied_weights(module, config)
    missing = [name for name in wanted if stored_name(name, tied, there) is None]
    left_over = _not_ignored(module, there.keys() - wanted.keys())
    if missing == [HEAD] and not left_over:
        raise checkpoint.folder.refusal(f"'{HEAD}' is missing, and its config.json tells of a head of its own "
                                        "(tie_word_embeddings or scale_decoder_outputs is false); fetch the folder "
                                        "whole again, or, if the embeddings are the head, save them under that name, "
                                        "too")
    refuse_other_weights(checkpoint.folder.name, missing, left_over,
                         [(name, there[name].shape, wanted[name].shape) for name in there.keys() & wanted.keys()
                          if there[name].shape != tuple(wanted[name].shape)])
    if whole := sorted(name for name in there.keys() & wanted.keys() if not there[name].floating):
        raise checkpoint.folder.refusal(f"'{whole[0]}' is not of floating point numbers of 16 bits or more; take the "
                                        "checkpoint that this one was made of")


def as_named(module: Any, checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint with its weights under the names that a module has for them: old ones leave out the backbone's, or
    have another for the head. The library reads them likewise."""
    wanted, prefix = module.state_dict().keys(), f"{module.base_model_prefix}."
    renamed = architecture(module.config, checkpoint.folder.name).renamed
    weights = {}
    for name, stored in checkpoint.weights.items():
        old = next(filter(name.startswith, renamed), "")
        now = renamed.get(old, "") + name.removeprefix(old)
        weights[prefix + now if now not in wanted and prefix + now in wanted else now] = stored
    return replace(checkpoint, weights=weights)


def _not_ignored(module: Any, names: Iterable[str]) -> list[str]:
    """Those of the weights that a module lacks which are more than tables that old checkpoints hold, and the library
    makes by formula."""
    ignored = [*(module._keys_to_ignore_on_load_unexpected or ()), TABLES]
    return [name for name in names if not any(re.search(pattern, name) for pattern in ignored)]


def _refuse_depths(config: PretrainedConfig, checkpoint: Checkpoint) -> None:
    """Refuses far more blocks than there are weights of, before a module of them is made."""
    family = architecture(config, checkpoint.folder.name)
    for stack, layout in family.layouts.items():
        block = re.compile(rf"{layout.backbone}\.{layout.blocks}\.(\d+)\.")
        there = 1 + max((int(found[1]) for found in map(block.match, checkpoint.weights) if found), default=-1)
        if (depth := family.depth(config, stack)) > there + FEW:
            raise checkpoint.folder.refusal(f"'{CONFIG}' tells of {depth} blocks ({layout.depth}), and its weights are "
                                            f"of {there}; fetch the folder whole again, or mend its {CONFIG}")


def tied_weights(module: Any, config: PretrainedConfig) -> Mapping[str, str]:
    """Names of weights that may be another's, and whose. A head of its own is none: the library ties that of any T5,
    and would give one that a checkpoint lost the embeddings instead."""
    pairs: dict[str, str] = module.get_expanded_tied_weights_keys(all_submodels=True)
    own = architecture(config, str(config.name_or_path)).own_head(config)
    return {target: source for target, source in pairs.items() if not (own and target == HEAD)}


def stored_name(name: str, tied: Mapping[str, str], there: Mapping[str, Any]) -> str | None:
    """The name under which a checkpoint holds a weight: its own, or else that of one that is tied to it."""
    source = tied.get(name, name)
    alike = [source, *(target for target, other in tied.items() if other == source)]
    return next((other for other in (name, *alike) if other in there), None)


def read_weights(kind: Any, folder: ModelFolder, *, partly: bool = False, **settings: Any) -> Any:
    """The module of a library's class `kind` in a folder. Raises `InputError` where the weights there are not the
    module's: then the library would fill in random ones. `partly`: there may be more, such as an encoder's old head."""
    with folder.reading(), _for_the_library(folder) as path:
        module, found = kind.from_pretrained(path, output_loading_info=True, ignore_mismatched_sizes=True,
                                             **LIBRARY_CODE, **settings)
    left_over = () if partly else _not_ignored(module, found["unexpected_keys"])
    refuse_other_weights(folder.name, found["missing_keys"], left_over, found["mismatched_keys"])
    return module


@contextmanager
def _for_the_library(folder: ModelFolder) -> Iterator[Path]:
    """The folder, or one of links to all in it where its index is without `metadata`, which the library insists on."""
    index = folder.weight_files().index
    said = json.loads((folder.path / index).read_text(encoding="utf-8")) if index else {"metadata": {}}
    if "metadata" in said:
        yield folder.path
        return
    with tempfile.TemporaryDirectory(prefix="editfleet-") as made:
        for file in folder.path.iterdir():
            if file.name != index:
                (Path(made) / file.name).symlink_to(file.resolve())
        (Path(made) / str(index)).write_text(json.dumps({**said, "metadata": {}}), encoding="utf-8")
        yield Path(made)


def refuse_other_weights(name: str, missing: Iterable[str], left_over: Iterable[str],
                         reshaped: Iterable[tuple[str, Any, Any]] = ()) -> None:
    """Raises `InputError`, naming weights, unless there are none that a model lacks, has not, or (name, shape there,
    shape of the model) has in another shape."""
    def some(names: Iterable[str]) -> str:
        first, *rest = sorted(names)
        return f"'{first}'" + (f" and {len(rest)} more" if rest else "")

    problems = [f"{what}: {some(names)}" for what, names in (("missing", list(missing)), ("left over", list(left_over)))
                if names]
    if misshapen := sorted((name, list(there), list(wanted)) for name, there, wanted in reshaped):
        weight, there, wanted = misshapen[0]
        more = f", and {len(misshapen) - 1} more have another shape" if len(misshapen) > 1 else ""
        problems.append(f"'{weight}' is {there} and should be {wanted}{more}")
    if problems:
        raise InputError(f"cannot load model '{name}': its weights are not those of its config.json; "
                         f"{'; '.join(problems)}. Fetch the folder whole again, or mend its config.json")
