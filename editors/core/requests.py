"""What is asked of an editor."""

from __future__ import annotations

import re
from dataclasses import dataclass

from editors.core.errors import CaseError, quoted
from editors.core.lookalikes import how_they_differ


@dataclass(frozen=True)
class EditRequest:
    """Make the model continue `prompt` with `target`; `subject` is the part of the prompt the fact is about.

    `subject_start` is the subject's character offset in the prompt, for prompts that name the subject more than once;
    without it the first occurrence that stands as a word of its own is taken. `target_true` is the answer to be
    replaced, where it is known. Raises `CaseError` for an empty target or a subject that is not in the prompt.
    """

    prompt: str
    subject: str
    target: str
    target_true: str | None = None
    id: str = ""
    subject_start: int | None = None

    def __post_init__(self) -> None:
        if not self.target.strip():
            raise CaseError("the target is empty")
        if not self.subject.strip():
            raise CaseError("the subject is empty")
        if self.subject_start is None:
            object.__setattr__(self, "subject_start", find_subject(self.prompt, self.subject))
        elif not self.prompt.startswith(self.subject, self.subject_start):
            alike = how_they_differ(self.subject, self.prompt[max(self.subject_start, 0):])
            raise CaseError(f"subject {quoted(self.subject)} is not at character {self.subject_start} of "
                            f"{quoted(self.prompt)}{alike}")

    @property
    def subject_end(self) -> int:
        """Character offset just past the subject's last character that is not white space."""
        assert self.subject_start is not None
        return self.subject_start + len(self.subject.rstrip())


def find_subject(prompt: str, subject: str) -> int:
    """Character offset of `subject` in `prompt`; occurrences that are whole words come first."""
    whole = re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", prompt)
    start = whole.start() if whole else prompt.find(subject)
    if start < 0:
        alike = how_they_differ(subject, prompt)
        raise CaseError(f"subject {quoted(subject)} is not in prompt {quoted(prompt)}{alike}")
    return start
