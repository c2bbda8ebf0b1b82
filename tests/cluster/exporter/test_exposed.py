"""What Prometheus is shown: exactly what is declared, in bounds, and nothing that is nobody's business."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.watched import FULL, Watched, score

from cluster.campaign.file import load_campaign
from cluster.exporter.declared import METRICS, MOST_NAMES, MOST_WORKERS, OTHER, VALUES
from cluster.exporter.gauges import WorkerMemory
from cluster.plan.labels import Labels
from cluster.plan.planner import plan
from cluster.scheduler.events import TaskFailed, WorkerLost
from evaluators.metering.spent import Memory, Spent
from jobs.console import CAMPAIGNS

ON_GPU = WorkerMemory(1 << 30, 80 << 30, 40 << 30, 30 << 30)
ON_CPU = WorkerMemory(1 << 30, 8 << 30)


def exposition(watched):
    return watched.latest.text().decode()


def series(watched, *, own=False):
    """All samples of the campaign's; with `own`, of the process too."""
    return [sample for family in text_string_to_metric_families(exposition(watched)) for sample in family.samples
            if own or not sample.name.startswith("process_")]


def run(watched, account=FULL):
    """Does all tasks, one after another, on its first worker."""
    while not watched.state.finished:
        watched.finish(account=account)


@pytest.fixture
def whole():
    """A small campaign in which there is something of every metric."""
    watched = Watched({"base": ((), Labels("baseline", "m")), "one": (("base",), score()), "two": (("base",), score())})
    with_gpu = {0: ON_GPU}
    watched.tally.store_took("write", 0.1, True)
    watched.tell(TaskFailed(0, "base", "no"))
    run(watched)
    watched.show(with_gpu)
    return watched


def test_exactly_what_is_declared_is_shown_with_exactly_its_labels(whole):
    shown = {}
    for sample in series(whole):
        labels = frozenset(sample.labels) - {"le"}
        name = sample.name
        for suffix in ("_bucket", "_sum", "_count"):
            if (stem := name.removesuffix(suffix)) in {each.exposed for each in METRICS if each.kind == "histogram"}:
                name = stem
        assert shown.setdefault(name, labels) == labels
    assert shown == {metric.exposed: frozenset(("campaign", *metric.labels)) for metric in METRICS}


def test_labels_have_declared_values(whole):
    for sample in series(whole):
        for metric in METRICS:
            if metric.exposed in (sample.name, sample.name.rpartition("_")[0]):
                for label in metric.labels:
                    if (allowed := VALUES.get((metric.name, label))) is not None:
                        assert sample.labels[label] in allowed, sample


def test_kinds_and_meanings_are_the_declared_ones(whole):
    families = {family.name: family for family in text_string_to_metric_families(exposition(whole))}
    for metric in METRICS:
        family = families[metric.exposed.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.meaning)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
