"""A campaign of hand-made tasks as those see it who watch: told event by event, without a driver or workers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

from prometheus_client.parser import text_string_to_metric_families

from cluster.exporter.gauges import Gauges
from cluster.exporter.latest import Latest
from cluster.exporter.tally import Tally
from cluster.plan.labels import Labels
from cluster.progress import Progress
from cluster.scheduler.events import GiveUp, StartWorker, TaskDone, TaskNode, Tick, WorkerUp
from cluster.scheduler.state import CampaignState, RetryPolicy
from cluster.store.records import CampaignRecord
from evaluators.metering.account import Account
from evaluators.metering.spent import Memory, Spent

FULL = Account(
    phases={phase: Spent(seconds=2.0, memory=Memory(allocated=5, reserved=6, device=7, rss=8))
            for phase in ("load", "baseline", "statistics", "train", "edit", "score", "store")},
    edits=4, diverged=1, probes=40,
    scored={metric: (3.0, 4) for metric in ("reliability.exact", "generality.exact", "locality.exact",
                                            "locality.unrelated.exact", "portability.exact", "reliability.token")})


class Watched:
    """Tasks by id, each with what it needs and what it is about; `at` is the driver's clock."""

    def __init__(self, tasks, workers=1, *, models=("m",), datasets=("d",), editors=("ft",), name="small",
                 place="place", **retries):
        self.at = 0.0
        named = [[SimpleNamespace(name=each) for each in names] for names in (models, datasets, editors)]
        self.labels_of = {task: labels for task, (_, labels) in tasks.items()}
        plan = SimpleNamespace(labels=self.labels_of.__getitem__, campaign=SimpleNamespace(
            **dict(zip(("models", "datasets", "editors"), named, strict=True))),
            tasks={task: SimpleNamespace(kind=labels.kind) for task, labels in self.labels_of.items()})
        self.tally = Tally(plan, lambda: self.at)
        self.state = CampaignState([TaskNode(task, needs=needs, cost=10.0, limit=100.0, pieces=4, kind=labels.kind)
                                    for task, (needs, labels) in tasks.items()], workers=workers,
                                   retries=RetryPolicy(**retries))
        self.progress = Progress(len(tasks), 4 * len(tasks), 10.0 * len(tasks))
        record = CampaignRecord(name=name, digest="0123", started=datetime.now(UTC), datasets=(), tasks=())
        self.gauges = Gauges(self.tally, record, place, self.progress)
        self.latest = Latest()
        self._carry_out(None, self.state.start())

    def tell(self, *events):
        for event in events:
            self._carry_out(event, self.state.handle(event))

    def _carry_out(self, event, instructions):
        self.tally.handled(event, instructions)
        if isinstance(event, TaskDone):
            self.progress = replace(self.progress, done=self.progress.done + 1, edits_done=self.progress.edits_done + 4,
                                    cost_done=self.progress.cost_done + 10.0)
        for instruction in instructions:
            match instruction:
                case StartWorker(worker):
                    self.tell(WorkerUp(worker))
                case GiveUp():
                    self.progress = self.progress.with_failed()

    def time(self, seconds):
        """Lets a time of less than a tick's longest pass."""
        self.at += seconds
        self.tell(Tick(self.at))

    def doing(self, worker=0):
        return self.tally.at[worker].task

    def finish(self, worker=0, seconds=1.0, account=FULL):
        self.tell(TaskDone(worker, self.doing(worker), seconds, account))

    def show(self, memory=None):
        self.tally.count_told()
        self.latest.publish(self.gauges.snapshot(self.state, self.progress, memory))

    def shown(self, memory=None):
        """Every series of the campaign's, but for the label `campaign`: its name with labels as text, and its value."""
        self.show(memory)
        found = {}
        for family in text_string_to_metric_families(self.latest.text().decode()):
            for sample in family.samples:
                labels = {name: value for name, value in sample.labels.items() if name != "campaign"}
                told = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
                found[sample.name.removeprefix("editfleet_") + (f"{{{told}}}" if told else "")] = sample.value
        return found


def score(model="m", editor="ft", dataset="d", protocol="single", edits=1):
    return Labels("score", model, editor, dataset, protocol, edits)


__all__ = ["FULL", "Watched", "score"]
