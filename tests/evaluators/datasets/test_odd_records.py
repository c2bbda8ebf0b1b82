"""Records that are odd among others: skipped by name, never the end of a file nor lost without a word."""

import json
import re
import unicodedata
import zipfile
from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editors.core.errors import CaseError, InputError
from editors.core.lookalikes import how_they_differ
from editors.core.requests import EditRequest
from evaluators.cases import Chain, Probe
from evaluators.datasets import DatasetSpec, load_dataset

EDIT = {"prompt": "Ann plays the", "subject": "Ann", "target_new": "harp"}
FLAT = {"case_id": 5, "prompt": "Ann plays the", "target_new": "harp", "subject": "Ann", "ground_truth": "lute",
        "rephrase_prompt": "Ann likes", "locality_prompt": "Bo plays", "locality_ground_truth": "lute"}
FULL = {"case_id": 5, "requested_rewrite": {"prompt": "{} plays", "subject": "Ann", "target_new": {"str": "harp"},
                                            "target_true": {"str": "lute"}},
        "paraphrase_prompts": ["They say Ann plays"], "neighborhood_prompts": ["Bo plays"]}
ZSRE = {"subject": "Ann", "src": "What does Ann play?", "rephrase": "Which instrument is Ann's?", "alt": "harp",
        "answers": ["lute"], "loc": "who made the moon", "loc_ans": "nobody"}
KNOWEDIT = {"subject": "Ann", "prompt": "Ann plays the", "target_new": "harp", "ground_truth": ["lute", "luth"],
            "rephrase": "Ann's instrument is the",
            "portability": {"Reasoning": [{"prompt": "How many strings?", "ground_truth": [["47", "forty-seven"]]}],
                            "Subject_Aliasing": [{"prompt": "Anna plays the", "ground_truth": "harp"}],
                            "Logical_Generalization": [{"prompt": "Who harps?", "ground_truth": ["Ann"]}]},
            "locality": {"Relation_Specificity": [{"prompt": "Ann was born in", "ground_truth": [["Bath"], ["Rome"]]}],
                         "Forgetfulness": [{"prompt": "Ann also plays the", "ground_truth": [["drum"]]},
                                           {"prompt": "and the", "ground_truth": []}]}}
FORMS = {"edits": EDIT, "counterfact-flat": FLAT, "counterfact": FULL, "zsre": ZSRE, "knowedit": KNOWEDIT}


def write(path, records):
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return DatasetSpec(name="mine", path=str(path))


def numbered(form, number):
    key = {"counterfact": "case_id", "counterfact-flat": "case_id", "edits": "id"}.get(form)
    return {**FORMS[form], **({key: number} if key else {})}


# --- KnowEdit


def test_knowedit_is_read_with_its_questions_by_kind(tmp_path):
    data = load_dataset(write(tmp_path / "data.jsonl", [KNOWEDIT]))
    [case] = data.cases
    assert (data.format, case.id, case.target_true, case.also_true) == ("knowedit", "knowedit-0", "lute", ("luth",))
    assert case.paraphrases == ("Ann's instrument is the",)
    assert case.portability == (Chain(kind="hop", prompt="How many strings?", target="47"),
                                Chain(kind="logical", prompt="Who harps?", target="Ann"),
                                Chain(kind="subject", prompt="Anna plays the", target="harp"))
    assert case.attributes == (Probe(prompt="Ann was born in", target="Bath"),)
    assert case.forgetfulness == (Probe(prompt="Ann also plays the", target="drum"),)


@pytest.mark.parametrize("left_out", [{"portability"}, {"locality"}, {"ground_truth", "rephrase"}])
def test_kinds_of_knowedit_may_be_missing_or_empty(tmp_path, left_out):
    record = {key: value for key, value in KNOWEDIT.items() if key not in left_out} | {"locality": {}}
    record["portability"] = {"Reasoning": [], "Logical_Generalization": None}
    [case] = load_dataset(write(tmp_path / "data.jsonl", [record])).cases
    assert case.portability == case.attributes == ()


