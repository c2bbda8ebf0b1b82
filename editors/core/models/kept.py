"""Hidden states kept between passes over the same questions: no edit changes what lies below its lowest block."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from editors.core.memory import KEPT_STATES
from editors.core.models.batches import BlockRef, Encoded, EncoderInput, Padding

SETS = 4  # of questions, at least, that all that is known of a passed block leaves room for: a small part suffices else


class _Key(NamedTuple):
    rows: tuple[Encoded, ...]
    padding: Padding
    at: BlockRef
    path: str | None


@dataclass(frozen=True)
class Passed:
    """A decoder's block that was run once for all patches on its module at `path`, whose output is that of the FFN:
    what that has `read` [rows, length, in] and `written`, where the family normalises it, and the `hidden` states
    [rows, length, width] that left the block."""

    path: str
    read: Tensor
    written: Tensor | None
    hidden: Tensor

    def __getitem__(self, places: Tensor | tuple[Tensor, ...]) -> Passed:
        """Of some rows, or of some places [rows], [positions] as rows of one position each."""
        read, written, hidden = (None if states is None else states[places]
                                 for states in (self.read, self.written, self.hidden))
        assert read is not None and hidden is not None
        return Passed(self.path, read, written, hidden)


@dataclass(frozen=True)
class Entering:
    """What enters a block for a batch of rows: `hidden` [rows, length, width], what the encoder has made of the
    prompts where the block is behind one, and how the block below was `passed`, where that is known."""

    hidden: Tensor
    source: EncoderInput | None = None
    passed: Passed | None = None

    @property
    def nbytes(self) -> int:
        states: list[Tensor | None] = [self.hidden]
        if self.source:
            states.append(self.source.states)
        if self.passed:
            states += [self.passed.read, self.passed.written]
        return sum(each.nbytes for each in states if each is not None)


class KeptStates:
    """What entered some blocks of an unedited model, for whole batches, up to `limit` bytes.

    Whole batches, and not rows, so that what is computed from them is the same to the bit, whether it was kept or not.
    Of those that no question was asked of since `begin`, the oldest give way; where there are none, nothing more is
    kept.
    """

    def __init__(self, limit: int = KEPT_STATES) -> None:
        self.limit, self.nbytes = limit, 0
        self._kept: OrderedDict[_Key, Entering] = OrderedDict()
        self._places: set[tuple[BlockRef, str | None]] = set()
        self._asked: set[_Key] = set()
        self._tokens = 0

    def begin(self, tokens: int) -> None:
        """From here on a new set of questions is asked, of so many tokens."""
        self._asked.clear()
        self._tokens = tokens

    def clear(self) -> None:
        """Lets go of everything."""
        self._kept.clear()
        self._asked.clear()
        self.nbytes = 0

    def ample(self, rows: Sequence[Encoded], nbytes: int) -> bool:
        """Whether there is room for so much of these rows, likewise of all that are asked, and of `SETS` such sets."""
        return SETS * nbytes * self._tokens <= self.limit * sum(map(len, rows))

    def below(self, rows: Sequence[Encoded], padding: Padding, at: BlockRef,
              path: str | None = None) -> tuple[BlockRef, Entering] | None:
        """The highest block up to `at` of its stack for which these rows are kept, and what enters it; with a `path`,
        `at` itself only where the module there was passed right below."""
        whole = at.layer if path is None else at.layer - 1
        places = (place for place in self._places if place[0].stack == at.stack
                  and (place[0].layer <= whole or place == (at, path)))
        for block, passed in sorted(places, key=lambda place: (place[0].layer, place[1] or ""), reverse=True):
            key = _Key(tuple(rows), padding, block, passed)
            if key in self._kept:
                self._kept.move_to_end(key)
                self._asked.add(key)
                return block, self._kept[key]
        return None

    def keep(self, rows: Sequence[Encoded], padding: Padding, at: BlockRef, entering: Entering) -> None:
        """Keeps what enters block `at`, where there is room."""
        place = at, entering.passed.path if entering.passed else None
        key = _Key(tuple(rows), padding, *place)
        while self.nbytes + entering.nbytes > self.limit:
            oldest = next((other for other in self._kept if other not in self._asked), None)
            if oldest is None:
                return
            self.nbytes -= self._kept.pop(oldest).nbytes
        self._kept[key] = entering
        self._places.add(place)
        self._asked.add(key)
        self.nbytes += entering.nbytes
