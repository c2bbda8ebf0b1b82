"""What edits take of memory at GPT-J-6B's shape: the README's tables are the command's, and all fits."""

from pathlib import Path

import pytest

from benchmarks.fits import COUNTS, JOINT, Worker, needs_of, peak, told
from editors import EDITORS
from editors.core.memory import GIB, Needs

ROOT = Path(__file__).parents[2]
V100 = Worker(32, "float16")


def test_the_tables_of_the_readme_are_what_the_command_prints():
    assert told() in (ROOT / "editors" / "README.md").read_text("utf-8")
    assert "does not fit" not in told()


@pytest.mark.parametrize("name", EDITORS)
def test_every_method_fits_a_v100_and_takes_what_it_says(name):
    needs = needs_of(name, V100)
    peaks = [peak(needs, V100, count) for count in COUNTS]
    for found, count in zip(peaks, COUNTS, strict=True):
        assert V100.of.weights + needs.held <= found.nbytes <= 32 * GIB
        assert 1 <= found.made <= max(needs.at_once, 1) and 1 <= found.held <= count
        assert found.nbytes >= V100.of.weights + needs.held + found.made * needs.edit
    assert peaks == sorted(peaks)


def test_ten_thousand_facts_at_once_fit_80_gib():
    worker = Worker(80, "bfloat16")
    needs = needs_of("memit", worker, JOINT)
    assert needs.each > 6 * 4 * 4096 * 16384  # dense changes of six layers
    assert peak(needs, worker, 1, JOINT).nbytes <= 80 * GIB


def test_what_is_too_large_is_told():
    huge = peak(Needs(edit=40 * GIB), V100, 10)
    assert huge.nbytes > 32 * GIB and huge.made == 1
    assert peak(Needs(edit=GIB, at_once=8), V100, 100).made == 8
    assert peak(Needs(edit=4 * GIB, at_once=8), V100, 100).made == 4
