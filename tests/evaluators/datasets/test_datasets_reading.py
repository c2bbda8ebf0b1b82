"""Reading records one at a time, from wherever they are, and what hostile ones do."""

import gzip
import json
import tracemalloc
from itertools import islice

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from editors.core.errors import InputError
from evaluators.cases import Case, Skipped
from evaluators.datasets import DatasetSpec, load_dataset, reading, stream_cases

EDIT = {"prompt": "Ann plays the", "subject": "Ann", "target_new": "harp"}
MANY = 25_000


def edits(path, **options):
    return DatasetSpec(name="mine", path=str(path), format="edits", **options)


@pytest.fixture(params=["list", "lines"])
def write(request, tmp_path):
    """Writes records as a JSON list or as JSON Lines."""
    def write(written):
        path = tmp_path / "data.json"
        with path.open("w", encoding="utf-8") as file:
            separator = ",\n" if request.param == "list" else "\n"
            file.write("[" if request.param == "list" else "")
            for number, record in enumerate(written):
                file.write((separator if number else "") + json.dumps(record))
            file.write("]" if request.param == "list" else "\n")
        return path

    return write


def test_streaming_takes_the_memory_of_a_record(write):
    path = write(EDIT for _ in range(MANY))
    for _ in stream_cases(edits(path, limit=10)):
        pass  # imports and caches
    tracemalloc.start()
    try:
        count = sum(1 for _ in stream_cases(edits(path)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == MANY and peak < path.stat().st_size < 2_000_000


def test_a_limit_reads_no_further(write):
    path = write(EDIT for _ in range(2_000))
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert len(load_dataset(edits(path, offset=5, limit=3)).cases) == 3
    assert [case.id for case in islice(stream_cases(edits(path)), 2)] == ["record 0", "record 1"]
    with pytest.raises(InputError, match=r"ends in the middle, at record 1999, line 2000: .* fetch it again"):
        load_dataset(edits(path))


def test_pieces_of_every_size_give_the_same_records(write, monkeypatch):
    written = [{"a": "\U0001f600 \\ \" \ud800", "b": [1.5e-7, -12345678901234567890, True, None, {}]}, {}, {"c": "é"}]
    path = write(written)
    for piece in range(1, 60):
        monkeypatch.setattr(reading, "PIECE", piece)
        assert [record.content for record in reading.file_records(str(path))] == written


@pytest.mark.parametrize(("text", "message"), [
    ('[{"a": 1} {"a": 2}]', r"record 0, line 1, near '\{\"a\": 2\}\]': expected ',' or '\]'"),
    ('[{"a": 1},\n {"a" 2}]', "record 1, line 2, near .*':' delimiter"),
    ('[{"a": 1}', "ends in the middle, at record 0"), ("[", "ends in the middle"),
    ('[{"a": 1}] x', "the end of the list, line 1, near 'x': there is more after it"),
    ('[{"a": "b}]', "ends in the middle"), ("[" * 100_000, "nested too deeply|ends in the middle"),
    ("[tru]", "Expecting value"), ('{"a": 1}\n{"a": "', "ends in the middle, at record 1, line 2"),
])
def test_broken_files(tmp_path, text, message):
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        list(reading.file_records(str(path)))


def test_broken_lines_are_single_records(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("\ufeff" + json.dumps(EDIT) + '\n\n{"prompt": \nnull\n[1]\n' + json.dumps(EDIT) + "\n")
    data = load_dataset(edits(path))
    assert [case.id for case in data.cases] == ["record 0", "record 4"]
    assert [skip.reason for skip in data.skipped] == [
        "record 1 (line 3): not JSON: Expecting value", "record 2 (line 4): expected an object, found NoneType",
        "record 3 (line 5): expected an object, found list"]


def test_huge_integers(write):
    data = load_dataset(edits(write([EDIT | {"id": 10**300}, EDIT | {"id": "x", "subject_start": 10**300}])))
    assert data.cases[0].id == "1" + "0" * 300 and "not at character 1000" in data.skipped[0].reason
    written = '[{"a": ' + "9" * 10_000 + "}]"
    path = write([])
    path.write_text(written)
    assert next(reading.file_records(str(path))).content == {"a": float("inf")}


def test_long_prompts_are_left_to_the_models_limit(write):
    (case,) = load_dataset(edits(write([EDIT | {"prompt": "Ann " * 10_000}]))).cases
    assert len(case.prompt) == 40_000


# --- places


def test_urls(tmp_path):
    with fsspec.open("memory://data/edits.jsonl", "wt") as file:
        file.write(json.dumps(EDIT))
    assert len(load_dataset(edits("memory://data/edits.jsonl")).cases) == 1
    with pytest.raises(InputError, match=r"cannot read 'memory://data/none.json'.*check the address"):
        load_dataset(edits("memory://data/none.json"))
    with pytest.raises(InputError, match="no-such-protocol"):
        load_dataset(edits("no-such-protocol://data/none.json"))
    packed = tmp_path / "edits.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(EDIT).encode()))
    assert len(load_dataset(edits(packed)).cases) == 1
    packed.write_bytes(packed.read_bytes()[:-10])
    with pytest.raises(InputError, match="cannot read"):
        load_dataset(edits(packed))


def test_hub_data_sets(tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    lines = [EDIT, EDIT | {"target_true": "lute"}, EDIT | {"prompt": "Bo is"}]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "train.jsonl").write_text(json.dumps(EDIT | {"target_true": "lute"}))
    spec = DatasetSpec(name="mine", hub=str(folder), split="test", train="train")
    data = load_dataset(spec)
    assert [(case.id, case.target_true) for case in data.cases] == [("record 0", None), ("record 1", "lute")]
    assert data.skipped == (Skipped(case_id="record 2", reason="subject 'Ann' is not in prompt 'Bo is'"),)
    assert data.provenance["source"] == f"hub data set {folder}, split test"
    assert len(load_dataset(data.spec.model_copy(update={"split": "train"})).cases) == 1
    with pytest.raises(InputError, match=r"cannot read split 'dev' of hub data set .* Check the name"):
        load_dataset(spec.model_copy(update={"split": "dev"}))


# --- hostile records

ODD = ["", " ", "Ann", "{}", "a\0b", "\ud800", "Ann \udc00", "(a, b, c)"]
TEXT = st.one_of(st.text(max_size=12), st.sampled_from(ODD))
JUNK = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=5)
BASE = {
    "counterfact": {"case_id": 1, "requested_rewrite": {
        "prompt": "{} plays", "subject": "Ann", "relation_id": "P1", "target_new": {"str": "harp", "id": "Q1"},
        "target_true": {"str": "lute", "id": "Q2"}}, "paraphrase_prompts": ["Ann's"], "neighborhood_prompts": ["Bo's"],
        "generation_prompts": ["Ann"], "alternative_subject": "Di",
        "portability": {"Recalled Relation": "(a, b, c)", "New Question": "Who?", "New Answer": "Di"}},
    "counterfact-flat": EDIT | {"case_id": 1, "ground_truth": "lute", "rephrase_prompt": "Ann",
                                "locality_prompt": "Bo", "locality_ground_truth": "lute"},
    "zsre": {"subject": "Ann", "src": "Ann?", "rephrase": "Is Ann?", "alt": "no", "answers": ["yes"], "loc": "Bo?",
             "loc_ans": "no", "inverse question": "Who?", "alternative_subject": "Di", "alter_subject_question": "Di?"},
    "edits": EDIT | {"id": "1", "target_true": "lute", "paraphrases": ["Ann's"], "subject_start": 0,
                     "portability": [{"prompt": "Who?", "target": "Di", "link": {"prompt": "a", "target": "b"}}]}}


@st.composite
def spoiled(draw, value):
    """A copy in which some parts are missing or something else."""
    match draw(st.integers(0, 9)):
        case 0:
            return draw(JUNK)
        case 1 if isinstance(value, str):
            return draw(TEXT)
    if isinstance(value, dict):
        kept = {key: draw(spoiled(inner)) for key, inner in value.items() if draw(st.integers(0, 19))}
        return kept | (draw(st.dictionaries(TEXT, JUNK, max_size=1)) if draw(st.integers(0, 9)) == 0 else {})
    return [draw(spoiled(inner)) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("form", BASE)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_record_is_a_case_to_edit_or_a_skip(tmp_path, form, data):
    record = data.draw(spoiled(BASE[form]) | JUNK)
    path = tmp_path / "data.json"
    path.write_text(json.dumps([BASE[form], record]))
    first, second = stream_cases(DatasetSpec(name="mine", path=str(path), format=form))
    assert isinstance(first, Case)
    if isinstance(second, Case):
        second.request()
    else:
        assert second.case_id and second.reason
    (second.model_dump_json() + str(second)).encode()  # fit to be written


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 400), lines=st.booleans())
def test_a_file_cut_anywhere_is_told_of(tmp_path, cut, lines):
    whole = "\n".join(map(json.dumps, BASE.values())) if lines else json.dumps(list(BASE.values()))
    path = tmp_path / "data.json"
    path.write_text(whole[:cut])
    spec = DatasetSpec(name="mine", path=str(path), format="counterfact")
    try:
        loaded = load_dataset(spec)
    except InputError as error:
        assert "cut short" in str(error)
    else:
        assert lines and whole[cut:][:1] in ("\n", "") and len(loaded.cases) == 1