def test_prometheus_own_lint_finds_nothing(whole):
    checked = subprocess.run(["promtool", "check", "metrics"], input=exposition(whole), text=True, capture_output=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def yielded(kind, on_gpu):
    """What a task of a kind yields, and spends in the phases that it has."""
    phases = {"score": ("load", "edit", "score", "store"), "stream": ("load", "edit", "store"),
              "train": ("load", "train", "store")}.get(kind, ("load", kind, "store"))
    found = FULL.model_copy(update={"phases": {
        phase: FULL.phases["edit"] if on_gpu else Spent(seconds=1.0, memory=Memory(rss=8)) for phase in phases}})
    return found if kind in ("score", "stream") else found.model_copy(update={"edits": 0, "probes": 0, "scored": {}})


@pytest.mark.parametrize(("name", "on_gpu"), [("testbed", False), ("table2", True), ("figure6", True),
                                              ("figure7", True)])
def test_the_papers_campaigns_have_fewer_than_2000_series(name, on_gpu):
    """Each of the paper's own, and all it has in one: nine editors alone, in batches and in streams, on CPUs."""
    planned = plan(load_campaign(CAMPAIGNS / f"{name}.yaml", scale=None if name == "testbed" else "testbed"))
    names = [[spec.name for spec in specs] for specs in (planned.campaign.models, planned.campaign.datasets,
                                                         planned.campaign.editors)]
    watched = Watched({task: ((), planned.labels(task)) for task in planned.tasks},
                      models=names[0], datasets=names[1], editors=names[2])
    while not watched.state.finished:
        watched.finish(account=yielded(watched.labels_of[watched.doing()].kind, on_gpu))
    watched.show(dict.fromkeys(range(8), ON_GPU if on_gpu else ON_CPU))
    assert 700 < len(series(watched, own=True)) < 2000
    shown = {sample.labels["editor"] for sample in series(watched) if "editor" in sample.labels}
    assert shown == {"", *names[2]} and {sample.labels["model"] for sample in series(watched)
                                        if "model" in sample.labels} == set(names[0])


def test_a_sweep_of_500_points_has_few_series():
    tasks = {f"point {number}": ((), score(edits=number)) for number in range(500)}
    watched = Watched(tasks)
    run(watched)
    watched.show(dict.fromkeys(range(1000), ON_GPU))
    assert len(series(watched, own=True)) < 300
    assert {sample.labels["edits"] for sample in series(watched) if "edits" in sample.labels} == {
        "1", "10", "100", OTHER}


def test_a_campaign_of_many_names_is_bounded():
    names = [f"name {number}" for number in range(500)]
    tasks = {name: ((), score(name, "ft", name)) for name in names}
    watched = Watched(tasks, models=names, datasets=names)
    run(watched)
    watched.show(dict.fromkeys(range(1000), ON_GPU))
    shown = {sample.labels["model"] for sample in series(watched) if "model" in sample.labels}
    assert shown == {*names[:MOST_NAMES], OTHER} and len(series(watched, own=True)) < 3000
    of_all = {sample.labels["model"]: sample.value for sample in series(watched)
              if sample.name == "editfleet_edits_total"}
    assert of_all[OTHER] == 4 * 450 and of_all["name 0"] == 4


def memory_of(watched, memory):
    watched.show(memory)
    return {sample.labels["worker"]: sample.value for sample in series(watched)
            if sample.name == "editfleet_worker_memory_bytes" and sample.labels["memory"] == "rss"}


def test_a_lost_workers_series_is_gone(whole):
    assert memory_of(whole, {0: ON_GPU, 3: ON_GPU}) == {"0": 1 << 30, "3": 1 << 30}
    assert memory_of(whole, {3: ON_GPU}) == {"3": 1 << 30}
    assert memory_of(whole, {}) == {}


def test_of_many_workers_only_the_most_is_shown(whole):
    memory = {number: WorkerMemory(100 + number, 1000) for number in range(MOST_WORKERS + 1)}
    assert memory_of(whole, memory) == {"max": 100 + MOST_WORKERS}
    fewer = {number: told for number, told in memory.items() if number}
    assert len(memory_of(whole, fewer)) == MOST_WORKERS


def test_ids_errors_and_hosts_are_never_shown():
    watched = Watched({"task-id": ((), score()), "other-id": (("task-id",), score())}, max_worker_losses=1)
    watched.tell(TaskFailed(0, "task-id", "Traceback of Marie Curie"), WorkerLost(0, "lost host-17"))
    watched.show({0: ON_GPU})
    text = exposition(watched)
    assert 'reason="raised"' in text
    for secret in ("task-id", "other-id", "Curie", "Traceback", "host-17"):
        assert secret not in text


def test_names_are_shown_as_text():
    nasty = '\x1b[31m"red"\n\ud800\u202e'
    watched = Watched({"a": ((), score(nasty, "ft", nasty))}, models=[nasty], datasets=[nasty], name=nasty, place=nasty)
    run(watched)
    watched.show()
    text = exposition(watched)
    assert "\x1b" not in text and "\u202e" not in text and r"\\x1b[31m\"red\"\\n" in text


def test_without_a_campaign_only_the_process_is_shown():
    watched = Watched({"a": ((), score())})
    assert "process_cpu_seconds_total" in exposition(watched) and "editfleet" not in exposition(watched)
    assert "_created" not in exposition(watched)
