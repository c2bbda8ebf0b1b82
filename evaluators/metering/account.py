"""What doing a task cost and yielded, as those who watch a campaign want it: a part of the result's provenance."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from evaluators.metering.spent import Phase, Spent


class Account(BaseModel):
    """What a task cost by phase; how many edits it made, of which `diverged` were not finite; on how many `probes` it
    scored edited models; and of every metric the sum of its values and how many there were.

    A result's provenance holds these fields among others, so that it can be read from there as well.
    """

    model_config = ConfigDict(frozen=True)

    phases: dict[Phase, Spent] = {}
    edits: NonNegativeInt = 0
    diverged: NonNegativeInt = 0
    probes: NonNegativeInt = 0
    scored: dict[str, tuple[float, NonNegativeInt]] = {}
