"""The unedited model as an editor: the baseline row of every table."""

from __future__ import annotations

from collections.abc import Sequence

from editors.core.editor import Editor, EditorConfig
from editors.core.models.architectures import Shape
from editors.core.patches.patch import Patch
from editors.core.requests import EditRequest


class Identity(Editor[EditorConfig]):
    """Answers every request with the empty patch."""

    name = "identity"
    version = 1
    joint = True

    @classmethod
    def cost(cls, config: EditorConfig, shape: Shape) -> float:
        return 0.0

    def edit_each(self, requests: Sequence[EditRequest]) -> list[Patch]:
        return [Patch() for _ in requests]

    def edit(self, requests: Sequence[EditRequest]) -> Patch:
        return Patch()
