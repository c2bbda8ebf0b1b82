"""The unedited model as an editor: the baseline row of every table."""

from __future__ import annotations

from collections.abc import Sequence

from editors.core.editor import Editor
from editors.core.patches.patch import Patch
from editors.core.requests import EditRequest


class Identity(Editor):
    """Answers every request with the empty patch."""

    name = "identity"
    version = 1
    joint = True

    def edit_each(self, requests: Sequence[EditRequest]) -> list[Patch]:
        return [Patch() for _ in requests]

    def edit(self, requests: Sequence[EditRequest]) -> Patch:
        return Patch()
