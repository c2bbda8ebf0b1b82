"""The tasks of a search: campaigns of one editor with other settings, on cases that the campaign itself never sees."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cluster.campaign.search import SearchSpec
from cluster.campaign.spec import Campaign, EditorSpec
from cluster.plan.planner import Plan, plan
from cluster.plan.proposals import Space
from cluster.plan.resolve import check_names, is_for, resolve_model
from cluster.plan.tasks import ScoreTask
from cluster.store.records import SweptEntry, TaskRecord
from cluster.store.store import Store
from editors import get_editor, resolve_config
from editors.core.errors import InputError, unknown
from evaluators.datasets import Dataset, load_dataset, validation_set
from evaluators.report.objective import Objective

MARK, FOUND = " (search)", " (found)"  # behind the campaign's name, and behind the editor's
Chosen = Mapping[str, Any]  # settings that are tried


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and how they did; without a score, why not."""

    label: str
    settings: Chosen
    score: float | None
    reason: str = ""


@dataclass(frozen=True)
class Trials:
    """A campaign's search, which is sound; `editor` is the one whose settings are searched."""

    campaign: Campaign
    search: SearchSpec
    editor: EditorSpec
    spaces: Mapping[str, Space]
    objective: Objective
    validation: tuple[Dataset, ...]

    @classmethod
    def of(cls, campaign: Campaign) -> Trials:
        """Raises `InputError`, with its place in the campaign's file, for what cannot be searched."""
        if campaign.search is None:
            raise InputError(f"campaign '{campaign.name}' has no search: add 'search', with 'editor' and 'over', what "
                             "to search; or run it as it is")
        check_names(campaign)
        for number, entry in enumerate(campaign.datasets):
            if entry.known is not None:
                with campaign.at("datasets", number, "known"):
                    raise InputError(f"a search is judged on other cases than the campaign, and models are not asked "
                                     f"what they know of those; leave 'known: {entry.known}' out of it, and 'run' a "
                                     "campaign with the settings that it finds")
        search = campaign.search
        editor = _editor(campaign, search)
        spaces = _spaces(campaign, search, editor)
        with campaign.at("search", "objective"):
            objective = Objective(search.objective)
        if not any(protocol.scored for protocol in campaign.protocols):
            with campaign.at("protocols"):
                raise InputError("no protocol scores edits, and a search goes by scores; add 'single'")
        return cls(campaign, search, editor, spaces, objective, _validation(campaign, search, editor))

    def label(self, settings: Chosen) -> str:
        """What rows call an editor with these settings."""
        return " ".join([self.editor.title, *(f"{name}={spelt(value)}" for name, value in settings.items())])

    def plan(self, tried: Sequence[Chosen]) -> Plan:
        """The tasks of trials with these settings: of all so far, so that one report shows them, as a sweep."""
        specs = {self.label(settings): self._with(self.label(settings), settings) for settings in tried}
        protocols = tuple(protocol for protocol in self.campaign.protocols if protocol.scored)
        made = plan(self.campaign.model_copy(update={
            "name": self.campaign.name + MARK, "editors": tuple(specs.values()), "protocols": protocols}),
            given=self.validation)
        return replace(made, sweep=tuple(
            SweptEntry(part="editors", name=label, varies=self.editor.title,
                       settings={name: spec.config[name] for name in self.spaces}) for label, spec in specs.items()))

    def outcome(self, best: Chosen) -> Plan:
        """The campaign on its own cases, with the best settings beside the others."""
        label = self.editor.title + FOUND
        return plan(self.campaign.model_copy(update={
            "editors": (*self.campaign.editors, self._with(label, best))}))

    def judge(self, planned: Plan, store: Store, settings: Chosen) -> Trial:
        """How a trial that was run did, by what is in the store."""
        label = self.label(settings)
        tasks = [task.record() for task in planned.tasks.values()
                 if isinstance(task, ScoreTask) and task.editor_title == label]
        table = store.rows(tasks)
        try:
            if reason := _missing(store, planned, tasks):
                raise InputError(reason)
            return Trial(label, settings, self.objective.score(table))
        except InputError as error:
            return Trial(label, settings, None, str(error))

    def ranked(self, tried: Sequence[Trial]) -> list[Trial]:
        """Those that have a score, each once and the best first; of equal ones the earlier."""
        scored = {trial.label: trial for trial in reversed(tried) if trial.score is not None}
        order = {trial.label: number for number, trial in reversed(list(enumerate(tried)))}
        sign = -1 if self.objective.better == "higher" else 1
        return sorted(scored.values(), key=lambda trial: (sign * (trial.score or 0.0), order[trial.label]))

    def best(self, tried: Sequence[Trial]) -> Trial | None:
        return next(iter(self.ranked(tried)), None)

    def _with(self, label: str, settings: Chosen) -> EditorSpec:
        return self.editor.model_copy(update={"label": label, "config": {**self.editor.config, **settings}})


