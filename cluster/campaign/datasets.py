"""The data sets of a campaign."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from editors.core.settings import Name
from evaluators.datasets import DatasetSpec
from evaluators.scoring.known import PATTERN, Criterion

EXAMINED = 10  # records for each case that is known and taken
Names = Annotated[tuple[Name, ...], Field(min_length=1)]


def _says_what_is_known(value: object) -> object:
    if value is not None:
        Criterion.parse(value)
    return value


class DatasetEntry(DatasetSpec):
    """A data set of a campaign."""

    models: Names | None = None
    """Keeps it to some of the campaign's models."""
    known: Annotated[str, Field(pattern=PATTERN), BeforeValidator(_says_what_is_known)] | None = None
    """Keeps, for each model, to the cases whose true answer it gives before any edit: `exact`, or `topN` (N up to
    1000), where the answer begins among its N most probable tokens. Then `limit` is how many of these are taken, from
    the first on. Facts that the model predicts: Meng et al. 2022, section 2.1; `top10`: Yao et al. 2023, appendix B."""
    examine: PositiveInt | None = None
    """With `known`: how many records are read for it, at most; left out, ten for each of `limit`, or all. Ours."""

    @model_validator(mode="after")
    def _examines_enough(self) -> Self:
        if self.examine is not None and self.known is None:
            raise ValueError(f"'examine: {self.examine}' is for data sets with 'known'; leave it out, or add 'known: "
                             "top10'")
        if self.examine is not None and self.limit is not None and self.examine < self.limit:
            raise ValueError(f"'examine: {self.examine}' records cannot have 'limit: {self.limit}' known cases; raise "
                             "'examine', or lower 'limit'")
        return self

    @property
    def read(self) -> DatasetEntry:
        """The entry with as many records as are read of it."""
        if self.known is None:
            return self
        most = self.limit and EXAMINED * self.limit
        return self.model_copy(update={"limit": self.examine or most})
