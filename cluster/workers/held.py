"""The model and the editor that a process used last: most tasks share them with the one before."""

from __future__ import annotations

from collections.abc import Callable

from cluster.plan.refs import EditorRef, ModelRef, digest
from cluster.plan.tasks import Method, ScoreTask, StreamTask, Task, TrainTask, ValuesTask
from cluster.store.store import Store
from editors import get_editor
from editors.core.artefacts import Artefact
from editors.core.editor import Editor, Resources
from editors.core.errors import InputError
from editors.core.memory import KEPT_STATES, Room
from editors.core.models.kept import KeptStates
from editors.core.models.loading import load_model, model_digest
from editors.core.models.model import LanguageModel
from editors.core.models.statistics import load_moments
from editors.core.models.weights import Weights
from evaluators.datasets import check_content
from evaluators.metering.meter import Meter


def check_models(ref: EditorRef) -> None:
    """Raises `InputError` where a model that an editor's settings name is not the one it was planned with."""
    for name, planned in ref.content.items():
        check_content(ref.config[name], planned, model_digest)


class Held:
    """What is held for the tasks to come. `load` is how models come in, called like `load_model`."""

    def __init__(self, device: str) -> None:
        self.load: Callable[..., LanguageModel] = load_model
        self._device = device
        self._model: LanguageModel | None = None
        self._model_key = ""
        self._editor: Editor | None = None
        self._editor_key = ""
        #: By the model of tasks, and their editor or what they do.
        self._rooms: dict[str, Room] = {}

    def room(self, task: Task) -> Room:
        """What memory has room for at once in tasks of an editor, or of a kind that has none."""
        match task:
            case TrainTask():
                editor: EditorRef | None = task.editor
            case ScoreTask() | StreamTask() | ValuesTask():
                editor = task.method.editor
            case _:
                editor = None
        # training has a version of its own, but is the same editor's
        kind = task.kind if editor is None else {**editor.identity(), "version": None}
        return self._rooms.setdefault(digest([task.model.key, kind]), Room())

    @property
    def start(self) -> list[str] | None:
        """The tokens that prompts to the model begin with; None without a model, as for sums of shards."""
        if self._model is None:
            return None
        return list(self._model.tokenizer.convert_ids_to_tokens(list(self._model.start)))

    def model(self, ref: ModelRef, meter: Meter) -> LanguageModel:
        """The model of a task. The one held before is let go first: two may not fit.

        Raises `InputError` where it is not the model that was planned with.
        """
        if self._model is None or self._model_key != ref.key:
            self._model = self._editor = None
            with meter.phase("load"):
                model = self.load(ref.path, device=self._device, dtype=ref.dtype)
            if model.digest != ref.digest:
                raise InputError(f"the model at '{ref.path}' has changed since the campaign was planned; run it again")
            if type(model.weights) is Weights:  # else a rank without some would leave others waiting
                # an eighth of what is free beside it, at most
                model.kept = KeptStates(min(KEPT_STATES, int(model.weights.free(model.device) / 8)))
            self._model, self._model_key = model, ref.key
        return self._model

    def editor(self, method: Method, model: LanguageModel, store: Store, meter: Meter) -> Editor:
        """The editor of a task, on a model held, with what the store has for it; making one may mean factoring a large
        matrix."""
        key = digest([method.identity(), method.needs])
        if self._editor is None or self._editor_key != key:
            self._editor = None
            make = get_editor(method.editor.name)
            check_models(method.editor)
            with meter.phase("load"):
                moments = load_moments(store.local(method.statistics.key)) if method.statistics else {}
                self._editor = make(model, make.Config.model_validate(method.editor.config),
                                    Resources(moments, _artefact(method, store)), seed=method.seed)
            self._editor_key = key
        return self._editor

    def forget(self) -> None:
        """Lets go of what is held for later tasks alone, where memory does not suffice: states, and an editor's factors
        or networks."""
        self._editor = None
        if self._model is not None and self._model.kept is not None:
            self._model.kept.clear()


def _artefact(method: Method, store: Store) -> Artefact | None:
    """What a trained method learned: from its file, or from the training task."""
    if method.artefact is None:
        return Artefact.load(store.local(method.training)) if method.training else None
    artefact = Artefact.load(method.artefact.path)
    if artefact.digest != method.artefact.digest:
        raise InputError(f"'{method.artefact.path}' has changed since the campaign was planned; run it again")
    return artefact
