"""Hidden states kept between passes over the same questions: no edit changes what lies below its lowest block."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from editors.core.memory import KEPT_STATES
from editors.core.models.batches import BlockRef, Encoded, EncoderInput, Padding


class _Key(NamedTuple):
    rows: tuple[Encoded, ...]
    padding: Padding
    at: BlockRef


@dataclass(frozen=True)
class Entering:
    """What enters a block for a batch of rows: `hidden` [rows, length, width], and what the encoder has made of the
    prompts where the block is behind one."""

    hidden: Tensor
    source: EncoderInput | None = None

    @property
    def nbytes(self) -> int:
        states = self.source.states if self.source else None
        return self.hidden.nbytes + (0 if states is None else states.nbytes)


class KeptStates:
    """What entered some blocks of an unedited model, for whole batches, up to `limit` bytes.

    Whole batches, and not rows, so that what is computed from them is the same to the bit, whether it was kept or not.
    Of those that no question was asked of since `begin`, the oldest give way; where there are none, nothing more is
    kept.
    """

    def __init__(self, limit: int = KEPT_STATES) -> None:
        self.limit, self.nbytes = limit, 0
        self._kept: OrderedDict[_Key, Entering] = OrderedDict()
        self._layers: set[BlockRef] = set()
        self._asked: set[_Key] = set()

    def begin(self) -> None:
        """From here on a new set of questions is asked."""
        self._asked.clear()

    def clear(self) -> None:
        """Lets go of everything."""
        self._kept.clear()
        self._asked.clear()
        self.nbytes = 0

    def below(self, rows: Sequence[Encoded], padding: Padding, at: BlockRef) -> tuple[BlockRef, Entering] | None:
        """The highest block up to `at` of its stack for which these rows are kept, and what enters it."""
        for layer in range(at.layer, -1, -1):
            key = _Key(tuple(rows), padding, BlockRef(at.stack, layer))
            if key.at in self._layers and key in self._kept:
                self._kept.move_to_end(key)
                self._asked.add(key)
                return key.at, self._kept[key]
        return None

    def keep(self, rows: Sequence[Encoded], padding: Padding, at: BlockRef, entering: Entering) -> None:
        """Keeps what enters block `at`, where there is room."""
        key = _Key(tuple(rows), padding, at)
        while self.nbytes + entering.nbytes > self.limit:
            oldest = next((other for other in self._kept if other not in self._asked), None)
            if oldest is None:
                return
            self.nbytes -= self._kept.pop(oldest).nbytes
        self._kept[key] = entering
        self._layers.add(at)
        self._asked.add(key)
        self.nbytes += entering.nbytes
