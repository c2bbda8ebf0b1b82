"""What a campaign costs on devices that are only named, and what they cannot hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.plan import costs
from cluster.plan.budget import budget
from cluster.plan.devices import KNOWN, parse_devices
from cluster.plan.memory import memory_of
from editors.core.errors import InputError
from editors.core.memory import GIB, USABLE
from editors.core.models.architectures import Shape
from editors.core.models.published import published_config

EDITORS = ["identity", {"name": "ft", "config": {"layers": [1], "steps": 2}},
           {"name": "ft", "label": "slow", "config": {"layers": [1], "steps": 9}}]
FACTORING = [{"name": "rome", "config": {"layer": 1, "steps": 2, "contexts": [[2, 2]]}}]
STREAM = [{"name": "sequential", "lengths": [2]}, "single"]


def cost(planned, devices):
    return budget(planned, parse_devices(devices), dict.fromkeys(planned.tasks, 0.0))


def grown(planned, name="EleutherAI/gpt-j-6b", dtype="float32"):
    """The plan, its model as large as a published one."""
    shape = Shape.of(published_config(name))

    def large(model):
        return replace(model, shape=shape, dtype=dtype)

    tasks = {id: replace(task, model=large(task.model)) for id, task in planned.tasks.items()}
    return replace(planned, tasks=tasks, models={name: large(model) for name, model in planned.models.items()})


@pytest.mark.parametrize(("text", "count", "name"), [
    ("8xV100-32GB", 8, "V100-32GB"), ("1xH200", 1, "H200-141GB"), ("4 x a100-80", 4, "A100-80GB"),
    ("2xA100-40GB", 2, "A100-40GB"), ("8xH100", 8, "H100-80GB"), ("3*l40s", 3, "L40S-48GB")])
def test_devices_are_a_count_and_a_name(text, count, name):
    found = parse_devices(text)
    assert (found.count, found.device) == (count, KNOWN[name]) and str(found) == f"{count}x{name}"


@pytest.mark.parametrize(("text", "told"), [
    ("V100", "expected COUNTxNAME"), ("0xH200", "expected COUNTxNAME"), ("", "expected COUNTxNAME"),
    ("8xV100-32GB,1xH200", "expected COUNTxNAME"), ("-1xH200", "expected COUNTxNAME"),
    ("8xV100", "8xV100-16GB or 8xV100-32GB"), ("8xV100-64GB", "V100-32GB"), ("2xTPU", "H200-141GB")])
def test_other_words_for_devices_are_refused(text, told):
    with pytest.raises(InputError, match=f"--devices '{text}'") as refused:
        parse_devices(text)
    assert told in str(refused.value)


def test_hours_are_those_of_the_tasks_by_who_they_are_for(make_plan):
    planned = make_plan(editors=EDITORS, protocols=STREAM)
    found = cost(planned, "4xA100-40GB")
    factor = costs.CPU_RATE / (19.5e12 / 2) / 3600  # a small model in float32
    assert found.total == pytest.approx(sum(task.cost for task in planned.tasks.values()) * factor)
    slow = [task for task in planned.tasks.values()
            if task.kind in ("score", "stream") and task.method.editor.config.get("steps") == 9]
    assert {task.kind for task in slow} == {"score", "stream"}
    [model] = planned.models
    assert found.by_group["slow", model] == pytest.approx(sum(task.cost for task in slow) * factor)
    assert found.workers == 4 and found.hours == pytest.approx(max(found.total / 4, found.chain))
    [(first, part), *_] = found.largest(3)
    assert part == pytest.approx(max(found.by_group.values()) / found.total) and found.by_group[first] > 0


def test_a_device_of_a_gang_counts_as_much_as_any(make_plan):
    planned = grown(make_plan(editors=FACTORING))
    chosen = cost(planned, "8xV100-32GB")
    assert (chosen.placement.devices, chosen.placement.chosen, chosen.workers) == (2, True, 4)
    assert chosen.total == pytest.approx(
        2 * sum(task.cost for task in planned.tasks.values()) * costs.GPU_RATE / (15.7e12 / 2) / 3600)
    # The smallest of one, two, four and eight whose share fits, by the table of memory itself.
    [model] = planned.models.values()
    need = memory_of(model, planned.tasks.values())
    fitting = [gang for gang in (1, 2, 4, 8) if need.on_each(gang) <= USABLE * 32 * GIB]
    assert min(fitting) == 2
    assert cost(planned, "1xV100-32GB").placement.offload == "cpu"
    assert cost(planned, "1xH200").placement.devices == 1


@pytest.mark.parametrize(("workers", "devices", "told"), [
    ({"devices": 1}, "8xV100-32GB", ("gpt-j needs about", "28.8|29 of the 32 GiB", "devices: 2", "dtype")),
    ({"devices": 4}, "2xA100-80GB", ("'devices: 4'", "2xA100-80GB")),
])
def test_what_the_campaigns_workers_cannot_hold_is_refused(make_plan, workers, devices, told):
    planned = grown(make_plan(editors=FACTORING, workers=workers))
    with pytest.raises(InputError) as refused:
        cost(planned, devices)
    for words in told[1:] if len(told) > 2 else told:
        assert any(word in str(refused.value) for word in words.split("|")), str(refused.value)
    assert not cost(planned, "4xH200").placement.chosen


def test_what_no_placement_holds_is_refused(make_plan, monkeypatch):
    planned = grown(make_plan(editors=EDITORS[:1]))
    small = replace(KNOWN["V100-16GB"], name="V100-2GB", memory=2)
    monkeypatch.setattr("cluster.plan.devices.KNOWN", {small.name: small})
    with pytest.raises(InputError, match=r"without its weights.*the 2 GiB.*more memory"):
        cost(planned, "8xV100")


def test_a_dtype_that_a_device_has_no_units_for_is_refused(make_plan):
    planned = grown(make_plan(editors=EDITORS[:1]), dtype="bfloat16")
    with pytest.raises(InputError, match="V100-32GB does not compute in bfloat16"):
        cost(planned, "8xV100-32GB")
    assert KNOWN["H100-80GB"].rate("bfloat16") > KNOWN["H100-80GB"].rate("float32")


@pytest.mark.parametrize(("name", "billions", "depth", "encoder"), [
    ("EleutherAI/gpt-j-6b", 6.05, 28, 0), ("google/t5-xl-ssm-nq", 2.85, 24, 24), ("google-t5/t5-3b", 2.85, 24, 24)])
def test_published_shapes_have_the_published_numbers_of_parameters(name, billions, depth, encoder):
    shape = Shape.of(published_config(name))
    assert shape.parameters / 1e9 == pytest.approx(billions, abs=0.005)
    assert (shape.depth, shape.encoder) == (depth, encoder)
    assert published_config("gpt2") is None
