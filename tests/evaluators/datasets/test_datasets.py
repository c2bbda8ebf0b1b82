import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

import evaluators
from cluster.campaign.datasets import DatasetEntry
from editors.core.errors import InputError
from editors.core.examples import Question
from evaluators.cases import ROLES, Probe, ask
from evaluators.datasets import DatasetSpec, load_dataset, recalled_link, training_example, training_spec

REAL_DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def record(case_id=12, **changes):
    edit = {"prompt": "The mother tongue of {} is", "subject": "Ann", "relation_id": "P103",
            "target_new": {"str": "English", "id": "Q1"}, "target_true": {"str": "French", "id": "Q2"}}
    return {"case_id": case_id, "requested_rewrite": edit, "paraphrase_prompts": ["Ann speaks"],
            "neighborhood_prompts": ["Bo speaks", "Cy speaks"], "attribute_prompts": [], **changes}


def edited(**changes):
    return record(requested_rewrite=record()["requested_rewrite"] | changes)


@pytest.fixture
def load(tmp_path):
    def load(content, **settings):
        path = tmp_path / "counterfact.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return load_dataset(DatasetSpec(name="mine", path=str(path), format="counterfact", **settings))

    return load


def test_counterfact_record(load):
    (case,) = load([record()]).cases
    assert (case.id, case.subject, case.prompt) == ("12", "Ann", "The mother tongue of Ann is")
    assert (case.target_new, case.target_true, case.relation, case.subject_start) == ("English", "French", "P103", 21)
    assert case.paraphrases == ("Ann speaks",)
    assert case.neighbourhood == (Probe(prompt="Bo speaks", target="French", relation="P103"),
                                  Probe(prompt="Cy speaks", target="French", relation="P103"))
    assert case.attributes == case.unrelated == case.portability == ()


def test_portability_record(load):
    (case,) = load([record(portability={"Recalled Relation": "(English, spoken in, Bath, England)",
                                        "New Question": "Where is Ann's tongue spoken?",
                                        "New Answer": "Bath"})]).cases
    (chain,) = case.portability
    assert (chain.prompt, chain.target) == ("Where is Ann's tongue spoken?", "Bath")
    assert chain.link == Probe(prompt="English spoken in", target="Bath, England", subject="English")


@pytest.mark.parametrize(("triple", "expected"), [
    ("(Georgetown, located in, Washington, D.C.)", ("Georgetown located in", "Washington, D.C.")),
    ("(Washington, D.C., capital of, USA)", ("Washington, D.C. capital of", "USA")),
    ("(FIFA, organization for, soccer)", ("FIFA organization for", "soccer")),
    ("(FIFA, soccer)", None), ("", None), ("(, , )", None),
])
def test_recalled_relation(triple, expected):
    link = recalled_link(triple, "Washington, D.C.")
    assert (link and (link.prompt, link.target)) == expected


def test_template_fills_only_its_first_blank(load):
    prompt = "{0} In LaTeX \\frac{a}{b}, Ann says {} uses {} or {"
    (case,) = load([edited(prompt=prompt)]).cases
    assert case.prompt == "{0} In LaTeX \\frac{a}{b}, Ann says Ann uses {} or {"
    assert case.request().subject_start == case.subject_start == prompt.index("{}")


def test_unusable_records_are_skipped_with_the_reason(load):
    data = load([edited(prompt="Nobody is named here"), record(3)])
    assert [case.id for case in data.cases] == ["3"]
    assert [(skip.case_id, skip.reason) for skip in data.skipped] == [
        ("12", "subject 'Ann' is not in prompt 'Nobody is named here'")]


def test_limit_and_offset_count_records(load):
    records = [record(number) for number in range(6)]
    records[2]["requested_rewrite"]["subject"] = ""
    data = load(records, offset=1, limit=3)
    assert [case.id for case in data.cases] == ["1", "3"]
    assert [skip.case_id for skip in data.skipped] == ["2"]
    with pytest.raises(InputError, match="'mine' has 6 records: offset 6 leaves none"):
        load(records, offset=6)


def test_digest_follows_content_and_order(load):
    one, two = record(1), record(2)
    digests = [load(records).digest for records in ([one, two], [two, one], [one], [one, two])]
    assert len(set(digests)) == 3 and digests[0] == digests[3]


