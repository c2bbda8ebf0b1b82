"""Cases lie in a temporary file: they are what they were, in whatever order, and memory does not hold them."""

import gc
import json
import pickle
import tempfile
import tracemalloc
from functools import partial

import pytest

from cluster.plan.cutting import CampaignCases
from cluster.plan.refs import Chunk, digest
from editors.core.errors import InputError
from evaluators.cases import Case
from evaluators.datasets import Cases, DatasetSpec, load_dataset, stream_cases

COUNT, OTHERS = 1000, 10


def record(number):
    others = [f"Bo Ray of house {number} in street {other} plays the Ödön" for other in range(OTHERS)]
    return {"case_id": number, "requested_rewrite": {
                "prompt": "{} plays the", "subject": f"Ann {number}", "relation_id": "P1",
                "target_new": {"str": "harp"}, "target_true": {"str": "lute"}},
            "paraphrase_prompts": [f"The instrument of Ann {number} is the"], "neighborhood_prompts": others}


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record(number)) + "\n" for number in range(COUNT)), encoding="utf-8")
    return DatasetSpec(name="many", path=str(path))


def test_what_is_held_of_a_case_is_where_it_is_and_not_what_it_says(spec):
    load_dataset(spec.model_copy(update={"limit": 100}))  # what is imported and made once
    tracemalloc.start()
    try:
        data = load_dataset(spec)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(data.cases) == COUNT and held < 300 * COUNT
    before = alive()
    cases = CampaignCases(data)
    chunks = [cases.chunk(order, start, start + 25) for order in (None, 0, 1) for start in range(0, COUNT, 25)]
    assert len({chunk.digest for chunk in chunks}) == 2 * len(chunks) / 3 and alive() == before


def alive():
    gc.collect()
    return sum(type(each) is Case for each in gc.get_objects())


def test_cases_are_those_of_the_records_in_any_order(spec):
    data, expected = load_dataset(spec), tuple(stream_cases(spec))
    assert tuple(data.cases) == expected and data.cases[7] == expected[7] and data.cases[-1] == expected[-1]
    assert data.cases == expected and data.cases[:3] != expected[:2] and data.cases[:2] != expected[1:3]
    assert tuple(data.cases[5:50][10:20:3]) == expected[15:25:3]
    assert tuple(data.cases.at([9, 2])[::-1]) == (expected[2], expected[9])
    with pytest.raises(IndexError):
        data.cases[COUNT]


@pytest.mark.parametrize("name", ["testbed-cloze", "testbed-questions"])
def test_all_that_a_case_says_is_kept(name):
    spec = DatasetSpec(name=name, limit=200)
    assert tuple(load_dataset(spec).cases) == tuple(stream_cases(spec))


def test_a_chunk_is_known_by_its_content_wherever_it_is(spec):
    part = load_dataset(spec).cases[10:35]
    whole = tuple(part)
    known = digest([case.model_dump(mode="json", exclude_defaults=True) for case in whole])
    assert Chunk("many", 1, part).digest == Chunk("many", 1, whole).digest == known


def test_pickled_cases_need_no_file(spec):
    part = load_dataset(spec).cases[10:35]
    assert isinstance(part, Cases)
    sent = pickle.loads(pickle.dumps(part))
    assert type(sent) is tuple and all(type(case) is Case for case in sent) and part == sent


@pytest.mark.parametrize("count", [1, COUNT])
def test_a_disk_without_room_is_told(spec, monkeypatch, count):
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(open, "/dev/full", "w+b"))
    with pytest.raises(InputError, match=r"No space left on device; name a folder .* TMPDIR"):
        load_dataset(spec.model_copy(update={"limit": count}))


def test_no_folder_for_temporary_files_is_told(spec, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    with pytest.raises(InputError, match="No such file or directory; name a folder"):
        load_dataset(spec)
