"""Which of the linked facts a model knows: link prediction (Yao et al. 2023, appendix B.1)."""

from __future__ import annotations

from collections.abc import Sequence

from editors.core.models.model import LanguageModel
from editors.core.patches.overlay import UNPATCHED
from evaluators.cases import Case, Chain, Probe, ProbeKey
from evaluators.scoring.observe import observe
from evaluators.scoring.usable import unusable


def link_ranks(model: LanguageModel, links: Sequence[Probe]) -> list[int | None]:
    """The rank, among all tokens, at which a model begins each link's answer: 1 is the most probable.

    A link is asked for as `portability` asks when it decides which chains count. None where the model cannot read it.
    """
    cases = [Case(id=str(place), subject=link.prompt, prompt=link.prompt, target_new=link.target,
                  portability=(Chain(prompt=link.prompt, target=link.target, link=link),))
             for place, link in enumerate(links)]
    unreadable = {case.case_id for case in unusable(model, cases, roles={"link"})}
    readable = [case for case in cases if case.id not in unreadable]
    observed = observe(model, readable, [], [UNPATCHED] * len(readable), roles={"link"})
    ranks = {each.case_id: each.outputs[ProbeKey("link", 0)].rank_first + 1 for each in observed}
    return [ranks.get(case.id) for case in cases]
