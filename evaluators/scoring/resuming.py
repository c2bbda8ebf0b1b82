"""Asks edited models from where their edits begin: the blocks below are run once, for all edits of one batch, and so is
the lowest edited one where what its FFN reads can be kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from torch import Tensor

from editors.core.models.batches import Batch, BlockRef, Encoded, Padding
from editors.core.models.capture import pass_block
from editors.core.models.kept import Entering
from editors.core.models.model import LanguageModel
from editors.core.models.sparing import Places, only_real, only_targets
from editors.core.patches.overlay import UNPATCHED, leaving, overlay
from editors.core.patches.patch import Patch, Route


def lowest_block(model: LanguageModel, patches: Collection[Patch]) -> BlockRef | None:
    """The lowest block that any of the patches changes, the encoder's before the decoder's. None where passes have to
    be whole: a patch touches what is in no block, or routes questions elsewhere, or one is on the model already."""
    if model.patches or model.router is not None:
        return None
    found = set()
    for term in (term for patch in patches for term in patch.terms):
        block = None if isinstance(term, Route) else model.block_of(term.module)
        if block is None:
            return None
        found.add(block)
    return min(found, key=lambda block: (block.stack == "decoder", block.layer), default=None)


def added_to(model: LanguageModel, patches: Collection[Patch], at: BlockRef) -> str | None:
    """The path of the module in a decoder's block that the patches' terms there add to, where it is the FFN or its last
    projection for all of them: then all else in the block is as without them."""
    touched = {term.module for patch in patches for term in patch.terms if model.block_of(term.module) == at}
    if at.stack == "encoder" or len(touched) > 1:
        return None
    return next((path for path in (model.ffn_path(at.layer), model.down_path(at.layer)) if path in touched), None)


def resume(model: LanguageModel, rows: Sequence[Encoded], padding: Padding, patches: Sequence[Patch],
           on: Sequence[int]) -> Callable[[Sequence[int]], Tensor]:
    """How to compute the logits [targets, vocabulary] in fp32 of these rows' target tokens, row i under
    `patches[on[i]]` or, at -1, none: given `on` again, or -1 in the place of some."""
    batch = model.collate(rows, padding)
    places = Places.of(batch)
    used = [patches[number] for number in set(on) - {UNPATCHED}]
    at = lowest_block(model, used)
    path = at and added_to(model, used, at)
    if path and not _ample(model, batch, rows):
        path = None

    def whole(on: Sequence[int]) -> Tensor:
        with overlay(model, patches, on), only_real(model, places, used), only_targets(model, places):
            return model.target_logits(batch)

    if at is None or (path is None and at == BlockRef("encoder" if model.has_encoder else "decoder", 0)):
        return whole
    start = at if path is None else BlockRef(at.stack, at.layer + 1)
    with only_real(model, places, stop=at.layer):  # how block `at` is passed is kept as it is
        found = _entering(model, batch, rows, padding, start, path)
    batch = replace(batch, source=found.source) if found.source else batch

    def logits(on: Sequence[int]) -> Tensor:
        hidden = leaving(model, found.passed, patches, on) if found.passed and path else found.hidden
        with (overlay(model, patches, on), only_real(model, places, used, start.layer),
              only_targets(model, places)):
            states = model.run_from(hidden, batch, start)
        return model.head(states[batch.row, batch.position])

    def last(on: Sequence[int]) -> Tensor:
        assert found.passed is not None
        on = [on[row] for row in batch.row.tolist()]
        return model.head(model.finish(leaving(model, found.passed, patches, on)))

    return last if start == BlockRef("decoder", model.depth) else logits


def _ample(model: LanguageModel, batch: Batch, rows: Sequence[Encoded]) -> bool:
    """Whether what an FFN reads and writes, and what leaves its block, can be kept."""
    of = model.bytes
    each = of.size * (of.shape.inner + 2 * of.shape.width)
    return model.kept is not None and model.kept.ample(rows, batch.input_ids.numel() * each)


def _entering(model: LanguageModel, batch: Batch, rows: Sequence[Encoded], padding: Padding, at: BlockRef,
              path: str | None) -> Entering:
    """What enters block `at` of the unedited model, with a `path` how the block below was passed: behind the last block
    where targets are predicted alone. Kept where the model has a place for it."""
    known = model.kept.below(rows, padding, at, path) if model.kept is not None else None
    if known and known[0] == at:
        return known[1]
    if at.stack == "decoder":
        batch = model.read(batch) if known is None or known[1].source is None else replace(batch,
                                                                                           source=known[1].source)

    def run() -> Tensor:
        return model.run_to(batch, at) if known is None else model.run_between(known[1].hidden, batch, known[0], at)

    passed = pass_block(model, path, run) if path else None
    if passed and at.layer == model.depth:
        passed = passed[batch.row, batch.position]
    entering = Entering(passed.hidden if passed else run(), batch.source if at.stack == "decoder" else None, passed)
    if model.kept is not None:
        model.kept.keep(rows, padding, at, entering)
    return entering