def _missing(store: Store, planned: Plan, tasks: Sequence[TaskRecord]) -> str:
    """Why some of these tasks have no result; "" where all have."""
    standing = store.standing(planned.record(datetime.now(UTC)))
    lost = {task.id for task in tasks} - standing.done
    failures = [failure.summary for failure in standing.failures if failure.task in lost]
    return next(iter(failures), f"{len(lost)} of its {len(tasks)} tasks are not done" if lost else "")


def _editor(campaign: Campaign, search: SearchSpec) -> EditorSpec:
    by_label = [editor for editor in campaign.editors if editor.title == search.editor]
    chosen = by_label or [editor for editor in campaign.editors if editor.name == search.editor]
    with campaign.at("search", "editor"):
        if not chosen:
            raise unknown("editor of this campaign", search.editor, [editor.title for editor in campaign.editors])
        if len(chosen) > 1:
            raise InputError(f"'{search.editor}' may be any of {', '.join(editor.title for editor in chosen)}; name "
                             "one by its label")
        if chosen[0].title + FOUND in (editor.title for editor in campaign.editors):
            raise InputError(f"the best settings will be called '{chosen[0].title + FOUND}', as another editor of "
                             "the campaign is; give that one another label")
    return chosen[0]


def _spaces(campaign: Campaign, search: SearchSpec, editor: EditorSpec) -> dict[str, Space]:
    """What is searched; every choice, and the ends of every range, make a configuration for each model."""
    fields = get_editor(editor.name).Config.model_fields
    spaces: dict[str, Space] = {}
    for name, values in search.over.items():
        with campaign.at("search", "over", name):
            if name not in fields:
                raise unknown(f"setting of {editor.name}", name, fields)
            spaces[name] = Space(values, fields[name].annotation)
    for number, model in enumerate(campaign.models):
        if not is_for(model, editor):
            continue
        with campaign.at("models", number):
            _, config = resolve_model(model, campaign.workers.threads)
        first = {name: space.ends[0] for name, space in spaces.items()}
        for name, space in spaces.items():
            with campaign.at("search", "over", name):
                for end in space.ends:
                    resolve_config(editor.name, config, {**editor.config, **first, name: end})
    return spaces


def _validation(campaign: Campaign, search: SearchSpec, editor: EditorSpec) -> tuple[Dataset, ...]:
    learns = get_editor(editor.name).trained and editor.artefact is None
    found = []
    for number, entry in enumerate(campaign.datasets):
        with campaign.at("datasets", number):
            if learns and entry.limit is None:
                raise InputError(f"'{editor.title}' is trained on the cases that data set '{entry.name}' would be "
                                 "validated on; give it a 'limit', behind which others are")
            found.append(validation_set(load_dataset(entry), search.validation.limit))
    return tuple(found)


def spelt(value: Any) -> str:
    """A value of a setting, as labels have it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
