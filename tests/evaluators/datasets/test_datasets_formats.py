"""What each format's records become, and the switches that belong to it."""

import json
from pathlib import Path

import pytest

from editors.core.errors import InputError
from evaluators.cases import Chain, Probe
from evaluators.datasets import DatasetSpec, load_dataset, snippet_texts, training_spec

REAL_DATA = Path(__file__).resolve().parents[4] / "shared" / "data"

ZSRE = {"subject": "Ann", "src": "What does Ann play?", "pred": "flute", "rephrase": "Which instrument is Ann's?",
        "alt": "harp", "answers": ["lute", "luth"], "loc": "nq question: who made the moon", "loc_ans": "nobody",
        "cond": "flute >> harp || What does Ann play?"}
HOP = {"Recalled Relation": "(harp, has, 47 strings)", "New Question": "How many strings has Ann's instrument?",
       "New Answer": "47"}
FULL = {"case_id": 5, "requested_rewrite": {
            "prompt": "Ann, by {} is", "subject": "Ann", "relation_id": "P1", "target_new": {"str": "harp", "id": "Q1"},
            "target_true": {"str": "lute", "id": "Q2"}},
        "paraphrase_prompts": ["They say Ann plays", "Ann is at the"], "neighborhood_prompts": ["Bo plays"],
        "attribute_prompts": ["Cy plays"], "generation_prompts": ["Ann likes", "Ann says", "Ann likes"]}
FLAT = {"case_id": 5, "prompt": "Ann plays the", "target_new": "harp", "subject": "Ann", "ground_truth": "lute",
        "rephrase_prompt": "Ann likes", "locality_prompt": "Bo plays", "locality_ground_truth": "lute"}
EDIT = {"prompt": "Ann plays the", "subject": "Ann", "target_new": "harp"}


@pytest.fixture
def load(tmp_path):
    def load(*records, **settings):
        path = tmp_path / "data.json"
        path.write_text(json.dumps(records), encoding="utf-8")
        return load_dataset(DatasetSpec(name="mine", path=str(path), **settings))

    return load


def one(data):
    assert data.skipped == ()
    (case,) = data.cases
    return case


def test_zsre(load):
    data = load(ZSRE)
    case = one(data)
    assert (case.id, case.prompt, case.subject) == ("zsre-0", "What does Ann play?", "Ann")
    assert (case.target_new, case.target_true, case.paraphrases) == ("harp", "lute", ("Which instrument is Ann's?",))
    assert case.unrelated == (Probe(prompt="nq question: who made the moon", target="nobody"),)
    assert case.portability == case.neighbourhood == () and data.format == "zsre" and data.notes == ()


def test_zsre_has_further_true_answers_and_needs_no_alt_where_it_is_not_asked(load):
    assert one(load(ZSRE)).also_true == ("luth",)
    truth = one(load({key: value for key, value in ZSRE.items() if key != "alt"}, target="answers0"))
    assert (truth.target_new, truth.target_true, truth.also_true) == ("lute", None, ())


def test_another_subject_needs_a_place_in_the_prompt(load):
    edit = FULL["requested_rewrite"] | {"prompt": "Ann, by trade"}
    data = load(FULL, FULL | {"case_id": 6, "requested_rewrite": edit, "alternative_subject": "Bo"})
    assert "requested_rewrite.prompt: it has no {} for 'alternative_subject'" in data.skipped[0].reason


def test_zsre_portability_asks_what_follows_from_alt(load):
    record = ZSRE | {"portability": HOP, "inverse question": "Who plays the harp?"}
    record |= {"alternative_subject": "Annie", "alter_subject_question": "What does Annie play?"}
    hop = Chain(prompt=HOP["New Question"], target="47", subject="Ann",
                link=Probe(prompt="harp has", target="47 strings", subject="harp"))
    inverse = Chain(kind="inverse", prompt="Who plays the harp?", target="Ann")
    other = Chain(kind="subject", prompt="What does Annie play?", target="harp", subject="Annie")
    assert one(load(record)).portability == (hop, inverse, other)
    data = load(record, target="answers0")
    assert (one(data).target_new, one(data).target_true) == ("lute", None)
    assert one(data).portability == (other.model_copy(update={"target": "lute"}),)
    assert data.notes == ("data set 'mine': portability and inverse questions are left out: they ask what follows from "
                          "'alt', not from the first of 'answers'",)


