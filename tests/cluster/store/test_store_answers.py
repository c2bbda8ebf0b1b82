"""What models said, beside the rows of a task: whole or left out, and never at the cost of the rows."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from support.stores import ROWS, answers, campaign, files, rows, task

from cluster.store.errors import StoreError
from cluster.store.store import ANSWER_SCHEMA, ResultKey, Store
from cluster.workers.rank import RankStore

SAID = answers({}, {"prompt": "Is Rome in", "edited": None, "right": 0.0}, {"relation": None, "case_id": "e"})


@pytest.fixture
def store(tmp_path):
    store = Store.create(tmp_path / "store")
    store.write_table(ROWS, rows(0.1, 0.2), {"seconds_each": 0.5}, SAID)
    return store


def path_of(store):
    return Path(store.root, "answers", "a1.parquet")


def read(store):
    damaged = []
    return store.answers([task("a1")], damaged).to_pylist(), [str(each) for each in damaged]


def test_they_come_back_as_they_were_and_with_what_an_edit_took(store):
    found = store.answers([task("a1"), task("a0"), task("b1", "baselines")])
    assert found.schema.names == [*ANSWER_SCHEMA.names, "seconds"]
    assert found.drop_columns("seconds").to_pylist() == SAID.to_pylist()
    assert found["seconds"].to_pylist() == [0.5] * 3
    content = path_of(store).read_bytes()
    assert store.provenance(ROWS)["answers"] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert found["prompt"].type == ANSWER_SCHEMA.field("prompt").type  # each text once, however many questions
    assert store.answers([]).num_rows == 0


def test_several_tasks_are_one_table(store):
    other = answers({"editor": "rome", "task": "a2", "prompt": "Rome lies in"})
    store.write_table(ResultKey("rows", "a2"), rows(0.3), {}, other)
    found = store.answers([task("a1"), task("a2")]).to_pylist()
    assert [each["editor"] for each in found] == ["ft"] * 3 + ["rome"]
    assert [each["seconds"] for each in found] == [0.5] * 3 + [None]


def test_other_programs_read_them(store):
    found = pyarrow.dataset.dataset(Path(store.root, "answers")).to_table()
    assert found["prompt"].to_pylist() == ["Rome is in", "Is Rome in", "Rome is in"]


def test_a_flipped_bit_is_found_and_named_and_the_rows_stay(store):
    good, sample = path_of(store).read_bytes(), random.Random(0)
    for place in sample.sample(range(len(good)), 100):
        bad = bytearray(good)
        bad[place] ^= 1 << sample.randrange(8)
        path_of(store).write_bytes(bad)
        assert read(store) == ([], ["answers/a1 cannot be used: its content is not what was written, or is another "
                                    "task's"])
    assert store.has(ROWS) and store.done([ROWS]) == {"a1"}
    assert store.rows([task("a1")])["value"].to_pylist() == [0.1, 0.2]
    path_of(store).write_bytes(good)
    assert read(store)[1] == []


@pytest.mark.parametrize(("harm", "told"), [
    (Path.unlink, "cannot be read: there is no such file"),
    (lambda path: path.write_bytes(b""), "it has 0 bytes and should"),
    (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes and should have")], ids=["gone", "empty", "cut"])
def test_answers_that_are_lost_are_left_out_and_named(store, harm, told):
    store.write_table(ResultKey("rows", "a2"), rows(0.3), {}, answers({"task": "a2"}))
    harm(path_of(store))
    damaged = []
    found = store.answers([task("a1"), task("a2")], damaged)
    assert found["task"].to_pylist() == ["a2"] and told in str(damaged[0]) and len(damaged) == 1
    assert store.standing(campaign("c", task("a1"), task("a2"))).done == {"a1", "a2"}
    store.write_table(ROWS, rows(0.1, 0.2), {}, SAID)  # made anew
    assert store.answers([task("a1")]).num_rows == 3


def test_a_file_of_other_columns_is_named(store):
    pq.write_table(rows(0.1), path_of(store))
    content = path_of(store).read_bytes()
    told = Path(store.root, "provenance", "a1.json")
    about = json.loads(told.read_text())
    about["answers"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    told.write_text(json.dumps(about))
    assert "its columns are editor" in read(store)[1][0]


def test_a_store_of_old_has_none_and_takes_some(tmp_path):
    store = Store.create(tmp_path / "store")
    store.write_table(ROWS, rows(0.1), {})
    Path(store.root, "answers").rmdir()  # there was no such folder
    old = Store.open(store.root)
    assert read(old) == ([], []) and old.done([ROWS]) == {"a1"} and old.strays() == [] and old.tidy() == 0
    assert old.rows([task("a1")])["value"].to_pylist() == [0.1]
    Store.create(store.root).write_table(ResultKey("rows", "a2"), rows(0.1), {}, SAID)
    assert old.answers([task("a1"), task("a2")]).num_rows == 3


def test_answers_that_cannot_be_written_cost_no_rows(store, monkeypatch):
    write, key = store._files.write, ResultKey("rows", "a2")

    def full(name, data):
        if name.startswith("answers"):
            raise StoreError("its disk is full")
        write(name, data)

    monkeypatch.setattr(store._files, "write", full)
    store.write_table(key, rows(0.3), {"notes": ["odd"]}, SAID)
    assert store.done([key]) == {"a2"} and store.answers([task("a2")]).num_rows == 0
    assert store.told([task("a2")]) == [
        "odd", "answers/a2.parquet, what models said, could not be kept: its disk is full"]


def test_answers_of_a_task_that_was_cut_short_are_not_there(store, monkeypatch):
    """They are written first: whoever is killed then leaves a file that nothing names, and that the task overwrites."""
    write, key = store._files.write, ResultKey("rows", "a2")

    def killed(name, data):
        if name.startswith("rows"):
            raise KeyboardInterrupt
        write(name, data)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store._files, "write", killed)
        store.write_table(key, rows(0.3), {}, answers({}))
    assert not store.has(key) and store.answers([task("a2")]).num_rows == 0 and store.strays() == []
    store.write_table(key, rows(0.3), {}, SAID)
    assert store.answers([task("a2")]).num_rows == 3


def test_they_go_with_their_result(store):
    store.remove(ROWS)
    assert files(store) == ["store.json"]


def test_of_a_gang_rank_0_writes_what_all_have_agreed_on(tmp_path):
    store, agreed = Store.create(tmp_path / "store"), []
    for number in (1, 0):
        RankStore(store, agreed.append, writes=number == 0).write_table(ROWS, rows(0.1), {"failed": []}, SAID)
        assert store.answers([task("a1")]).num_rows == (3 if number == 0 else 0)
    assert agreed[0] == agreed[1] == [1, 3]
    RankStore(store, agreed.append, writes=True).write_table(ROWS, rows(0.1), {"failed": []})
    assert agreed[2] == [1, -1] and store.answers([task("a1")]).num_rows == 0


def test_a_question_takes_few_bytes(tmp_path):
    """As COUNTERFACT has them: 25 cases of 23 questions, all worded otherwise."""
    store, draw = Store.create(tmp_path / "store"), random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 9))) for _ in range(3000)]
    said = [{"case_id": str(case), "subject": words[case], "prompt": " ".join(draw.choices(words, k=8)),
             "target": words[case % 7], "expected": words[case % 7], "unedited": words[draw.randrange(30)],
             "edited": words[case % 7], "question": ("reliability", "generality", "locality")[min(number, 2)]}
            for case in range(25) for number in range(23)]
    store.write_table(ROWS, rows(0.1), {}, answers(*said))
    prompts = sum(len(each["prompt"]) for each in said)
    assert path_of(store).stat().st_size < prompts  # random letters cannot be packed by half
