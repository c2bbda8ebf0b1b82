"""What the audit flags, against counts made by a few plain lines."""

import json
from collections import Counter
from pathlib import Path

import pytest

from evaluators.audit import FLAGS, audit, subjects, without_contradictions
from evaluators.cases import Case, Chain, Skipped
from evaluators.datasets import DatasetSpec, load_dataset

REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def case(name="a", **changes):
    edit = {"id": name, "subject": "Ann", "prompt": "Ann plays the", "target_new": "harp"}
    return Case.model_validate(edit | changes)


def hop(question, kind="hop"):
    return (Chain(prompt=question, target="47", kind=kind),)


def flags(*cases, train=()):
    return [(finding.case_id, finding.flag) for finding in audit(cases, train).findings]


def test_nothing_is_wrong():
    assert flags(case(target_true="lute", paraphrases=("They say Ann is at the",), portability=hop("Who?"))) == []


@pytest.mark.parametrize(("changes", "flag"), [
    ({"target_true": " HARP "}, "no-op"), ({"target_true": "lute", "also_true": ("luth", "Harp")}, "no-op"),
    ({"paraphrases": ("ann's is the", "Annie")}, None), ({"paraphrases": ("Ann is", "The lady is")}, "subject-missing"),
    ({"subject": "Ann  Lee", "prompt": "Ann  Lee", "paraphrases": ("ann lee",)}, None),
    ({"portability": hop("Has a HARP strings?")}, "target-leak"),
    ({"portability": hop("Who plays the harp?", "inverse")}, None),
    ({"portability": hop("Is Annie's the harp?", "subject")}, "target-leak"),
])
def test_flags_of_a_single_case(changes, flag):
    assert flags(case(**changes)) == ([("a", flag)] if flag else [])


def test_a_paraphrase_with_a_subject_that_looks_alike_is_told_apart():
    [finding] = audit([case(subject="O'Neill", prompt="O'Neill is", paraphrases=("O\u2019Neill has",))]).findings
    assert finding.flag == "subject-missing" and "APOSTROPHE (U+0027) for RIGHT SINGLE QUOTATION" in finding.detail


def test_cases_at_odds():
    assert flags(case("a"), case("b", target_new="drum"), case("c", prompt=" ann  PLAYS the")) == [
        ("b", "contradiction"), ("c", "contradiction"), ("c", "duplicate")]
    one, other = case("a", relation="P1"), case("b", prompt="Ann is at the", relation="P1", target_new="drum")
    assert flags(one, other) == [("b", "contradiction")]
    assert flags(one, other.model_copy(update={"relation": "P2"})) == []
    assert flags(one, other.model_copy(update={"subject": "Bo", "prompt": "Bo is at the"})) == []
    assert flags(one, other.model_copy(update={"target_new": "Harp"})) == []


def test_train_overlap():
    known = subjects([case(subject="ANN"), Skipped(case_id="x", reason="y")])
    assert flags(case(), case("b", subject="Bo", prompt="Bo plays"), train=known) == [("a", "train-overlap")]


def test_findings_by_flag():
    found = audit([case("a", target_true="harp"), case("b")])
    assert list(found.by_flag()) == list(FLAGS)
    written = json.loads(json.dumps(found.to_json()))
    assert written["cases"] == 2
    assert written["flags"]["no-op"] == {
        "count": 1, "cases": [{"id": "a", "detail": "the new target 'harp' is the true answer"}]}
    assert written["flags"]["duplicate"]["cases"] == [
        {"id": "b", "detail": "case a has the same prompt and the same target"}]


def test_the_first_of_contradictory_edits_is_kept():
    cases = [case("a"), case("b", target_new="drum"), case("c"), case("d", prompt="Ann is at the", target_new="drum")]
    kept, skipped = without_contradictions(cases)
    assert list(kept) == [0, 2, 3]
    assert skipped == [Skipped(case_id="b", reason="contradiction: case a has the same prompt and the target 'harp', "
                                                   "not 'drum'")]
    kept, skipped = without_contradictions([cases[place] for place in kept])
    assert (list(kept), skipped) == ([0, 1, 2], [])