def test_a_recalled_relation_about_the_subject_may_hold_its_commas(load):
    record = ZSRE | {"subject": "Ann, Lady", "src": "What does Ann, Lady play?",
                     "portability": HOP | {"Recalled Relation": "(Ann, Lady, lives in, Bath)"}}
    assert one(load(record)).portability[0].link == Probe(prompt="Ann, Lady lives in", target="Bath",
                                                          subject="Ann, Lady")


def test_zsre_numbers_count_skipped_records(load):
    data = load(ZSRE | {"alt": ""}, ZSRE, ZSRE | {"answers": []}, ZSRE | {"loc": None})
    assert [case.id for case in data.cases] == ["zsre-1"]
    assert [(skip.case_id, skip.reason) for skip in data.skipped] == [
        ("zsre-0", "the target is empty"),
        ("zsre-2", "record 2 (line 1): answers: List should have at least 1 item after validation, not 0"),
        ("zsre-3", "record 3 (line 1): loc and loc_ans: one is there without the other")]
    assert [case.id for case in load(ZSRE, ZSRE, ZSRE, offset=2).cases] == ["zsre-2"]


def test_counterfact_other_subject_and_openings(load):
    case = one(load(FULL | {"alternative_subject": "Annie"}))
    assert (case.prompt, case.request().subject_start) == ("Ann, by Ann is", 8)
    assert case.portability == (Chain(kind="subject", prompt="Ann, by Annie is", target="harp", subject="Annie",
                                      relation="P1"),)
    assert case.generation_prompts == ("Ann likes", "Ann says", "Ann likes") and case.references == ()
    assert one(load(FULL, generality="generation_prompts")).paraphrases == ("Ann likes", "Ann says")


def test_generality_by_prompts_that_a_record_lacks(load):
    data = load(FULL, FULL | {"case_id": 6, "generation_prompts": []}, generality="generation_prompts")
    assert [case.id for case in data.cases] == ["5"]
    assert "generation_prompts: there are none" in data.skipped[0].reason


def test_snippets_become_references(load, tmp_path):
    path = tmp_path / "attribute_snippets.json"
    path.write_text(json.dumps([
        {"relation_id": "P1", "target_id": "Q1", "samples": [{"name": "Di", "text": "Di harps."}, {"text": "So I."}]},
        {"relation_id": "P1", "target_id": "Q2", "samples": [{"name": "Ed", "text": "Ed lutes."}]}]))
    assert one(load(FULL, snippets=str(path))).references == ("Di harps.", "So I.")
    assert list(snippet_texts(str(path))) == ["Di harps.", "So I.", "Ed lutes."]
    path.write_text('[{"relation_id": "P1"}]')
    with pytest.raises(InputError, match=r"no attribute_snippets.json: record 0 \(line 1\) lacks"):
        load(FULL, snippets=str(path))


def test_flat_counterfact_warns_of_its_paraphrases(load):
    data = load(FLAT)
    case = one(data)
    assert (case.id, case.target_new, case.target_true, case.paraphrases) == ("5", "harp", "lute", ("Ann likes",))
    assert case.neighbourhood == (Probe(prompt="Bo plays", target="lute"),)
    assert "82.8 %" in data.notes[0] and "add 'paraphrases: FILE'" in data.notes[0]


