"""What edits cost: counted by a device that runs behind, and by a real process."""

import gc
import mmap

import pytest
import torch
from support.scripted import Scripted, with_target

from editors.core.errors import InputError
from evaluators.metering import device as devices
from evaluators.metering.meter import Meter
from evaluators.metering.spent import Memory
from evaluators.protocols import efficiency, get_protocol, parse_protocol
from evaluators.testbed import cases as testbed

MIB = 2**20


class Clocked(Scripted):
    """Takes a second of its device for each edit, whoever waits; another two for the first."""

    steps = 1

    def __init__(self, model, device):
        super().__init__(model)
        self.device = device

    def edit_each(self, requests):
        self.device.queue += self.steps * len(requests) + (0 if self.calls else 2)
        return super().edit_each(requests)


class Behind:
    """A device whose clock moves only when somebody waits for it."""

    def __init__(self):
        self.clock = self.queue = 0.0

    def now(self):
        self.clock, self.queue = self.clock + self.queue, 0.0
        return self.clock

    def reset(self):
        return Memory(allocated=1000)

    def peak(self, before):
        return Memory(allocated=1500, allocated_before=before.allocated, device=9000)

    def joules(self):
        return None

    def tidy(self):
        pass


@pytest.fixture(scope="module")
def cases():
    return [case.model_copy(update={"id": str(number)})
            for number, case in enumerate(testbed.testbed_cases("cloze", "eval", 20))]


@pytest.fixture
def clocked(tiny_gptj, monkeypatch):
    device = Behind()
    monkeypatch.setattr(efficiency, "new_meter", lambda where: Meter(where, device))
    return Clocked(tiny_gptj, device)


def values(result):
    found = {}
    for each in result.scores:
        found.setdefault(each.metric, []).append(each.value)
    return found


def test_warm_up_is_left_out_and_every_repeat_is_kept(clocked, cases):
    protocol = parse_protocol({"name": "efficiency", "edits": 4, "repeats": 3})
    result = protocol.run(clocked, cases, (), 4)
    found = values(result)
    assert clocked.calls == [1, 1] + [1, 1, 1, 1, 4] * 3
    assert found["cost.seconds"] == [4.0] * 3 and found["cost.seconds.chunked"] == [4.0] * 3
    assert found["cost.seconds.cold"] == [3.0]
    assert found["cost.memory.excess"] == [500] * 3 and found["cost.memory.device"] == [9000] * 3
    assert "cost.memory.rss" not in found and "cost.joules" not in found
    assert [each.case_id for each in result.scores if each.metric == "cost.seconds"] == [
        "repeat 1", "repeat 2", "repeat 3"]
    assert result.costs["edit"].seconds == 3 + 1 + 3 * 8  # all of it


def test_an_editor_of_twice_the_steps_takes_twice_as_long(clocked, cases):
    protocol = parse_protocol({"name": "efficiency", "edits": 3, "repeats": 1, "warm_up": 0})
    once = values(protocol.run(clocked, cases, (), 3))["cost.seconds"]
    clocked.steps = 2
    assert values(protocol.run(clocked, cases, (), 3))["cost.seconds"] == [2 * (once[0] - 2)] == [6.0]


def test_what_takes_long_is_done_twice(clocked, cases):
    protocol = parse_protocol({"name": "efficiency", "edits": 4, "slow": 3.9})
    assert values(protocol.run(clocked, cases, (), 4))["cost.seconds"] == [4.0, 4.0]


def test_cases_that_cannot_be_read_are_passed_over_and_told(clocked, cases):
    broken = [cases[0].model_copy(update={"prompt": cases[0].prompt + " far too long" * 200}), *cases[1:]]
    result = parse_protocol({"name": "efficiency", "edits": 4, "repeats": 1}).run(clocked, broken, (), 4)
    assert [skipped.case_id for skipped in result.failed] == ["0"]
    assert values(result)["cost.seconds"] == [4.0]
    with pytest.raises(InputError, match="of the first 3 cases the model can read 2, and 4 edits with 2 to warm up"):
        parse_protocol("efficiency").run(clocked, broken[:3], (), 4)


def test_an_editor_that_fails_fails_the_task(clocked, cases):
    with pytest.raises(RuntimeError, match="singular"):
        parse_protocol("efficiency").run(clocked, [with_target(case, "crash", case.id) for case in cases], (), 10)


@pytest.fixture
def frozen():
    """Leaves what the process holds by now out of the garbage collections before each stretch, which are many."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def test_a_real_process_is_measured(frozen, tiny_gptj, cases):
    """Memory that an editor takes is seen, and tokens that it has the model read."""

    class Reading(Scripted):
        def edit_each(self, requests):
            batch = self.model.collate([self.model.encode(request.prompt, request.target) for request in requests])
            self.model.target_logits(batch)
            return super().edit_each(requests)

    class Hungry(Reading):
        def edit_each(self, requests):
            with mmap.mmap(-1, 64 * MIB) as planted:
                for page in range(0, 64 * MIB, 4096):
                    planted[page] = 1
            return super().edit_each(requests)

    protocol = parse_protocol({"name": "efficiency", "edits": 2, "repeats": 2})
    bare, plain, hungry = (values(protocol.run(editor(tiny_gptj), cases, (), 2))
                           for editor in (Scripted, Reading, Hungry))
    assert min(hungry["cost.seconds"]) > 0 and hungry["cost.flops"][0] > 0 == bare["cost.flops"][0]
    if "cost.memory.rss" in hungry:  # where the kernel begins peaks anew
        more = min(hungry["cost.memory.rss"]) - max(plain["cost.memory.rss"])
        assert more == pytest.approx(64 * MIB, abs=8 * MIB)


# --- the device


def test_a_device_that_others_use_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100-SXM2-32GB")
    used = {"bytes": 2**30 + 1}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (32 * 2**30 - used["bytes"], 32 * 2**30))
    with pytest.raises(InputError, match=r"of 'Tesla V100-SXM2-32GB' 1.0 GiB are in use; end what uses it"):
        devices.check_alone("cuda")
    used["bytes"] = 2**29
    assert devices.check_alone("cuda", "v100") == []
    with pytest.raises(InputError, match=r"measured on 'H200', and this worker has 'Tesla V100"):
        devices.check_alone("cuda", "H200")


def test_a_machine_under_load_is_noted(monkeypatch):
    monkeypatch.setattr(devices.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(devices.os, "getloadavg", lambda: (1.9, 9, 9))
    assert devices.check_alone("cpu") == []
    monkeypatch.setattr(devices.os, "getloadavg", lambda: (2.5, 0, 0))
    assert devices.check_alone("cpu") == ["the machine was busy as costs were measured: a load of 2.5 on 4 cores"]


def test_a_device_that_was_slowed_down_is_noted():
    assert devices.slowed({}, {}) == [] == devices.slowed({"slowed_by": 1}, {"slowed_by": 2})
    assert devices.slowed({"slowed_by": 1}, {"slowed_by": 0x40}) == [
        "the device ran at a lower clock as costs were measured (NVML's reasons 0x40)"]
    assert devices.state("cpu") == {}


def test_settings_that_make_no_sense_are_refused():
    for settings in ({"edits": 0}, {"repeats": 0}, {"warm_up": -1}, {"slow": float("inf")}, {"device": ""}):
        with pytest.raises(ValueError):
            parse_protocol({"name": "efficiency", **settings})
    assert get_protocol("efficiency").alone
