"""Which of the linked facts a model knows: link prediction (Yao et al. 2023, appendix B.1)."""

from __future__ import annotations

from collections.abc import Sequence

from editors.core.errors import CaseError
from editors.core.models.model import LanguageModel
from editors.core.patches.overlay import UNPATCHED
from evaluators.cases import Case, Chain, Probe
from evaluators.scoring.observe import observe, questions


def link_ranks(model: LanguageModel, links: Sequence[Probe]) -> list[int | None]:
    """The rank, among all tokens, at which a model begins each link's answer: 1 is the most probable.

    A link is asked for as `portability` asks when it decides which chains count. None where the model cannot read it.
    """
    cases = {place: Case(id=str(place), subject=link.prompt, prompt=link.prompt, target_new=link.target,
                         portability=(Chain(prompt=link.prompt, target=link.target, link=link),))
             for place, link in enumerate(links)}
    readable = {place: case for place, case in cases.items() if _is_readable(model, case)}
    observed = observe(model, list(readable.values()), [], [UNPATCHED] * len(readable), roles={"link"})
    ranks = {place: observation.outputs for place, observation in zip(readable, observed, strict=True)}
    return [next(iter(ranks[place].values())).rank_first + 1 if place in ranks else None for place in cases]


def _is_readable(model: LanguageModel, case: Case) -> bool:
    try:
        questions(model, case, roles={"link"})
    except CaseError:
        return False
    return True
