"""What a phase of a task cost, as provenance keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt

Phase = Literal["load", "baseline", "statistics", "train", "edit", "score", "store"]
PHASES: tuple[Phase, ...] = get_args(Phase)


class Memory(BaseModel):
    """The most bytes that were in use during a phase; None where the device does not tell.

    On a GPU `allocated` is what tensors took, `allocated_before` of these what they took as it began, `reserved` what
    the allocator held, and `device` all that was used of the device, by whomever. `rss` is the process's resident set,
    and `rss_anonymous` as much of it as was no file's when the phase ended.
    """

    model_config = ConfigDict(frozen=True)

    allocated: NonNegativeInt | None = None
    allocated_before: NonNegativeInt | None = None
    reserved: NonNegativeInt | None = None
    device: NonNegativeInt | None = None
    rss: NonNegativeInt | None = None
    rss_anonymous: NonNegativeInt | None = None

    def most(self, other: Memory) -> Memory:
        """The larger of each."""
        return Memory(**{name: max(known, default=None) for name in Memory.model_fields
                         if (known := [value for each in (self, other) if (value := getattr(each, name)) is not None])
                         })

    def plus(self, other: Memory) -> Memory:
        """The sum of each: of processes that hold one model together."""
        return Memory(**{name: sum(known) for name in Memory.model_fields
                         if (known := [value for each in (self, other) if (value := getattr(each, name)) is not None])
                         })


class Spent(BaseModel):
    """What a phase cost: wall `seconds` with the device synchronised; `tokens` read by models, padding too, and `flops`
    reckoned from them and the shapes; `joules` of the device where it tells them; and the peak of `memory`. Of a gang
    that is the largest of its ranks', and `memory_in_all` their sum."""

    model_config = ConfigDict(frozen=True)

    seconds: NonNegativeFloat = 0.0
    tokens: NonNegativeInt = 0
    flops: NonNegativeFloat = 0.0
    joules: NonNegativeFloat | None = None
    memory: Memory = Memory()
    memory_in_all: Memory | None = None

    def then(self, other: Spent) -> Spent:
        """Of two stretches of one phase, one after the other."""
        known = [joules for joules in (self.joules, other.joules) if joules is not None]
        return Spent(seconds=self.seconds + other.seconds, tokens=self.tokens + other.tokens,
                     flops=self.flops + other.flops, joules=sum(known) if len(known) == 2 else None,
                     memory=self.memory.most(other.memory))


Costs = Mapping[Phase, Spent]


def in_turn(parts: Iterable[Costs]) -> dict[Phase, Spent]:
    """What several pieces of work cost that were done one after another."""
    total: dict[Phase, Spent] = {}
    for costs in parts:
        for phase, spent in costs.items():
            total[phase] = total[phase].then(spent) if phase in total else spent
    return total


def at_once(ranks: Iterable[Costs]) -> dict[Phase, Spent]:
    """What ranks cost that did one piece of work together: the longest time, and the memory of the largest and of all.

    Tokens and operations are the first rank's, as all read the same; joules are of all.
    """
    first, *others = ranks
    if not others:
        return dict(first)
    total: dict[Phase, Spent] = {}
    for phase, spent in first.items():
        all_ranks = [spent, *(rank[phase] for rank in others if phase in rank)]
        largest = in_all = spent.memory
        for rank in all_ranks[1:]:
            largest, in_all = largest.most(rank.memory), in_all.plus(rank.memory)
        known = [rank.joules for rank in all_ranks if rank.joules is not None]
        total[phase] = spent.model_copy(update={
            "seconds": max(rank.seconds for rank in all_ranks), "memory": largest, "memory_in_all": in_all,
            "joules": sum(known) if len(known) == len(all_ranks) else None})
    return total