def test_flat_counterfact_takes_its_paraphrases_from_the_full_file(load, tmp_path):
    full = tmp_path / "counterfact.json"
    full.write_text(json.dumps([{}, FULL]))
    data = load(FLAT, FLAT | {"case_id": 6}, paraphrases=str(full))
    assert data.cases[0].paraphrases == ("They say Ann plays", "Ann is at the") and data.notes == ()
    assert "there is no 6 in the file that 'paraphrases' names" in data.skipped[0].reason
    data = load(FLAT, FLAT | {"case_id": "5", "subject": "plays"}, paraphrases=str(full))
    assert "case 5 is about 'Ann' in the file that 'paraphrases' names, not about 'plays'" in data.skipped[0].reason
    full.write_text(json.dumps([FLAT]))
    with pytest.raises(InputError, match="no COUNTERFACT record"):
        load(FLAT, paraphrases=str(full))


def test_plain_edits(load, tmp_path):
    whole = EDIT | {"id": 7, "target_true": "lute", "subject_start": 0, "paraphrases": ["Ann is at the"],
                    "neighbourhood": [{"prompt": "Bo plays", "target": "lute"}],
                    "portability": [{"kind": "inverse", "prompt": "Who harps?", "target": "Ann"}]}
    path = tmp_path / "edits.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in (
        EDIT, whole, EDIT | {"target": "x"}, EDIT | {"paraphrases": "Ann"}, EDIT | {"paraphrases": ["\ud800"]},
        EDIT | {"prompt": "Is it Ann", "subject_start": -3}, EDIT | {"paraphrase": ["Ann is at the"]},
        EDIT | {"portability": [{"prompt": "Who?", "target": "Ann", "kinds": "hop"}]})))
    data = load_dataset(DatasetSpec(name="mine", path=str(path)))
    first, second = data.cases
    assert (data.format, first.id, second.id) == ("edits", "record 0", "7")
    assert second.portability == (Chain(kind="inverse", prompt="Who harps?", target="Ann"),)
    reasons = [(skip.case_id, skip.reason.partition(" Available: ")[0]) for skip in data.skipped]
    assert "prompt, references, relation, subject," in data.skipped[0].reason
    assert reasons == [
        ("record 2", "record 2 (line 3): unknown field 'target'. Did you mean 'target_new'?"),
        ("record 3", "record 3 (line 4): paraphrases: Input should be a valid array"),
        ("record 4", "record 4 (line 5): paraphrases.0: it holds half of a surrogate pair"),
        ("record 5", "record 5 (line 6): subject_start: it is negative"),
        ("record 6", "record 6 (line 7): unknown field 'paraphrase'. Did you mean 'paraphrases'?"),
        ("record 7", "record 7 (line 8): portability.0: unknown field 'kinds'. Did you mean 'kind'?")]


@pytest.mark.parametrize(("record", "form"), [(FULL, "counterfact"), (FLAT, "counterfact-flat"), (ZSRE, "zsre"),
                                              (EDIT, "edits")])
def test_formats_are_recognised_and_tell_where_cases_come_from(load, record, form):
    data = load(record, limit=4)
    assert data.format == form and data == load(record, format=form, limit=4).__class__(
        data.spec, data.cases, data.skipped, form)
    origin = json.loads(json.dumps(data.provenance))
    assert origin["source"].endswith("data.json") and origin["format"] == form
    assert (origin["records"], origin["cases"], origin["skipped"], origin["limit"]) == (1, 1, 0, 4)
    assert origin.get("target") == ("alt" if form == "zsre" else None)
    assert origin.get("generality") == {"counterfact": "paraphrase_prompts",
                                        "counterfact-flat": "rephrase_prompt"}.get(form)


def test_a_format_that_is_not_recognised(load):
    with pytest.raises(InputError, match=r"\(question, answer\); 'format' may be counterfact, counterfact-flat, zsre"):
        load({"question": "Who?", "answer": "Ann"})
    with pytest.raises(InputError, match=r"\(prompt, target\).*A plain fact needs subject and target_new, too"):
        load({"prompt": "Ann lives in", "target": "Rome"})
    with pytest.raises(InputError, match=r"no record that is an object; the first, record 0 .*, is int"):
        load(1, 2)
    assert load(1, FLAT).format == "counterfact-flat"