def test_what_is_left_out_contradicts_nothing():
    first = case("a", relation="P1")
    second = case("b", relation="P1", prompt="Ann is at the", target_new="drum")
    third = case("c", prompt="Ann is at the", target_new="flute")
    kept, _ = without_contradictions([first, second, third])
    assert list(kept) == [0, 2]


def test_a_fact_with_three_targets_is_known_by_each():
    cases = [case("a"), case("b", target_new="drum"), case("c", target_new="flute"), case("d", target_new="Drum"),
             case("e"), case("f", target_new="flute")]
    found = {(each.case_id, each.flag): each.detail.split(" has ")[0] for each in audit(cases).findings}
    assert found == {("b", "contradiction"): "case a", ("c", "contradiction"): "case a",
                     ("d", "contradiction"): "case a", ("d", "duplicate"): "case b", ("e", "contradiction"): "case b",
                     ("e", "duplicate"): "case a", ("f", "contradiction"): "case a", ("f", "duplicate"): "case c"}


def plain(text):
    return " ".join(text.casefold().split())


@pytest.mark.parametrize("name", ["zsre_mend_eval_portability_gpt4", "zsre_mend_train", "zsre_inverse_relation",
                                  "zsre_subject_replace"])
def test_counts_on_public_zsre_files(name):
    records, found = counted(name)
    skipped = {17} if name == "zsre_subject_replace" else set()
    records = [record for number, record in enumerate(records) if number not in skipped]
    assert found["no-op"] == sum(plain(r["alt"]) in map(plain, r["answers"]) for r in records)
    assert found["target-leak"] == sum(
        plain(r["alt"]) in plain(r.get("portability", {}).get("New Question", "") + r.get("alter_subject_question", ""))
        for r in records)
    assert found["subject-missing"] == sum(
        any(plain(r["subject"]) not in plain(text) for text in (r["src"], r["rephrase"])) for r in records)
    facts = Counter((plain(r["src"]), plain(r["alt"])) for r in records)
    assert found["duplicate"] == sum(count - 1 for count in facts.values())


def test_counts_on_the_public_counterfact_file():
    records, found = counted("counterfact_portability_gpt4")
    edits = [r["requested_rewrite"] for r in records]
    assert found["target-leak"] == sum(plain(edit["target_new"]["str"]) in plain(r["portability"]["New Question"])
                                       for r, edit in zip(records, edits, strict=True))
    assert found["no-op"] == sum(edit["target_new"]["id"] == edit["target_true"]["id"] for edit in edits)
    asked = [(plain(edit["subject"]), edit["relation_id"]) for edit in edits]
    assert len(set(asked)) == len(asked) and found["contradiction"] == found["duplicate"] == 0


def test_overlap_of_the_public_flat_files():
    edit, train = (records_of(name) for name in ("counterfact-edit", "counterfact-train"))
    known = {plain(record["subject"]) for record in train}
    cases = load_dataset(DatasetSpec(name="flat", path=str(public("counterfact-edit")))).cases
    trained = load_dataset(DatasetSpec(name="flat", path=str(public("counterfact-train")))).cases
    found = audit(cases, subjects(trained)).by_flag()["train-overlap"]
    assert [each.case_id for each in found] == [str(r["case_id"]) for r in edit if plain(r["subject"]) in known]


def public(name):
    path = REAL_DATA / f"{name}.head.json"
    if not path.exists():
        pytest.skip(f"needs a copy of the public file {path.name}")
    return path


def records_of(name):
    return json.loads(public(name).read_text(encoding="utf-8"))


def counted(name):
    """A public file's records, and how many cases have each flag."""
    records = records_of(name)
    found = audit(load_dataset(DatasetSpec(name=name, path=str(public(name)))).cases)
    return records, {flag: len(findings) for flag, findings in found.by_flag().items()}