@pytest.mark.parametrize("answers", [{}, {"ground_truth": []}, {"ground_truth": None}])
def test_questions_of_knowedit_without_an_answer_are_not_asked(tmp_path, answers):
    record = KNOWEDIT | {"portability": {"Reasoning": [{"prompt": "Where?"} | answers]}}
    [case] = load_dataset(write(tmp_path / "data.jsonl", [record])).cases
    assert case.portability == () and case.attributes


def test_knowedit_without_questions_is_told_by_its_answers(tmp_path):
    record = {key: value for key, value in KNOWEDIT.items() if key not in ("portability", "locality")}
    data = load_dataset(write(tmp_path / "data.jsonl", [record]))
    assert data.format == "knowedit" and data.cases[0].also_true == ("luth",)


def test_knowedits_biographies_are_edits_of_what_follows_a_text(tmp_path):
    question = {"prompt": "Ann was born in", "ground_truth": "Bath"}
    record = {"text": "This is about Ann. She is", "labels": "a harpist.", "concept": "Ann",
              "locality": {"Relation_Specificity": [question]}}
    data = load_dataset(write(tmp_path / "data.jsonl", [record]))
    [case] = data.cases
    assert (data.format, case.subject, case.target_new, case.target_true) == ("knowedit", "Ann", "a harpist.", None)
    assert case.attributes == (Probe(prompt="Ann was born in", target="Bath"),)


def test_knowedit_may_have_lists_for_texts_and_empty_names(tmp_path):
    questions = {"portability": {"Reasoning": [{"prompt": ["How many strings?"], "ground_truth": ["", ["47"], "48"]}]}}
    record = KNOWEDIT | questions | {"target_new": ["harp"], "rephrase": ["Ann is at the", "They say Ann plays"]}
    [case] = load_dataset(write(tmp_path / "data.jsonl", [record])).cases
    assert case.portability == (Chain(kind="hop", prompt="How many strings?", target="47"),)
    assert (case.target_new, case.paraphrases) == ("harp", ("Ann is at the", "They say Ann plays"))


@pytest.mark.parametrize("place", ["portability", "locality"])
def test_kinds_that_knowedit_does_not_have_are_told(tmp_path, place):
    question = {"prompt": "Who?", "ground_truth": "Ann"}
    data = load_dataset(write(tmp_path / "data.jsonl", [
        KNOWEDIT, KNOWEDIT | {place: KNOWEDIT[place] | {"Others": [question]}},
        KNOWEDIT | {place: KNOWEDIT[place] | {"Others": []}}]))
    [skip] = data.skipped
    assert len(data.cases) == 2 and f"{place}: questions of kind Others are not read, but Re" in skip.reason


# --- most records tell the format


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("odd", [7, None, {}, {"prompt": "x"}, EDIT | {"ground_truth": "lute"}, FULL, ZSRE,
                                 {"subject": "NA", "src": None, "requested_rewrite": float("nan")}])
def test_an_odd_record_at_the_beginning_is_skipped_alone(tmp_path, form, odd):
    records = [odd, *(numbered(form, number) for number in range(1, 4))]
    path = tmp_path / "data.json"
    path.write_text(json.dumps(records))
    data = load_dataset(DatasetSpec(name="mine", path=str(path)))
    assert data.format == form and len(data.cases) >= 3 and len(data.cases) + len(data.skipped) == 4
    assert all(skip.reason.startswith("record 0") for skip in data.skipped)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(sorted(FORMS)))
