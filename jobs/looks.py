"""What can be seen of a campaign from outside: in its store, or at the address of its metrics."""

from __future__ import annotations

import math
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from typing import Literal

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from pydantic import BaseModel, ConfigDict

from cluster.exporter.declared import PREFIX
from cluster.exporter.glance import Glance, MeanSoFar, StoreCalls, calls_of, told
from cluster.exporter.snapshot import Frozen
from cluster.store.store import Store
from editors.core.errors import InputError, quoted
from editors.core.places import scrubbed, shown
from jobs.console import count

ANSWER = 10.0  # seconds to wait for one
NO_URL = "it is no address that can be asked, or no web server answers there"
LARGEST = 16 << 20  # bytes of an answer


class Look(BaseModel):
    """A campaign as one look found it: it is `running`, or its driver is `dead`, or it is `stopped` before it was done,
    or `done`, with failures or without, or its metrics are `gone`. `counter` grows as long as the driver lives."""

    model_config = ConfigDict(frozen=True)

    campaign: str
    standing: Literal["running", "dead", "stopped", "done", "gone"]
    driver: str = ""
    counter: float = 0
    glance: Glance = Glance()


def look(place: str) -> Look:
    """At a store, or at metrics where `place` starts with http. Raises `InputError` where there is no campaign."""
    is_address = place.partition("://")[0].lower() in ("http", "https")
    return _at_metrics(place) if is_address else _in_store(Store.open(place))


def _in_store(store: Store) -> Look:
    driver = store.driver()
    if driver is not None and not driver.surely_dead:
        return Look(campaign=driver.campaign, standing="running", driver=driver.who, counter=driver.counter,
                    glance=told(driver))
    records = store.campaigns()
    record = next((each for each in records if driver is not None and each.name == driver.campaign),
                  records[0] if records else None)
    if record is None:
        raise InputError(f"no campaign was run into store '{store.place}' yet; `editfleet run CAMPAIGN --out "
                         f"{store.place}` does")
    standing = store.standing(record)
    done, failed = len(standing.done), len(standing.failures)
    glance = Glance(tasks=len(record.tasks), done=done, failed=failed, edits=sum(task.edits for task in record.tasks),
                    edits_done=sum(task.edits for task in record.tasks if task.id in standing.done))
    if driver is not None:
        return Look(campaign=record.name, standing="dead", driver=driver.who, glance=glance)
    return Look(campaign=record.name, standing="done" if done + failed == len(record.tasks) else "stopped",
                glance=glance)


# --- metrics


def _at_metrics(url: str) -> Look:
    text = _fetched(url)
    try:
        samples = _by_name(text_string_to_metric_families(text))
        [info] = samples[f"{PREFIX}campaign_info"]
        return Look(campaign=info.labels["campaign"], standing="running", glance=_glance(samples),
                    counter=_one(samples, "driver_heartbeat_timestamp_seconds"))
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:  # the parser raises whatever happens in it
        raise InputError(f"what {quoted(shown(url))} answers is no metrics of a campaign: it has ended, has not begun, "
                         "or something else is there") from error


def _fetched(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER) as answer:
            data = answer.read(LARGEST + 1)
    except (OSError, ValueError, HTTPException) as error:
        told = scrubbed(str(getattr(error, "reason", None) or error), url) if isinstance(error, OSError) else NO_URL
        raise InputError(f"nothing of a campaign at {quoted(shown(url))}: {told}; `editfleet status STORE` tells where "
                         "its metrics are, if anywhere") from error
    if len(data) > LARGEST:
        raise InputError(f"what {quoted(shown(url))} answers is no metrics of a campaign: it is far too long")
    return str(data, "utf-8", "replace")


Samples = Mapping[str, list[Sample]]


def _by_name(families: Iterable[Metric]) -> Samples:
    found: dict[str, list[Sample]] = defaultdict(list)
    for family in families:
        for sample in family.samples:
            found[sample.name].append(sample)
    return found


def _one(samples: Samples, name: str) -> float:
    [sample] = samples[PREFIX + name]
    return sample.value


def _summed(samples: Samples, name: str, label: str) -> dict[str, int]:
    """The values above 0 of a metric by one of its labels."""
    found: dict[str, int] = {}
    for sample in samples.get(PREFIX + name, []):
        key = sample.labels[label]
        found[key] = found.get(key, 0) + int(sample.value)
    return {key: value for key, value in found.items() if value}


def _glance(samples: Samples) -> Glance:
    stages, workers = _summed(samples, "tasks", "state"), _summed(samples, "workers", "state")
    remaining = _one(samples, "expected_remaining_seconds")
    return Glance(
        tasks=sum(stages.values()), done=stages.get("done", 0), failed=stages.get("set_aside", 0),
        edits=int(_one(samples, "edits_planned")), edits_done=int(_one(samples, "edits_done")),
        share=_one(samples, "progress_ratio"), remaining=None if math.isnan(remaining) else remaining,
        workers=workers.get("idle", 0) + workers.get("busy", 0), starting=workers.get("starting", 0),
        lost=_summed(samples, "workers_lost_total", "reason"), retries=_summed(samples, "task_retries_total", "reason"),
        failures=_summed(samples, "task_failures_total", "reason"), store=_store(samples), means=_means(samples))


def _store(samples: Samples) -> dict[str, StoreCalls]:
    errors = _summed(samples, "store_errors_total", "operation")
    totals = {sample.labels["operation"]: sample.value for sample in samples.get(f"{PREFIX}store_seconds_sum", [])}
    found: dict[str, StoreCalls] = {}
    for operation, total in totals.items():
        upto = sorted((float(sample.labels["le"]), int(sample.value))
                      for sample in samples[f"{PREFIX}store_seconds_bucket"]
                      if sample.labels["operation"] == operation)
        counts = tuple(after - before for (_, after), (_, before) in zip(upto, [(0.0, 0), *upto[:-1]], strict=True))
        found[operation] = calls_of(Frozen(counts, total), errors.get(operation, 0))
    return found


def _means(samples: Samples) -> list[MeanSoFar]:
    scored = {tuple(sorted(sample.labels.items())): int(sample.value)
              for sample in samples.get(f"{PREFIX}cases_scored", [])}
    return [MeanSoFar.model_validate({**sample.labels, "mean": sample.value,
                                      "n": scored[tuple(sorted(sample.labels.items()))]})
            for sample in samples.get(f"{PREFIX}metric_mean", [])]


def ending(seen: Look) -> str:
    """What there is to say of a campaign that is not being run, in one line."""
    glance = seen.glance
    failed = f", {glance.failed} failed" if glance.failed else ""
    how_far = f"{glance.done} of {count(glance.tasks, 'task')} done{failed}"
    match seen.standing:
        case "dead":
            return f"{seen.campaign} was being run by {seen.driver}, which is dead: {how_far}; running it again goes on"
        case "stopped":
            return f"{seen.campaign} is not being run: {how_far}; running it again goes on"
        case "gone":
            return f"{seen.campaign} does not show its metrics any more, as when a run ends; at the last look {how_far}"
    again = "; running it again tries again what failed" if glance.failed else ""
    return f"{seen.campaign} is finished: {how_far}{again}"
