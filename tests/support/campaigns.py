"""Fixtures of the tests in `cluster` and `jobs`: a campaign of seconds, and workers without Ray."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

os.environ["RAY_AUTH_MODE"] = "disabled"  # before anything imports ray
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's 15 starves workers where other processes are busy
os.environ["RAY_prestart_worker_first_driver"] = "0"  # noqa: SIM112 - else one per CPU, needed or not

from types import ModuleType

import pytest
import torch
import yaml

import editors
from cluster.driver import run_campaign
from cluster.scheduler.events import ResultDamaged, TaskDone, TaskFailed, WorkerUp
from cluster.store.errors import Damaged
from cluster.workers.executor import TaskExecutor
from editors.core.artefacts import Artefact
from editors.core.editor import Editor, EditorConfig
from editors.core.patches.patch import LowRank, Patch

ROME = {"layer": 1, "steps": 2, "contexts": [[2, 2]]}
FT = {"layers": [1], "steps": 2}


@pytest.fixture(scope="session")
def tiny_folder(tiny_gptj, tmp_path_factory):
    """The tiny model as a folder, as `load_model` reads it."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_gptj.module.save_pretrained(folder)
    tiny_gptj.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def write_campaign(tiny_folder, tmp_path):
    """Writes a campaign of 4 cases on the tiny model, with some fields changed; returns the file."""

    def write(**changes):
        fields = {"name": "small", "models": [{"name": "tiny", "path": str(tiny_folder)}],
                  "datasets": [{"name": "testbed-cloze", "limit": 4}], "chunk": 2,
                  "editors": ["identity", {"name": "ft", "config": FT}, {"name": "rome", "config": ROME}],
                  "statistics": {"tokens": 500}}
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump({**fields, **changes}))
        return path

    return write


class LocalPool:
    """Workers that run their tasks in this process, one after another."""

    def __init__(self, store, size=1):
        self.room, self.on_gpu = size, False
        self.store, self.queue, self.ran = store, [], []
        self.executors = {}

    def start(self, worker):
        self.executors[worker] = TaskExecutor(self.store)
        self.queue.append(WorkerUp(worker))

    def retire(self, worker):
        self.executors.pop(worker)

    def assign(self, worker, task, parts):
        self.queue.append((worker, task, parts))

    def wait(self, seconds):
        if not self.queue:
            return []
        item = self.queue.pop(0)
        if isinstance(item, WorkerUp):
            return [item]
        worker, task, parts = item
        self.ran.append(task.id)
        try:
            self.executors[worker].run(task, parts)
        except Damaged as error:
            return [ResultDamaged(worker, task.id, error.key.id, str(error))]
        except Exception as error:
            return [TaskFailed(worker, task.id, f"{type(error).__name__}: {error}")]
        return [TaskDone(worker, task.id)]

    def memory(self):
        return {}


@pytest.fixture
def local_pool():
    """A function from a store to something `run_campaign` can connect to; `.pools` are the pools it made."""

    class Connect:
        def __init__(self):
            self.pools = []

        def __call__(self, store, size=1):
            @contextmanager
            def connect():
                self.pools.append(LocalPool(store, size))
                yield self.pools[-1]
            return connect

    return Connect()


def run_here(planned, store, local_pool):
    """Runs a plan in this process, with one thread as a worker has, and leaves PyTorch's as they were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run_campaign(planned, store, local_pool(store)).failed == 0
    finally:
        torch.set_num_threads(threads)


class Drilled(Editor):
    """Learns one number, the count of its training examples, and adds it to every answer; counts its training runs."""

    name = "drilled"
    version = 1
    joint = True
    trained = True
    runs = 0

    class Config(EditorConfig):
        width: int = 1
        strength: float = 1.0

    @classmethod
    def training_settings(cls, config):
        return {"width": config.width}

    @classmethod
    def train(cls, model, config, examples, *, seed=0, checkpoint=None, on_step=None):
        cls.runs += 1
        assert examples and all(example.unchanged and example.paraphrases for example in examples)
        checkpoint.path.write_bytes(b"half way")
        if on_step is not None:
            on_step(100, 0.5)
        return Artefact(cls.name, cls.training_version, cls.training_settings(config), model.digest,
                        {"learned": torch.tensor(float(len(examples)))}, {"loss": 0.5})

    def edit_each(self, requests):
        size = float(self.artefact.tensors["learned"]) * self.config.strength
        return [Patch((LowRank(self.model.down_path(1), torch.full((32, 1), size), torch.ones(64, 1)),))
                for _ in requests]

    def edit(self, requests):
        return self.edit_each(requests)[0]


@pytest.fixture
def drilled(monkeypatch):
    """Registers `Drilled`, a method that has to be trained; returns it."""
    register(monkeypatch, Drilled)
    monkeypatch.setattr(Drilled, "runs", 0)
    return Drilled


def register(monkeypatch, editor):
    """Registers an editor for one test, under its own name."""
    module = ModuleType(f"editor_{editor.name}")
    module.Editor = editor
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(editors.EDITORS, editor.name, f"{module.__name__}:Editor")
