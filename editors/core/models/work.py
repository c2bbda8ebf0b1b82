"""How much models have read in this process, for meters to take the difference of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Work:
    """Tokens that blocks have read from the start, padding too; and the floating point operations of all blocks and
    heads, reckoned from their shapes: two for every parameter and position, and as many again where a gradient is to
    go the same way back. What attention takes by the square of the length, and gradients of weights, are left out.
    `chosen` are those of modules that were given only some of a batch's positions."""

    tokens: int = 0
    flops: float = 0.0
    chosen: float = 0.0

    def add(self, positions: int, parameters: int, *, backward: bool, new: bool = False) -> None:
        """So many positions have passed modules of so many parameters; `new` are tokens that were not read so far."""
        self.flops += _flops(positions, parameters, backward)
        self.tokens += positions if new else 0

    def narrow(self, positions: int, all_positions: int, parameters: int, *, backward: bool) -> None:
        """A module of so many parameters takes some positions alone in a pass that is counted with all of them."""
        self.flops -= _flops(all_positions - positions, parameters, backward)
        self.chosen += _flops(positions, parameters, backward)


def _flops(positions: int, parameters: int, backward: bool) -> int:
    return 2 * parameters * positions * (2 if backward else 1)


DONE = Work()
