"""What a report says of a campaign beside its scores, read from its store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from cluster.store.results import failed_in, told_by
from cluster.store.source import Source
from editors.core.places import shown
from evaluators.report.page.about import About, Progress, Trouble
from evaluators.report.paper import MODELS
from evaluators.testbed import MODELS as MODELS_BUILT_IN
from jobs.console import kinds
from jobs.filling import as_run, command, lacked, near

PAPERS = {names[-1]: model for model, names in MODELS.items()}  # by their names on the hub
LEAST = 2_000_000_000  # parameters of them
TIME = "%Y-%m-%d %H:%M UTC"


def about(source: Source) -> About:
    """A campaign as it stands. Provenances are read, results are not."""
    _, store, record, _, standing, _ = source
    failed = {failure.task for failure in standing.failures}
    progress = []
    for kind in kinds(record):
        tasks = {task.id for task in record.tasks if task.kind == kind}
        progress.append(Progress(kind, len(tasks), len(tasks & standing.done), len(tasks & failed)))
    found = store.provenances((task.key for task in record.tasks), _of_task)
    scored = {each["model"]: each for each in found if each["model"]}
    driver = store.driver()
    return About(
        store=near(store.place), campaign=record.name, digest=record.digest, started=f"{record.started:{TIME}}",
        read_at=f"{datetime.now(UTC):{TIME}}", fill=lacked(source),
        command=command(source, record.name, as_run(record)),
        running="" if driver is None or driver.surely_dead else f"{driver.campaign}, by {driver.who}",
        progress=progress, datasets=[(data.name, data.cases, data.digest) for data in record.datasets],
        skipped=[Trouble(f"{case.case_id} of {data.name}", case.reason) for data in record.datasets
                 for case in data.skipped],
        failures=[Trouble(failure.title, failure.summary, failure.reason) for failure in standing.failures],
        failed_cases=[Trouble(case.case_id, case.reason, tasks=count)
                      for case, count in failed_in(each["failed"] for each in found).items()],
        notes=[*record.notes, *told_by([(each["notes"], each["device"]) for each in found])], tags=record.tags,
        texts={record.name: record.text} if record.text else {},
        models=list(_models(scored.values())), versions=_versions(found),
        devices=dict(Counter(each["device"] for each in found if each["device"])),
        settings=list(dict.fromkeys((f"{each['editor']} on {each['model']}", each["settings"])
                                    for each in found if each["editor"])),
        papers={name: paper for name, each in scored.items() if (paper := _papers(each["place"]))})


def _of_task(provenance: dict[str, Any]) -> dict[str, Any]:
    """The part of a task's provenance that a page shows."""
    identity = provenance.get("identity") or {}
    titles = identity.get("titles") or (None, None, None)  # of the editor, the model and the data, where it scores
    failed = provenance["failed"] if provenance["output"] == "rows" else ()
    return {"failed": failed, "notes": provenance.get("notes", ()), "device": provenance.get("device"),
            "versions": provenance.get("versions") or {}, "editor": titles[0],
            "model": titles[1], "place": provenance.get("model") or {},
            "settings": json.dumps({name: identity[name] for name in ("editor", "name", "version", "config", "seed")
                                    if identity.get(name) is not None}, ensure_ascii=False)}


def _papers(place: Mapping[str, Any]) -> str | None:
    """Which of the paper's models one is, by its name on the hub and its size: a folder, a hub's name, or its cache."""
    names = {part.lower().rpartition("--")[2] for part in PurePosixPath(str(place.get("path", ""))).parts}
    large = (place.get("shape") or {}).get("parameters", 0) >= LEAST
    return next((paper for name, paper in PAPERS.items() if name in names and large), None)


def _where(path: str) -> str:
    """Where a model is: of a built-in one its name, not where EditFleet is installed."""
    ends = {there.parts[-4:]: name for name, there in MODELS_BUILT_IN.items()}
    built_in = ends.get(PurePosixPath(path).parts[-4:])
    return f"{built_in} (built in)" if built_in else shown(path)


def _models(found: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    for each in found:
        place = each["place"]
        shape = place.get("shape") or {}
        yield {"model": str(each["model"]), "where": _where(str(place.get("path", "?"))),
               "digest": str(place.get("digest", "?")), "dtype": str(place.get("dtype", "?")),
               "parameters": f"{shape.get('parameters', 0):,}"}


def _versions(found: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Every version of each package that results were made with."""
    versions: dict[str, set[str]] = {}
    for each in found:
        for package, version in each["versions"].items():
            versions.setdefault(package, set()).add(version)
    return {package: ", ".join(sorted(all_of)) for package, all_of in sorted(versions.items())}
