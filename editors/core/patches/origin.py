"""Where a patch comes from: the model that it is for, and the edits, by which editor, that its terms are."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from editors.core.errors import InputError

PACKAGES = ("editfleet", "torch", "transformers")
APART = "Make the others anew, without it, or each edit as a patch of its own, which `editfleet compose` adds up"


class _Note(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Base(_Note):
    """The model that a patch was made on, and in which precision."""

    name: str
    digest: str
    dtype: str


class Fact(_Note):
    """What one edit asked for."""

    id: str
    prompt: str
    subject: str
    target: str


class Part(_Note):
    """Edits that belong together: those of one joint edit, or one alone. `terms` is how many of a patch's terms they
    are; None where terms have been merged with other parts'."""

    terms: NonNegativeInt | None
    facts: tuple[Fact, ...] = ()


class Making(_Note):
    """Parts that one editor made. Of terms whose making nobody noted, `editor` is None."""

    editor: str | None = None
    version: int = 0
    seed: int = 0
    settings: dict[str, Any] = {}
    artefact: str | None = None
    versions: dict[str, str] = {}
    parts: tuple[Part, ...]


class Origin(_Note):
    """A patch's terms are those of all parts, in order."""

    model: Base
    makings: tuple[Making, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(part for making in self.makings for part in making.parts)

    @property
    def facts(self) -> tuple[Fact, ...]:
        return tuple(fact for part in self.parts for fact in part.facts)

    @property
    def facts_digest(self) -> str:
        """Identifies what the edits asked for, in order."""
        said = json.dumps([fact.model_dump(exclude={"id"}) for fact in self.facts], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    @property
    def apart(self) -> bool:
        """Whether it is known which terms are which part's."""
        return all(part.terms is not None for part in self.parts)

    def misfit(self, terms: int) -> str | None:
        """What keeps it from being the origin of a patch of so many terms; None where nothing does."""
        counted = [part.terms for part in self.parts if part.terms is not None]
        if len(counted) == len(self.parts) and sum(counted) != terms:
            return f"its origin tells of {sum(counted)} terms, and it has {terms}"
        return None

    def merged(self, terms: int) -> Origin:
        """That of the same edits in `terms` terms, of which nobody knows any more which part's they are."""
        return self._counted(terms if len(self.parts) == 1 else None)

    def _counted(self, terms: int | None) -> Origin:
        return self.model_copy(update={"makings": tuple(making.model_copy(update={"parts": tuple(
            part.model_copy(update={"terms": terms}) for part in making.parts)}) for making in self.makings)})

    def without(self, number: int) -> tuple[slice, Origin]:
        """The terms of the edit of that number, counted from 1, and the origin of the others. Raises `InputError` where
        there is no such edit, or its terms are not its own."""
        if not self.facts:
            raise InputError("the patch makes no edits: there is none to take away")
        if not 1 <= number <= len(self.facts):
            raise InputError(f"there is no edit {number}: the patch has edits 1 to {len(self.facts)}")
        start, seen, makings = 0, 0, []
        span = slice(0)
        for making in self.makings:
            kept = []
            for part in making.parts:
                if not seen < number <= seen + len(part.facts):
                    kept.append(part)
                elif part.terms is None:
                    raise InputError(f"edit {number} cannot be taken away: the changes of all {len(self.facts)} edits "
                                     f"are added up, as they are where whole weights change. {APART}")
                elif len(part.facts) > 1:
                    raise InputError(f"edit {number} cannot be taken away: it is one of {len(part.facts)} (edits "
                                     f"{seen + 1} to {seen + len(part.facts)}) that were made at once, as one change. "
                                     f"{APART}")
                else:
                    span = slice(start, start + part.terms)
                seen, start = seen + len(part.facts), start + (part.terms or 0)
            makings += [making.model_copy(update={"parts": tuple(kept)})] if kept else []
        return span, self.model_copy(update={"makings": tuple(makings)})

    def before(self, other: Origin) -> Origin:
        """That of a sum. Raises `InputError` where the two are of different models."""
        if other.model.digest != self.model.digest:
            raise InputError(f"the patch was made for model '{other.model.name}' (digest {other.model.digest}), and "
                             f"what it is added to for '{self.model.name}' (digest {self.model.digest}): patches of "
                             "one model alone add up; leave it out, or make the edits anew on that one")
        together = self.model_copy(update={"makings": _joined(*self.makings, *other.makings)})
        return together if together.apart else together._counted(None)

    def check(self, name: str, digest: str) -> None:
        """Raises `InputError` for another model than the patch was made on."""
        if digest != self.model.digest:
            raise InputError(f"the patch was made for model '{self.model.name}' (digest {self.model.digest}), and not "
                             f"for '{name}' (digest {digest}): take that model, as it was then, or make the edits anew "
                             f"on this one")


def joined(left: Origin | None, left_terms: int, right: Origin | None, right_terms: int) -> Origin | None:
    """The origin of the sum of two patches. Raises `InputError` where they are of different models."""
    if left is None and right is None:
        return None
    if left is None:
        assert right is not None
        left = _unknown(right, left_terms)
    return left.before(_unknown(left, right_terms) if right is None else right)


def versions() -> dict[str, str]:
    """Of what an edit is computed with."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a checkout that is not installed
            continue
    return found


def _unknown(like: Origin, terms: int) -> Origin:
    """That of terms of which nothing is noted, taken to be for the same model."""
    makings = (Making(parts=(Part(terms=terms),)),) if terms else ()
    return Origin(model=like.model, makings=makings)


def _joined(*makings: Making) -> tuple[Making, ...]:
    """The makings, with those that follow each other and differ in their parts alone as one."""
    found: list[Making] = []
    for making in makings:
        if found and found[-1].model_copy(update={"parts": making.parts}) == making:
            making = making.model_copy(update={"parts": found.pop().parts + making.parts})
        found.append(making)
    return tuple(found)