@pytest.mark.parametrize(("record", "settings", "message"), [
    (FULL, {"target": "alt"}, "'target' is for zsre, and this is counterfact; leave 'target: alt' out"),
    (ZSRE, {"generality": "rephrase_prompt"}, "'generality' is for counterfact and counterfact-flat"),
    (FULL, {"paraphrases": "x"}, "'paraphrases' is for counterfact-flat"),
    (EDIT, {"snippets": "x"}, "'snippets' is for counterfact"),
    (FULL, {"generality": "rephrase_prompt"}, "has no 'generality: rephrase_prompt', but paraphrase_prompts or gen"),
    (FLAT, {"generality": "paraphrase_prompts"}, "but rephrase_prompt; add 'paraphrases: FILE'"),
])
def test_switches_of_other_formats(load, record, settings, message):
    with pytest.raises(InputError, match=message):
        load(record, **settings)


def test_a_data_set_without_a_usable_case(load):
    with pytest.raises(InputError, match="no usable case: all of its 2 records are left out, such as record 0"):
        load(EDIT | {"prompt": "Who?"}, EDIT | {"target_new": "x", "prompt": "x" * 9_000})
    with pytest.raises(InputError, match="such as record 0: no-op"):
        load(EDIT | {"target_true": "harp"}, exclude=("no-op",))


def test_reasons_do_not_quote_endless_texts(load):
    data = load(EDIT, EDIT | {"prompt": "x " * 9_000})
    assert "is not in prompt 'x x" in data.skipped[0].reason and len(data.skipped[0].reason) < 300


def test_excluded_cases(load):
    records = [EDIT, EDIT | {"target_true": "Harp "}, EDIT, EDIT | {"target_new": "drum"}, EDIT | {"prompt": "Ann is"}]
    data = load(*records, exclude=("no-op", "duplicate", "contradiction"))
    assert [case.id for case in data.cases] == ["record 0", "record 4"]
    assert [skip.reason.split(":")[0] for skip in data.skipped] == ["no-op", "duplicate", "contradiction"]


def test_excluded_subjects_of_training_cases(load, tmp_path):
    train = tmp_path / "train.json"
    train.write_text(json.dumps([EDIT]))
    records = [EDIT, {"prompt": "Bo is", "subject": "Bo", "target_new": "old"}]
    assert [case.id for case in load(*records, train=str(train), exclude=("train-overlap",)).cases] == ["record 1"]
    with pytest.raises(InputError, match="has no training cases: add 'train: FILE'"):
        load(*records, exclude=("train-overlap",))
    spec = DatasetSpec(name="mine", path="a", train="b", exclude=("train-overlap", "no-op"))
    assert training_spec(spec) == DatasetSpec(name="mine", path="b", exclude=("no-op",))


@pytest.mark.parametrize(("file", "form", "records", "skips", "kinds"), [
    ("zsre_mend_eval_portability_gpt4", "zsre", 300, {}, {"hop"}),
    ("zsre_mend_train", "zsre", 400, {}, set()),
    ("zsre_inverse_relation", "zsre", 60, {}, {"inverse"}),
    ("zsre_subject_replace", "zsre", 60, {"zsre-17": "subject 'Rio Grande 463' is not in prompt"}, {"subject"}),
    ("counterfact_portability_gpt4", "counterfact", 300, {}, {"hop"}),
    ("counterfact_subject_replace", "counterfact", 60, {}, {"subject"}),
    ("counterfact-edit", "counterfact-flat", 400, {}, set()),
    ("counterfact-train", "counterfact-flat", 400, {}, set()),
])
def test_public_files(file, form, records, skips, kinds):
    path = REAL_DATA / f"{file}.head.json"
    if not path.exists():
        pytest.skip(f"needs a copy of the public file {path.name}")
    data = load_dataset(DatasetSpec(name=file, path=str(path)))
    assert data.format == form and len(data.cases) + len(data.skipped) == records == len(json.loads(path.read_text()))
    assert {skip.case_id for skip in data.skipped} == skips.keys()
    assert all(skip.reason.startswith(skips[skip.case_id]) for skip in data.skipped)
    assert {chain.kind for case in data.cases for chain in case.portability} == kinds
    assert all(case.paraphrases for case in data.cases)