def test_damage_to_some_records_costs_these_alone(tmp_path_factory, data, form):
    records = [deepcopy(numbered(form, number)) for number in range(1, 10)]
    whole = load_dataset(write(tmp_path_factory.mktemp("whole") / "data.jsonl", records)).cases
    hurt = data.draw(st.sets(st.integers(0, 8), min_size=1, max_size=4))
    for number in hurt:
        record = records[number]
        key = data.draw(st.sampled_from(sorted(record)))
        while isinstance(record[key], dict) and record[key] and data.draw(st.booleans()):
            record = record[key]
            key = data.draw(st.sampled_from(sorted(record)))
        match data.draw(st.sampled_from(["drop", "null", "nan", "NA", "more", "other"])):
            case "drop":
                del record[key]
            case "null":
                record[key] = None
            case "nan":
                record[key] = float("nan")
            case "NA":
                record[key] = "NA"
            case "more":
                record["and more"] = 1
            case _:
                record[key] = {"x": [3]}
    found = load_dataset(write(tmp_path_factory.mktemp("odd") / "data.jsonl", records))
    assert found.format == form and len(found.cases) + len(found.skipped) == len(records)
    assert {case for number, case in enumerate(whole) if number not in hurt} <= set(found.cases)
    assert all(int(re.match(r"record (\d+)", skip.reason)[1]) in hurt for skip in found.skipped
               if skip.reason.startswith("record"))


@pytest.mark.parametrize("nothing", [None, float("nan"), "NaN", "nan", "NA", "N/A", "<NA>", "null", "", " "])
def test_nulls_as_tables_write_them_mean_absent(tmp_path, nothing):
    fields = ("target_true", "relation", "paraphrases", "id", "subject_start")
    data = load_dataset(write(tmp_path / "data.jsonl", [EDIT | dict.fromkeys(fields, nothing), EDIT]))
    first, second = data.cases
    assert first.model_copy(update={"id": second.id}) == second


@pytest.mark.parametrize("answer", ["None", "NA", "Na", "Nan", "null"])
def test_what_may_be_an_answer_is_one_where_there_has_to_be_one(tmp_path, answer):
    asked = {"portability": [{"prompt": "Who?", "target": answer}]}
    [case] = load_dataset(write(tmp_path / "data.jsonl", [EDIT | {"target_new": answer} | asked])).cases
    assert case.target_new == case.portability[0].target == answer
    [case] = load_dataset(write(tmp_path / "data.jsonl", [ZSRE | {"alt": answer, "answers": [answer, "lute"]}])).cases
    assert (case.target_new, case.target_true, case.also_true) == (answer, answer, ("lute",))


def test_a_target_that_can_only_be_a_null_is_none(tmp_path):
    [skip] = load_dataset(write(tmp_path / "data.jsonl", [EDIT, EDIT | {"target_new": "nan"}])).skipped
    assert skip.reason == "record 1 (line 2): target_new: Field required"


@pytest.mark.parametrize(("form", "empty"), [("counterfact-flat", {"rephrase_prompt": ""}),
                                             ("zsre", {"loc": "", "loc_ans": "NA"}),
                                             ("counterfact", {"portability": "", "alternative_subject": "NA"}),
                                             ("knowedit", {"portability": [], "locality": "", "rephrase": "NA"})])
def test_what_may_be_left_out_may_be_empty(tmp_path, form, empty):
    full = FORMS[form]
    less = {key: value for key, value in full.items() if key not in empty}
    with_empty, without = (load_dataset(write(tmp_path / "data.jsonl", [full, record, full])) for record in
                           (full | empty, less))
    assert with_empty.cases == without.cases and with_empty.skipped == without.skipped


def test_prompts_that_are_empty_are_not_asked(tmp_path):
    [case] = load_dataset(write(tmp_path / "data.jsonl", [EDIT | {"paraphrases": ["", "Ann is at the", "NA"]}])).cases
    [full] = load_dataset(write(tmp_path / "data.jsonl", [FULL | {"neighborhood_prompts": ["NA", "Bo plays"]}])).cases
    assert case.paraphrases == ("Ann is at the",) and [probe.prompt for probe in full.neighbourhood] == ["Bo plays"]


@pytest.mark.parametrize(("form", "key"), [("edits", "id"), ("counterfact-flat", "case_id"),
                                           ("counterfact", "case_id")])
def test_ids_of_a_column_with_gaps_are_whole_numbers(tmp_path, form, key):
    data = load_dataset(write(tmp_path / "data.jsonl", [FORMS[form] | {key: 3.0}, FORMS[form] | {key: 4.0}]))
    assert [case.id for case in data.cases] == ["3", "4"]


