"""Meters of phases: times of a device that runs behind, peaks that are a phase's own, and what is counted."""

import gc
import mmap
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from editors.core.models.work import DONE
from evaluators.metering import instruments as read
from evaluators.metering.meter import Meter
from evaluators.metering.spent import Memory, Spent, at_once, in_turn

MIB = 2**20
needs_peaks = pytest.mark.skipif(read.resident() == Memory(), reason="the kernel does not begin peaks anew")


class Behind:
    """A device that is given work at once and does it later: only who waits for it sees the time pass."""

    def __init__(self, joules=None):
        self.clock, self.queue, self.used, self.most, self.energy, self.tidied = 0.0, 0.0, 100, 100, joules, 0

    def give(self, seconds, memory=0):
        self.queue += seconds
        self.most = max(self.most, self.used + memory)

    def now(self):
        self.clock, self.queue = self.clock + self.queue, 0.0
        return self.clock

    def reset(self):
        self.most = self.used
        return Memory(allocated=self.used)

    def peak(self, before):
        return Memory(allocated=self.most, allocated_before=before.allocated)

    def joules(self):
        return None if self.energy is None else self.energy + 5 * self.clock

    def tidy(self):
        self.tidied += 1


def test_a_phase_takes_what_the_device_takes_not_what_giving_it_work_does():
    device = Behind(joules=7.0)
    meter = Meter(torch.device("cpu"), device)
    with meter.phase("edit"):
        unwaited = device.clock
        device.give(3.0)
        assert device.clock - unwaited == 0.0  # what a clock would tell that does not wait
    assert meter.costs["edit"].seconds == 3.0


def test_a_phase_inside_another_stops_it():
    device = Behind()
    meter = Meter(torch.device("cpu"), device)
    with meter.phase("score"):
        device.give(1.0, memory=10)
        with meter.phase("load"):
            device.give(10.0, memory=1000)
        device.give(2.0, memory=20)
    device.give(50.0)  # outside of all phases
    with meter.phase("score"):
        device.give(4.0)
    assert {name: spent.seconds for name, spent in meter.costs.items()} == {"score": 7.0, "load": 10.0}
    assert {name: spent.memory.allocated for name, spent in meter.costs.items()} == {"score": 120, "load": 1100}
    assert meter.costs["score"].joules is None


def test_a_phase_that_raises_is_metered_too():
    device = Behind()
    meter = Meter(torch.device("cpu"), device, tidy=True)
    with pytest.raises(KeyError), meter.phase("train"):
        device.give(2.0)
        raise KeyError
    with meter.phase("edit"):
        device.give(1.0)
    assert [spent.seconds for spent in meter.costs.values()] == [2.0, 1.0] and device.tidied == 2


def test_joules_are_the_devices_where_it_tells_them():
    device = Behind(joules=100.0)
    meter = Meter(torch.device("cpu"), device)
    for _ in range(2):
        with meter.phase("edit"):
            device.give(2.0)
    device.give(50.0)
    assert meter.costs["edit"].joules == 20.0  # 5 a second, and none of what came after


def test_pieces_one_after_another_add_up_and_ranks_do_not():
    one = {"edit": Spent(seconds=1, tokens=5, flops=10, joules=3, memory=Memory(allocated=7, rss=1))}
    two = {"edit": Spent(seconds=2, tokens=5, flops=10, joules=4, memory=Memory(allocated=5, rss=9)),
           "load": Spent(seconds=9)}
    assert in_turn([one, two]) == {"edit": Spent(seconds=3, tokens=10, flops=20, joules=7,
                                                 memory=Memory(allocated=7, rss=9)), "load": Spent(seconds=9)}
    assert at_once([one, two]) == {"edit": Spent(seconds=2, tokens=5, flops=10, joules=7,
                                                 memory=Memory(allocated=7, rss=9),
                                                 memory_in_all=Memory(allocated=12, rss=10))}
    assert at_once([one]) == one
    assert in_turn([one, {"edit": Spent(seconds=1)}])["edit"].joules is None


