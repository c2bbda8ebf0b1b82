"""What the page of a report says of a campaign beside its scores, read from its store."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from cluster.store.errors import Damaged
from cluster.store.merging import Merged
from cluster.store.records import CampaignRecord, Standing
from cluster.store.source import Source
from cluster.store.store import Store
from editors.core.places import shown
from evaluators.report.page.about import About, Progress, Trouble
from evaluators.report.page.page import write_page
from evaluators.report.paper import MODELS
from evaluators.report.sweeps import Point
from jobs.console import kinds, shipped_campaigns, warn_of_damaged

PAPERS = {names[-1]: model for model, names in MODELS.items()}  # by their names on the hub
LEAST = 2_000_000_000  # parameters of them
TIME = "%Y-%m-%d %H:%M UTC"


def write_report(folder: Path, sources: Sequence[Source], merged: Merged, points: Sequence[Point]) -> Path:
    """Writes the page of a campaign, or of several in different stores, into a folder, and gives its path; says what
    of the answers is damaged."""
    asked, seen = list[pa.Table](), set[str]()
    for source in sources:
        damaged: list[Damaged] = []
        tasks = [task for task in source.record.tasks if task.id not in seen]
        seen |= {task.id for task in tasks}
        asked.append(source.store.answers(tasks, damaged))
        warn_of_damaged(source.store.place, damaged)
    campaigns = {source.letter: about(source.store, source.record, source.standing) for source in sources}
    whole = About.joined(campaigns) if len(campaigns) > 1 else campaigns[sources[0].letter]
    answers = pa.concat_tables(asked)
    return write_page(folder, whole, pa.concat_tables([merged.scores, merged.costs]), points,
                      answers if len(answers) else None)


def about(store: Store, record: CampaignRecord, standing: Standing) -> About:
    """A campaign as it stands. Provenances are read, results are not."""
    failed = {failure.task for failure in standing.failures}
    progress = []
    for kind in kinds(record):
        tasks = {task.id for task in record.tasks if task.kind == kind}
        progress.append(Progress(kind, len(tasks), len(tasks & standing.done), len(tasks & failed)))
    found = store.provenances((task.key for task in record.tasks), _of_task)
    scored = {each["model"]: each for each in found if each["model"]}
    driver = store.driver()
    return About(
        store=store.place, campaign=record.name, digest=record.digest, started=f"{record.started:{TIME}}",
        read_at=f"{datetime.now(UTC):{TIME}}", command=_command(store, record),
        running="" if driver is None or driver.surely_dead else f"{driver.campaign}, by {driver.who}",
        progress=progress, datasets=[(data.name, data.cases) for data in record.datasets],
        skipped=[Trouble(f"{case.case_id} of {data.name}", case.reason) for data in record.datasets
                 for case in data.skipped],
        failures=[Trouble(failure.title, failure.summary, failure.reason) for failure in standing.failures],
        failed_cases=[Trouble(case.case_id, case.reason, tasks=count)
                      for case, count in store.failed_cases(record.tasks).items()],
        notes=[*record.notes, *store.told(record.tasks)], tags=record.tags,
        models=list(_models(scored.values())), versions=_versions(found),
        devices=dict(Counter(each["device"] for each in found if each["device"])),
        settings={each["editor"]: each["settings"] for each in found if each["editor"]},
        papers={name: paper for name, each in scored.items() if (paper := _papers(each["place"]))})


def _of_task(provenance: dict[str, Any]) -> dict[str, Any]:
    """The part of a task's provenance that a page shows."""
    identity = provenance.get("identity") or {}
    titles = identity.get("titles") or (None, None, None)  # of the editor, the model and the data, where it scores
    return {"device": provenance.get("device"), "versions": provenance.get("versions") or {}, "editor": titles[0],
            "model": titles[1], "place": provenance.get("model") or {},
            "settings": {name: identity.get(name) for name in ("editor", "name", "version", "config", "seed")
                         if identity.get(name) is not None}}


def _papers(place: Mapping[str, Any]) -> str | None:
    """Which of the paper's models one is, by its name on the hub and its size: a folder, a hub's name, or its cache."""
    names = {part.lower().rpartition("--")[2] for part in PurePosixPath(str(place.get("path", ""))).parts}
    large = (place.get("shape") or {}).get("parameters", 0) >= LEAST
    return next((paper for name, paper in PAPERS.items() if name in names and large), None)


def _command(store: Store, record: CampaignRecord) -> str:
    campaign = record.name if record.name in shipped_campaigns() else "CAMPAIGN"
    return f"editfleet run {campaign} --out {shlex.quote(store.place)}"


def _models(found: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    for each in found:
        place = each["place"]
        shape = place.get("shape") or {}
        yield {"model": str(each["model"]), "where": shown(str(place.get("path", "?"))),
               "digest": str(place.get("digest", "?")), "dtype": str(place.get("dtype", "?")),
               "parameters": f"{shape.get('parameters', 0):,}"}


def _versions(found: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Every version of each package that results were made with."""
    versions: dict[str, set[str]] = {}
    for each in found:
        for package, version in each["versions"].items():
            versions.setdefault(package, set()).add(version)
    return {package: ", ".join(sorted(all_of)) for package, all_of in sorted(versions.items())}
