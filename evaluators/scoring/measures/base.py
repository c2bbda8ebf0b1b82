"""What a measure is: something asked of an edited model beyond the teacher-forced questions."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from editors.core.settings import Settings
from evaluators.cases import Case, Edited, Role
from evaluators.scoring.metrics import Metric, Score

if TYPE_CHECKING:  # reading a campaign loads no torch
    from editors.core.models.model import LanguageModel
    from editors.core.patches.patch import Patch
    from evaluators.datasets import DatasetSpec
    from evaluators.scoring.observe import Observation


class Measure(Settings, ABC):
    """A measure under its `name` in a campaign's `measures`; its fields are what can be set there.

    A subclass declares the `metrics` it yields, bumps `version` when their values change, and implements what it needs
    of the rest: `roles` and `compared` add to the teacher-forced questions, `observe` asks something else of the
    questions, of the unedited model too, and `score` runs the edited model once all edits are made; `prompts` are what
    these two ask beyond the questions.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    metrics: ClassVar[tuple[Metric, ...]]
    #: Whether the unedited model is asked, too: then it is part of what a baseline holds.
    of_baseline: ClassVar[bool] = False
    #: Questions asked beyond those of every campaign.
    roles: ClassVar[tuple[Role, ...]] = ()
    #: Questions whose answers' distribution is compared with the unedited model's.
    compared: ClassVar[tuple[Role, ...]] = ()

    def identity(self) -> dict[str, Any]:
        """All that determines the values, as JSON."""
        return {"version": self.version, **self.model_dump(mode="json", exclude_defaults=True)}

    # --- before anything runs

    def located(self, locate: Callable[[str], str]) -> Self:
        """The measure with its paths where the campaign's are."""
        return self

    def prepared(self) -> Self:
        """The measure with what it reads from files. Raises `InputError` where a file or a package is missing."""
        return self

    def on(self, dataset: DatasetSpec) -> Self:
        """The measure as it is taken on one data set."""
        return self

    def note(self, cases: Sequence[Case]) -> str | None:
        """What people should know who take it on these cases."""
        return None

    # --- what it costs, in tokens read

    @property
    def tokens_asked(self) -> float:
        """To ask all questions of a case, edited or not."""
        return 0

    @property
    def tokens_scored(self) -> float:
        """To score a case, beyond its questions."""
        return 0

    @property
    def tokens_per_patch(self) -> float:
        """Once for each edited model."""
        return 0

    # --- at work

    def prompts(self, case: Case) -> Iterable[str]:
        """What the model writes on after, for this case: one that cannot be read makes it unusable."""
        return ()

    def observe(self, model: LanguageModel, cases: Sequence[Case], observations: Sequence[Observation],
                patches: Sequence[Patch], rows: Sequence[int]) -> list[Observation]:
        """The observations of the cases, case i under `patches[rows[i]]` (-1: unedited), with what it asks more."""
        return list(observations)

    def score(self, model: LanguageModel, edited: Sequence[Edited]) -> Iterable[Score]:
        """Scores of cases under their patches."""
        return ()