@needs_peaks
def test_planted_memory_is_seen_and_a_later_phase_does_not_have_it():
    gc.collect()  # what tests before this one left must not go in the middle of it
    meter, plain = Meter(torch.device("cpu")), Meter(torch.device("cpu"))
    with plain.phase("edit"):
        pass
    with meter.phase("edit"), mmap.mmap(-1, 64 * MIB) as planted:
        planted.write(b"x" * (64 * MIB))
    with meter.phase("score"):
        pass
    base = plain.costs["edit"].memory.rss
    # The text that is written is 64 MiB of its own.
    assert meter.costs["edit"].memory.rss - base == pytest.approx(128 * MIB, abs=2 * MIB)
    assert meter.costs["score"].memory.rss - base == pytest.approx(0, abs=2 * MIB)


def test_a_kernel_that_cannot_begin_peaks_anew_tells_none(monkeypatch, tmp_path):
    monkeypatch.setattr(read, "PEAK_RESET", tmp_path / "no" / "clear_refs")
    read._peak_can_be_reset.cache_clear()
    try:
        meter = Meter(torch.device("cpu"))
        with meter.phase("edit"):
            pass
    finally:
        read._peak_can_be_reset.cache_clear()
    assert meter.costs["edit"].memory == Memory()


def test_energy_is_unknown_without_nvml(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    read.nvml_handle.cache_clear()
    assert read.nvml_handle("0000") is None
    read.nvml_handle.cache_clear()


class Nvml:
    """NVML of one device, which has used so many millijoules; before Volta it tells none."""

    NVMLError = RuntimeError

    def __init__(self, told):
        self.told = told

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        assert uuid == "GPU-aa-bb"
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if self.told is None:
            raise self.NVMLError
        return self.told


@pytest.mark.parametrize(("told", "joules"), [(1500, 1.5), (None, None)])
def test_energy_is_read_of_the_very_device(monkeypatch, told, joules):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(told))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="aa-bb"))
    read.nvml_handle.cache_clear()
    assert read.CudaInstruments(torch.device("cuda")).joules() == joules
    read.nvml_handle.cache_clear()


def test_the_peak_of_a_device_counts_others_and_what_was_reserved_meanwhile(monkeypatch):
    free = iter([60, 50])
    for name, value in {"memory_allocated": 5, "memory_reserved": 10, "max_memory_allocated": 25,
                        "max_memory_reserved": 30}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (next(free), 100))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    found = read.CudaInstruments(torch.device("cuda"))
    peak = found.peak(found.reset())
    assert (peak.allocated, peak.allocated_before, peak.reserved) == (25, 5, 30)
    assert peak.device == 70  # 40 of others, and the 30


def test_work_is_counted_by_shapes(model):
    """Against the sizes of the modules that are called, each by a hook of its own."""
    batch = model.collate([model.encode("The capital of this land is", "no") for _ in range(3)])
    flops, tokens = [], []

    def linear(module, inputs, output):
        flops.append(2 * module.weight.numel() * inputs[0].numel() // inputs[0].shape[-1])

    hooks = [module.register_forward_hook(linear) for module in model.module.modules()
             if isinstance(module, torch.nn.Linear)]
    before = DONE.tokens, DONE.flops
    model.target_logits(batch)
    for hook in hooks:
        hook.remove()
    tokens = [batch.input_ids.numel()] + ([batch.source.input_ids.numel()] if batch.source else [])
    assert DONE.tokens - before[0] == sum(tokens)
    # Norms and biases are parameters too, which are read but not multiplied as matrices are.
    assert DONE.flops - before[1] == pytest.approx(sum(flops), rel=0.06)


def test_a_pass_that_has_to_go_back_counts_twice(tiny_gptj):
    batch = tiny_gptj.collate([tiny_gptj.encode("The capital of this land is", "no")])
    before = DONE.flops
    tiny_gptj.target_logits(batch)
    forward = DONE.flops - before
    weight = tiny_gptj.submodule("transformer.wte").weight
    weight.requires_grad_(True)
    try:
        before = DONE.flops
        tiny_gptj.target_logits(batch)
        assert DONE.flops - before == 2 * forward
    finally:
        weight.requires_grad_(False)


def test_metering_needs_no_gpu_and_costs_little():
    program = ("import torch, time; from evaluators.metering.meter import Meter; meter = Meter(torch.device('cpu'))\n"
               "for _ in range(1000):\n  with meter.phase('edit'): pass\nprint(torch.cuda.is_initialized())")
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert told.stdout == "False\n"
