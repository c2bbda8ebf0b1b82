"""What is judged: a case, and the edit it is judged under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluators.cases import Case, EditedFacts

if TYPE_CHECKING:
    from editors.core.patches.patch import Patch


@dataclass(frozen=True)
class Edited:
    """A case with the patch it is judged under and what that patch edited. Cases of one edit share the patch."""

    case: Case
    patch: Patch
    facts: EditedFacts
