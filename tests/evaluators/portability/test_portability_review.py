"""The sheet for people, and the final file."""

from __future__ import annotations

import csv
import io
import json

import pytest

from editors.core.errors import InputError
from evaluators.cases import Probe
from evaluators.portability.building import CANDIDATES, Candidate, read_candidates
from evaluators.portability.journal import Journal
from evaluators.portability.review import read_verdicts, write_final, write_sheet

NASTY = ["=1+1", "+49 30", "-x", "@SUM(A1)", "'quoted'", "a, \"b\"\nc;d", "1066", "1-2", "TRUE", "Ærø: ok"]


def candidate(name, text="text"):
    return Candidate(id=name, question=text, subject=text, altered=text, triple=text, new_question=text,
                     new_answer=text, altered_is="head", link=Probe(prompt="p", target="t"),
                     record={"case_id": name, "src": text}, ranks={"m": 3}, known=True)


@pytest.fixture
def candidates():
    return [candidate(str(place), text) for place, text in enumerate(NASTY)]


def fill(path, verdicts, delimiter=",", columns=None):
    """Writes verdicts by id into a sheet, as a spreadsheet program would save it."""
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    for row in rows:
        row["verdict"] = verdicts.get(row["id"].removeprefix("'"), "")
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8-sig", newline="")


def test_no_cell_is_a_formula_and_every_text_comes_back(candidates, tmp_path):
    write_sheet(tmp_path / "s.csv", candidates)
    for row in csv.reader(io.StringIO((tmp_path / "s.csv").read_text(encoding="utf-8-sig"), newline="")):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)
    fill(tmp_path / "s.csv", {"0": "yes", "5": " NO "})
    assert read_verdicts(tmp_path / "s.csv", candidates) == {"0": True, "5": False}


def test_columns_may_move_and_be_separated_otherwise(candidates, tmp_path):
    write_sheet(tmp_path / "s.csv", candidates)
    columns = next(csv.reader(io.StringIO((tmp_path / "s.csv").read_text(encoding="utf-8-sig"))))
    fill(tmp_path / "s.csv", {"3": "yes"}, ";", columns[::-1])
    assert read_verdicts(tmp_path / "s.csv", candidates) == {"3": True}


def test_a_sheet_that_is_there_is_not_overwritten(candidates, tmp_path):
    write_sheet(tmp_path / "s.csv", candidates)
    with pytest.raises(InputError, match="may hold verdicts"):
        write_sheet(tmp_path / "s.csv", candidates)
    with pytest.raises(InputError, match="nothing to review"):
        write_sheet(tmp_path / "t.csv", [])


def test_what_is_wrong_in_a_sheet_is_named_with_its_row(tmp_path):
    two, path = [candidate("a"), candidate("b")], tmp_path / "s.csv"
    write_sheet(path, two)
    fill(path, {"b": "maybe"})
    with pytest.raises(InputError, match=r"row 3 \(id b\): verdict 'maybe' is neither yes nor no"):
        read_verdicts(path, two)
    with pytest.raises(InputError, match=r"row 2 \(id a\): no candidate has this id"):
        read_verdicts(path, [candidate("c")])
    with pytest.raises(InputError, match=r"row 2 \(id a\): the question is 'text', and 'other' was built"):
        read_verdicts(path, [candidate("a", "other"), candidate("b")])
    path.write_text(path.read_text(encoding="utf-8-sig").replace("verdict", "judgement"), encoding="utf-8")
    with pytest.raises(InputError, match="the column 'verdict' is missing"):
        read_verdicts(path, two)
    with pytest.raises(InputError, match="cannot read sheet"):
        read_verdicts(tmp_path / "none.csv", two)


def test_the_final_file_holds_the_records_as_they_were_and_the_questions(candidates, tmp_path):
    verdicts, path = {"0": True, "1": False}, tmp_path / "final.json"
    assert write_final(path, candidates, verdicts, keep_unreviewed=False) == (1, 1, 8, 1)
    assert json.loads(path.read_text(encoding="utf-8")) == [{"case_id": "0", "src": "=1+1", "portability": {
        "Recalled Relation": "=1+1", "New Question": "=1+1", "New Answer": "=1+1"}}]
    assert write_final(path, candidates, verdicts, keep_unreviewed=True).written == 9
    with pytest.raises(InputError, match="no record is left"):
        write_final(path, candidates, {}, keep_unreviewed=False)
    assert len(json.loads(path.read_text(encoding="utf-8"))) == 9
    assert [file.name for file in tmp_path.iterdir()] == ["final.json"]


ANYTHING = [b"", b"[]", b"3", b"null", b"{}", b"[[]]", b'[{"id": 3}]', b"[" * 100_000, b'{"key": ' * 100_000,
            b"\xff\xfe", b'{"key": 3}', b"9" * 5000, b"\0"]


@pytest.mark.parametrize("content", ANYTHING, ids=range(len(ANYTHING)))
def test_files_of_a_build_that_say_anything_are_refused_by_name(candidates, tmp_path, content):
    for name, read in ((CANDIDATES, lambda path: read_candidates(path.parent)), ("journal.jsonl", Journal),
                       ("s.csv", lambda path: read_verdicts(path, candidates))):
        path = tmp_path / name
        path.write_bytes(content + b"\n")
        if name == CANDIDATES and content == b"[]":
            assert read(path) == ()  # a build of nothing
            continue
        with pytest.raises(InputError, match=str(path)):
            read(path)


@pytest.mark.parametrize("name", [CANDIDATES, "journal.jsonl", "s.csv"])
def test_folders_in_their_place_are_refused_by_name(candidates, tmp_path, name):
    (tmp_path / name).mkdir()
    read = {CANDIDATES: lambda path: read_candidates(path.parent), "journal.jsonl": Journal}.get(
        name, lambda path: read_verdicts(path, candidates))
    with pytest.raises(InputError, match=f"{tmp_path / name}': it is a folder"):
        read(tmp_path / name)


def test_a_sheet_whose_first_cell_has_no_end_is_refused(candidates, tmp_path):
    (tmp_path / "s.csv").write_text('"' + "x" * 200_000)
    with pytest.raises(InputError, match="not CSV: field larger"):
        read_verdicts(tmp_path / "s.csv", candidates)
