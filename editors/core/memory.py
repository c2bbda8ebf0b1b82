"""What editing takes of a device's memory, in bytes, reckoned from shapes: plans and workers ask here, and each method
says in `Editor.needs` what its edits keep, in the terms of `Bytes`.

Budgets of tokens and edits are made of it: as many at once as the device has room for (`Room`), and half as many each
time that memory did not suffice. Results hang on no budget but by rounding, and budgets are in no id.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from editors.core.models.architectures import Shape

if TYPE_CHECKING:
    import torch

GIB = 2**30
USABLE = 0.9  # of a device: allocators waste some
SPARE = 0.2  # of a device, for what could as well wait in main memory
SINGLE, DOUBLE = 4, 8  # bytes of a number in fp32 and fp64
PROMPT, ANSWER, SUFFIX = 16, 4, 8  # tokens that plans take an edit to have: in all, of its target, from its subject on

# Tensors as wide as hidden states that a block keeps of each token for a gradient: what enters its norms, queries, keys
# and values, and what attention makes of them. And as wide as its FFN: what enters the activation function; in a gated
# one also the two factors. Measured on every family: 4 to 7 and 1, gated 5 to 14 (norms in fp32) and 3.
WIDTHS, INNERS, GATED_INNERS = 6, 1, 3
PASSING_WIDTHS, PASSING_INNERS = 3, 2  # likewise, that a block has at once where nothing is kept, a patch on it
FACTORING = 3  # second moments beside the factor of one while it is made: C, its mean, and that with a ridge
ADAM = 5  # tensors of a trained parameter: itself, two moments, and in a step its gradient and the step itself
STEP = 2  # those that only a step has, when what is kept for gradients is gone
BEST = 1  # copies of what is trained, as it was at its best
KEPT_STATES = 2**29  # bytes of states that are kept between questions, at most
TEXT_TOKENS = 2048  # of a text for second moments in one pass
HALVINGS = 5  # at most: what a 32nd of a budget does not help, nothing will
LOGITS = 4 * SINGLE  # bytes of a logit: as computed, in fp32, its logarithmic share, and a gradient or a comparison


@dataclass(frozen=True)
class Bytes:
    """What a model of this shape, of numbers of `size` bytes, has for each token that it reads."""

    shape: Shape
    size: int

    @property
    def weights(self) -> int:
        return self.shape.parameters * self.size

    def kept(self, blocks: float) -> float:
        """Of a token for a gradient through so many blocks, whose weights are frozen."""
        inners = GATED_INNERS if self.shape.gated else INNERS
        return blocks * self.size * (WIDTHS * self.shape.width + inners * self.shape.inner)

    @property
    def passing(self) -> float:
        """Of a token on its way through blocks, of which nothing is kept."""
        return SINGLE * (PASSING_WIDTHS * self.shape.width + PASSING_INNERS * self.shape.inner)

    def cached(self, blocks: float) -> float:
        """Of a token, its attention keys and values in so many blocks; less where heads share them."""
        return blocks * self.size * 2 * self.shape.width

    @property
    def logits(self) -> float:
        """Of a target token."""
        return LOGITS * self.shape.vocabulary

    def asked(self, targets: float) -> float:
        """Of a token of questions, of which so many in one are target tokens."""
        return self.passing + targets * self.logits

    @property
    def matrix(self) -> float:
        """Numbers in one of an FFN's projections."""
        return self.shape.width * self.shape.inner

    @property
    def moment(self) -> float:
        """Of a layer's second moment, or a factor of it, in fp64."""
        return DOUBLE * self.shape.inner**2


@dataclass(frozen=True)
class Needs:
    """Bytes beside a model's weights: `held` as long as an editor is there, `spare` more where that is no more than
    `SPARE` of the device, and `loading` on top of them while it is made; for each edit, `edit` while it is one of the
    `at_once` that are made together, at most, and `each` from then on until it has been scored. Of training likewise,
    where an edit is an example."""

    held: float = 0.0
    spare: float = 0.0
    loading: float = 0.0
    edit: float = 0.0
    at_once: int = 1
    each: float = 0.0


class Room:
    """How much may be at work at once in tasks of one kind, as past ones of them have taught."""

    def __init__(self) -> None:
        self.halved = 0

    def at_once(self, most: int, each: float, free: float) -> int:
        """How many of `most` things of `each` bytes, at least one, with so many bytes `free`. By a power of two where
        it is memory that decides: the same on the same device, whatever else takes a little of it."""
        fits = most if most * each <= free else 2 ** max(int(free / each).bit_length() - 1, 0)
        return max(min(most, fits) >> self.halved, 1)

    def halve(self) -> None:
        """To be called when memory has not sufficed: from here on half as much is at work at once."""
        self.halved = min(self.halved + 1, HALVINGS)

    def shrink(self, parts: int) -> None:
        """From here on no more than so manyth part is at work at once."""
        self.halved = max(self.halved, min(parts.bit_length() - 1, HALVINGS))


def free_bytes(device: torch.device) -> float:
    """What can still be had of a device's memory, that which PyTorch has set aside and does not use among it."""
    import torch

    if device.type != "cuda":
        return USABLE * main_memory()[1]
    free, _ = torch.cuda.mem_get_info(device)
    return USABLE * (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def main_memory() -> tuple[int, int]:
    """Bytes of this machine, or as many of them as its container may have; and those of them that are free."""
    total = free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, StopIteration):  # there is no such file
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # likewise, or it says `max`
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        kinds = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        total = min(total, limit)  # files that are only cached give way
        used = int((group / "memory.current").read_text(encoding="ascii")) - int(kinds.get("inactive_file", 0))
        free = min(free, max(limit - used, 0))
    return total, free