@pytest.mark.parametrize(("content", "message"), [
    ('[\n  {"case_id": 1,', r"counterfact\.json' ends in the middle, at record 0, line 2"),
    ("", "is empty; expected a JSON list of records"),
    ("{}", r"no well-formed record of format 'counterfact'. record 0 \(line 1\): case_id: Field required"),
    ("[]", "has 0 records"),
    ("7", "is not JSON: it begins with '7'"),
])
def test_files_that_hold_no_records(load, content, message):
    with pytest.raises(InputError, match=message):
        load(content)


@pytest.mark.parametrize(("content", "name", "reason"), [
    (7, "record 1", "expected an object, found int"),
    ({"case_id": 13}, "13", "requested_rewrite: Field required"),
    (record(13, requested_rewrite={"prompt": "{} is", "subject": "Bo", "target_new": {"str": "x"},
                                   "target_true": {"id": "Q2"}}), "13",
     "requested_rewrite.target_true.str: Field required"),
    (edited(target_new="English"), "12", "requested_rewrite.target_new: Input should be a valid dictionary"),
    (edited(subject=" "), "12", "requested_rewrite.subject: it is empty"),
    (edited(subject="Ann\0"), "12", "requested_rewrite.subject: it holds a null byte"),
    (record(paraphrase_prompts="Ann speaks"), "12", "paraphrase_prompts: Input should be a valid list"),
    (record(neighborhood_prompts=[7]), "12", "neighborhood_prompts.0: Input should be a valid string"),
    (record(neighborhood_prompts=None), "12", "neighborhood_prompts: Field required"),
    (edited(subject="N/A"), "12", "requested_rewrite.subject: Field required"),
    (record(paraphrase_prompts=["\ud800"]), "12", "paraphrase_prompts.0: it holds half of a surrogate pair"),
    (record(True), "record 1", "case_id"),
    (record("\ud800"), "record 1", "case_id"),
    (record(portability={"New Question": "Who?"}), "12", "portability.New Answer: Field required"),
    (record("1"), "1", "an earlier record has this id"),
])
def test_a_malformed_record_is_skipped_with_its_place(load, content, name, reason):
    data = load([record(1), content, record(2)])
    assert [case.id for case in data.cases] == ["1", "2"]
    (skip,) = data.skipped
    assert skip.case_id == name and skip.reason.startswith("record 1") and reason in skip.reason, skip.reason


def test_nothing_but_malformed_records_tell_of_a_wrong_format(load):
    with pytest.raises(InputError, match=r"record 0 \(line 1\): case_id: .*another format \(counterfact-flat, zsre"):
        load([{}, 7])


def test_a_misspelt_field_of_a_lone_fact_is_told_without_doubts_of_its_format(tmp_path):
    file = tmp_path / "fact.jsonl"
    file.write_text('{"prompt": "Ann lives in", "subject": "Ann", "target_new": "Omerga", "paraphrase": ["x"]}')
    with pytest.raises(InputError, match="Did you mean 'paraphrases'") as told:
        load_dataset(DatasetSpec(name="mine", path=str(file)))
    assert "another format" not in str(told.value)


def test_place_of_a_problem_counts_from_the_start_of_the_file(load):
    (skip,) = load([record(1), record(2), {}], offset=1).skipped
    assert skip.case_id == "record 2" and skip.reason.startswith("record 2 ")


