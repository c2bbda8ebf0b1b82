"""Asks edited models from where their edits begin: the blocks below are run once, for all edits of one batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from torch import Tensor

from editors.core.models.batches import Batch, BlockRef, Encoded, Padding
from editors.core.models.kept import Entering
from editors.core.models.model import LanguageModel
from editors.core.models.sparing import Places, only_targets
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
    lowest = min(found, key=lambda block: (block.stack == "decoder", block.layer), default=None)
    first = BlockRef("encoder" if model.has_encoder else "decoder", 0)
    return None if lowest == first else lowest


def resume(model: LanguageModel, rows: Sequence[Encoded], padding: Padding,
           at: BlockRef | None) -> Callable[[], Tensor]:
    """How to compute the logits [targets, vocabulary] in fp32 of these rows' target tokens, under whatever patches are
    on when it is called, if none of them changes anything below block `at`; without a block, from the start."""
    batch = model.collate(rows, padding)
    places = Places.of(batch)

    def whole() -> Tensor:
        with only_targets(model, places):
            return model.target_logits(batch)

    if at is None:
        return whole
    found = _entering(model, batch, rows, padding, at)
    batch = replace(batch, source=found.source) if found.source else batch

    def logits() -> Tensor:
        with only_targets(model, places):
            states = model.run_from(found.hidden, batch, at)
        return model.head(states[batch.row, batch.position])

    return logits


def _entering(model: LanguageModel, batch: Batch, rows: Sequence[Encoded], padding: Padding, at: BlockRef) -> Entering:
    """What enters block `at` of the unedited model; kept where the model has a place for it."""
    known = model.kept.below(rows, padding, at) if model.kept is not None else None
    if known and known[0] == at:
        return known[1]
    if at.stack == "decoder":
        batch = model.read(batch) if known is None or known[1].source is None else replace(batch,
                                                                                           source=known[1].source)
    hidden = model.run_to(batch, at) if known is None else model.run_between(known[1].hidden, batch, known[0], at)
    entering = Entering(hidden, batch.source if at.stack == "decoder" else None)
    if model.kept is not None:
        model.kept.keep(rows, padding, at, entering)
    return entering
