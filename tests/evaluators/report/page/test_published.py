"""The paper's tables of methods and scores, against the notes that they were taken from."""

import re
from pathlib import Path

import pytest

from editors import EDITORS
from evaluators.report.page.published import TABLE_1, TABLE_2, TABLE_2_REVISED, TABLE_3, published

NOTES = Path(__file__).resolve().parents[5] / "shared" / "METHODS.md"
here = pytest.mark.skipif(not NOTES.exists(), reason="the notes on the paper are not here")


def lines(title):
    """The cells of a table below its title, with its head."""
    text = re.split(rf"\*\*{title}\*\*", NOTES.read_text(encoding="utf-8"))[1].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text[:text.index("")]]


def test_numbers_are_of_editors_that_there_are():
    assert set(TABLE_1) == set(EDITORS) - {"identity", "ft"}
    for tables in (TABLE_2, TABLE_3):
        for models in tables.values():
            assert set(models["gpt-j"]) == set(EDITORS) - {"identity"}
            assert set(models["t5-xl"]) == set(EDITORS) - {"identity", "rome", "memit"}


@here
def test_table_1_is_the_papers():
    for name, _, *printed in lines("Table 1")[2:]:
        each = TABLE_1[name.lower()]
        assert [word == "yes" for word in (*printed[:3], printed[5])] == [
            each.training, each.online, each.batch, each.efficient]
        assert printed[3].lower() in each.area.lower()


@here
def test_table_2_is_the_papers():
    head, _, *body = lines("Table 2")
    editors = [name.lower() for name in head[3:]]
    data = model = ""
    seen = 0
    for first, second, metric, *cells in body:
        data, model = first or data, second or model
        scores = TABLE_2["counterfact" if data == "CF" else "zsre"][model.lower()]
        aspect = {"Rel": "reliability", "Gen": "generality", "Loc": "locality"}[metric]
        for editor, cell in zip(editors, cells, strict=True):
            if cell == "-":
                assert editor not in scores
                continue
            number, _, revised = cell.partition(" (rev. ")
            assert getattr(scores[editor], aspect) == float(number)
            if revised:
                assert TABLE_2_REVISED["counterfact" if data == "CF" else "zsre"][editor] == float(revised.strip(")"))
            seen += 1
    assert seen == 3 * 2 * (7 + 9)


@here
def test_table_3_is_the_papers():
    head, _, *body = lines("Table 3")
    for place, *cells in body:
        model, data = place.split()
        printed = {editor.lower(): float(cell.split()[0]) for editor, cell in zip(head[1:], cells, strict=True)
                   if cell != "-"}
        assert TABLE_3["counterfact" if data == "CF" else "zsre"][model.lower()] == printed


def test_what_is_shown_of_them():
    assert published("Reliability", "zsre", "gpt-j", "memit") == "99.23"
    assert published("Locality", "counterfact", "gpt-j", "rome") == "100 (later 93.61)"
    assert published("Portability", "counterfact", "t5-xl", "calinet") == "2.91"
    assert published("Portability", "mine", "gpt-j", "rome") == published("Locality", "zsre", "t5-xl", "rome") == ""