def test_files_that_cannot_be_read(tmp_path):
    def spec(path, **settings):
        return DatasetSpec(name="mine", path=str(path), **settings)

    with pytest.raises(InputError, match=r"absent\.json': No such file.*check the path"):
        load_dataset(spec(tmp_path / "absent.json"))
    with pytest.raises(InputError, match="it is a folder; name a file"):
        load_dataset(spec(tmp_path))
    latin = tmp_path / "latin.json"
    latin.write_bytes('["é"]'.encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        load_dataset(spec(latin, format="counterfact"))


def test_built_in_data_sets():
    assert DatasetSpec.model_validate("testbed-cloze") == DatasetSpec(name="testbed-cloze")
    data = load_dataset(DatasetSpec(name="testbed-questions", split="train", offset=5, limit=2))
    assert [case.id for case in data.cases] == ["question-train-00005", "question-train-00006"]
    with pytest.raises(InputError, match="Did you mean 'testbed-cloze'"):
        load_dataset(DatasetSpec(name="testbed-close"))


@pytest.mark.parametrize("settings", [{"limit": 0}, {"offset": -1}, {"format": "csv"}, {"target": "pred"}, {"size": 3}])
def test_wrong_settings(settings):
    with pytest.raises(ValidationError):
        DatasetSpec.model_validate({"name": "testbed-cloze"} | settings)


@pytest.mark.parametrize(("settings", "message"), [
    ({"split": "test"}, "unknown split of data set 'testbed-cloze' 'test'"),
    ({"format": "zsre"}, "built in; leave 'format: zsre' out"),
    ({"target": "alt"}, "built in; leave 'target: alt' out"),
    ({"path": "a", "hub": "b"}, "both 'path: a' and 'hub: b'"), ({"hub": "b"}, "a hub but no split"),
    ({"path": "a", "hub_config": "c"}, "'hub_config: c' is for data sets with 'hub'"),
    ({"path": "a", "split": "test"}, "a file has no splits"),
])
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(InputError, match=message):
        load_dataset(DatasetSpec(**{"name": "testbed-cloze"} | settings))


def test_real_counterfact_with_portability():
    path = REAL_DATA / "counterfact_portability_gpt4.head.json"
    if not path.exists():
        pytest.skip(f"needs a copy of the public file {path.name}")
    data = load_dataset(DatasetSpec(name="counterfact", path=str(path), format="counterfact"))
    assert (len(data.cases), data.skipped) == (300, ())
    case = data.cases[0]
    assert (case.id, case.prompt, case.target_new, case.target_true) == (
        "4482", "Spike Hughes originates from", "Philadelphia", "London")
    assert (len(case.paraphrases), len(case.neighbourhood)) == (2, 10)
    assert case.portability[0].link == Probe(prompt="Philadelphia known for", target="cheesesteaks",
                                             subject="Philadelphia")
    assert all(chain.link is not None for case in data.cases for chain in case.portability)


# --- training cases


def test_built_in_training_cases_are_the_other_half():
    spec = training_spec(DatasetSpec(name="testbed-cloze", limit=7, offset=3), limit=50)
    assert spec == DatasetSpec(name="testbed-cloze", split="train", limit=50)
    training = {case.subject for case in load_dataset(training_spec(DatasetSpec(name="testbed-cloze"))).cases}
    assert training and not training & {case.subject for case in load_dataset(DatasetSpec(name="testbed-cloze")).cases}


def test_training_cases_of_a_file_are_in_another():
    spec = DatasetSpec(name="mine", path="a.json", train="b.json", format="counterfact", limit=3)
    assert training_spec(spec) == DatasetSpec(name="mine", path="b.json")  # whose format its own records tell


@pytest.mark.parametrize(("spec", "message"), [
    ({"name": "mine", "path": "a.json", "format": "counterfact"}, "'mine' has no training cases: add 'train: FILE'"),
    ({"name": "testbed-cloze", "split": "train"}, "use 'split: eval'"),
    ({"name": "testbed-cloze", "split": "all"}, "use 'split: eval'"),
    ({"name": "testbed-cloze", "train": "b.json"}, "leave out 'train: b.json'")])
def test_training_cases_that_are_not_there(spec, message):
    with pytest.raises(InputError, match=message):
        training_spec(DatasetSpec(**spec))


def test_a_case_as_an_example(load):
    (case,) = load([record()]).cases
    case = case.model_copy(update={"attributes": (Probe(prompt="Ann lives in", target="Rome"),
                                                  Probe(prompt=case.prompt, target="French"))})
    example = training_example(case)
    assert example.request == case.request() and example.paraphrases == ("Ann speaks",)
    assert example.unchanged == (Question("Bo speaks", "French"), Question("Cy speaks", "French"),
                                 Question("Ann lives in", "Rome"))


# --- what the README shows


def shown(language):
    text = (Path(evaluators.__file__).parent / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_readmes_data_sets_are_what_a_campaign_may_say():
    examples = [entry for example in shown("yaml") for entry in yaml.safe_load(example)["datasets"]]
    assert len(examples) > 6 and any("known" in entry for entry in examples)
    for written in examples:
        DatasetEntry.model_validate({"name": written} if isinstance(written, str) else written).check_source()


def test_the_readmes_record_is_a_case_with_every_kind_of_question(tmp_path):
    path = tmp_path / "edits.jsonl"
    [record] = shown("json")
    path.write_text(json.dumps(json.loads(record)))
    data = load_dataset(DatasetSpec(name="mine", path=str(path)))
    assert data.format == "edits" and not data.skipped
    assert {key.role for key, _, _ in ask(data.cases[0])} == {*ROLES, "distracting"}