def test_ids_that_are_given_and_not_given_are_never_the_same(tmp_path):
    records = [EDIT, EDIT | {"id": 1}, EDIT | {"id": "0"}, EDIT, EDIT | {"id": 4}]
    data = load_dataset(write(tmp_path / "data.jsonl", records))
    assert len({case.id for case in data.cases}) == 5 and not data.skipped


# --- archives


def archive(path, **members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__slash__", "/"), content)
    return DatasetSpec(name="mine", path=str(path))


def test_an_archives_one_file_is_read_whatever_else_systems_put_there(tmp_path):
    line = json.dumps(EDIT)
    spec = archive(tmp_path / "mac.zip", data__slash__="", __MACOSX__slash___x=b"\0", **{".DS_Store": b"\1"},
                   data__slash__x=line)
    assert len(load_dataset(spec).cases) == 1


@pytest.mark.parametrize(("members", "message"), [
    ({"x.jsonl": "{}", "y.jsonl": "{}"}, r"holds 2 files \(x.jsonl, y.jsonl\).*zip://x.jsonl::"),
    ({}, "holds 0 files")])
def test_an_archive_of_several_files_is_refused(tmp_path, members, message):
    with pytest.raises(InputError, match=message):
        load_dataset(archive(tmp_path / "two.zip", **members))


@pytest.mark.parametrize("before", ["", "simplecache::file://"])
def test_an_archive_is_told_by_its_name_as_file_systems_tell_it(tmp_path, before):
    spec = archive(tmp_path / "TWO.ZIP", **{"x.jsonl": json.dumps(EDIT), "y.jsonl": json.dumps(EDIT)})
    with pytest.raises(InputError, match="holds 2 files"):
        load_dataset(spec.model_copy(update={"path": f"{before}{spec.path}"}))


def test_one_of_several_files_in_an_archive_can_be_named(tmp_path):
    spec = archive(tmp_path / "two.zip", **{"x.jsonl": json.dumps(EDIT), "y.jsonl": "{}"})
    named = spec.model_copy(update={"path": f"zip://x.jsonl::{spec.path}"})
    assert len(load_dataset(named).cases) == 1


# --- texts that look alike


@pytest.mark.parametrize(("prompt", "subject", "told"), [
    ("Where is Café Ö?", unicodedata.normalize("NFD", "Café"), r".*COMBINING ACUTE ACCENT \(U\+0301\) for .*U\+00E9"),
    ("Ann Lee plays", "Ann\u00a0Lee", r"NO-BREAK SPACE \(U\+00A0\) for SPACE \(U\+0020\)"),
    ("Ann\u200bLee plays", "AnnLee", r"nothing for ZERO WIDTH SPACE \(U\+200B\)"),
    ("O'Neill plays", "O\u2019Neill", r"RIGHT SINGLE QUOTATION MARK \(U\+2019\) for APOSTROPHE"),
    ("The ann plays", "Ann", "LATIN CAPITAL LETTER A .* for LATIN SMALL LETTER A"),
    ("Tom plays", "\u0422\u043em", r"CYRILLIC CAPITAL LETTER TE \(U\+0422\) \+ .*U\+043E\) for LATIN CAPITAL LETTER T"),
    ("Bo plays", "\u0392\u03bf", r"GREEK CAPITAL LETTER BETA \(U\+0392\)")])
def test_texts_that_look_alike_are_told_apart(prompt, subject, told):
    with pytest.raises(CaseError, match=f"is not in prompt .*they look alike, but it has {told}"):
        EditRequest(prompt, subject, "harp")


def test_a_subject_that_looks_like_what_stands_at_its_place_is_told_apart():
    with pytest.raises(CaseError, match=r"is not at character 4 of .*they look alike, but it has NO-BREAK SPACE"):
        EditRequest("Did Ann Lee play", "Ann\u00a0Lee", "harp", subject_start=4)


def test_texts_that_do_not_look_alike_are_not_said_to():
    assert how_they_differ("Bo", "Ann plays") == how_they_differ("", "Ann") == how_they_differ("Ann", "Ann") == ""
    told = how_they_differ("\u2018a\u2019 \u201cb\u201d", "x 'a' \"b\" y")
    assert told.endswith("and 1 more")
