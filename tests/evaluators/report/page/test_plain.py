"""The page's tables as Markdown, LaTeX, CSV and JSON: against plain loops, and as they are written."""

import csv
import io
import json
import math
from statistics import fmean

import pyarrow as pa
import pytest
from support.paper_notes import NOTES, scores
from support.paper_notes import table as table_of
from support.report_rows import HOSTILE, answers, cost_rows, hostile, rows

from evaluators.report.compare import compare
from evaluators.report.grids import grids_to_markdown
from evaluators.report.latex import grids_to_latex
from evaluators.report.page import plain
from evaluators.report.page.about import About
from evaluators.report.page.sections import measure
from evaluators.report.paper import EDITORS

ABOUT = About(store="s", campaign="c", papers={"gpt-j": "gpt-j"})
SINGLE = (("single", 1),)
TABLE = rows(12, model="gpt-j", dataset="zsre", protocols=(*SINGLE, ("sequential", 2), ("sequential", 4)))


@pytest.fixture(scope="module")
def found():
    return measure(ABOUT, pa.concat_tables([TABLE, cost_rows(model="gpt-j", dataset="zsre")]), (),
                   answers(model="gpt-j", dataset="zsre"))


@pytest.fixture(scope="module")
def lines(found):
    return list(map(json.loads, plain.to_json_lines(found).splitlines()))


def values_of(**where):
    return [row["value"] for row in TABLE.to_pylist() if all(row[key] == value for key, value in where.items())]


def test_every_mean_of_the_page_is_that_of_a_query(lines):
    seen = [line for line in lines if line["section"] in ("results", "locality") and "metric" in line]
    assert {line["metric"].rpartition(".")[2] for line in seen} == {"token", "exact", "generation"}
    for line in seen:
        values = values_of(editor=line["row"]["editor"], metric=line["metric"], protocol="single")
        assert line["mean"] == pytest.approx(fmean(values)) and line["n"] == len(values) == 12
    papers = {line["row"]["editor"]: line["paper"] for line in seen
              if line["metric"] == "reliability.token" and "paper" in line}
    assert papers == {"ft": 0.547, "mend": 0.456, "rome": 0.9918}
    assert not any("paper" in line for line in seen if line["metric"].endswith(".exact"))


def test_every_comparison_is_that_of_the_command_with_another_correction(lines):
    expected = {(each.editor, each.metric): each for each in compare(TABLE, "ft").comparisons
                if each.protocol == "single"}
    seen = [line for line in lines if line["section"] == "pairs" and line["column"] == "ft"
            and line["table"].endswith("single") and line["row"]["editor"] != "identity"]
    assert len(seen) == 2 * 5 * 3
    for line in seen:
        each = expected[line["row"]["editor"], line["metric"]]
        assert (line["difference"], line["n"]) == (pytest.approx(each.difference), each.n)
        assert line["p"] == pytest.approx(each.p) and line["p"] <= line["p_holm"] <= 1


def test_cost_against_quality_and_what_is_forgotten_have_numbers(lines):
    quality = {line["row"]["editor"]: line["mean"] for line in lines if line["column"] == "quality"
               and "whole answers" in line["table"]}
    for editor in ("ft", "mend", "rome"):
        means = [fmean(values_of(editor=editor, protocol="single", metric=f"{base}.exact"))
                 for base in ("reliability", "generality", "locality")]
        assert quality[editor] == pytest.approx(3 / sum(1 / mean for mean in means))
    forgotten = {(line["row"]["editor"], line["row"]["edits"]): line["mean"] for line in lines
                 if "forgetting in numbers" in line["table"] and line.get("metric") == "reliability.exact"}
    assert forgotten["rome", "4"] == pytest.approx(
        fmean(values_of(editor="rome", protocol="sequential", edits=4, metric="reliability.exact")))
    assert len(forgotten) == 4 * 2


def test_csv_has_the_numbers_of_json(found, lines):
    table = list(csv.DictReader(io.StringIO(plain.to_csv(found))))
    assert len(table) == len(lines)
    for row, line in zip(table, lines, strict=True):
        for name in plain.NUMBERS:
            assert (float(row[name]) if row[name] else None) == line.get(name)
        assert row["row"] == ", ".join(line["row"].values())


def test_people_see_one_way_of_counting(found):
    titles = {way: [table.title for table in plain.tables(found, way)] for way in ("token", "exact")}
    for way, told in (("token", "share of tokens"), ("exact", "whole answers")):
        assert any(told in title for title in titles[way])
    assert not any("share of tokens" in title for title in titles["exact"])
    for told in ("Tables 2 and 3", "Table 1", "Table 4", "Figure 5 in numbers", "Figure 7 in numbers",
                 "Cost against quality", "Collapse and forgetting", "Locality by source", "same answer",
                 "Success and magnitude", "target's length", "by relation", "Editor against editor"):
        assert any(told in title for title in titles["exact"]), told


@pytest.mark.skipif(not NOTES.exists(), reason="the notes on the paper are not here")
def test_every_number_of_the_paper_that_is_shown_is_the_papers_and_none_is_missing():
    models, data, editors = ("t5-xl", "gpt-j"), ("zsre", "counterfact"), dict.fromkeys(EDITORS, 0.5)
    table = pa.concat_tables([*(rows(2, editors=editors, model=model, dataset=each, protocols=SINGLE)
                                for model in models for each in data),
                              *(cost_rows(EDITORS, model="gpt-j", dataset=each) for each in data)])
    found = measure(About("s", "c", papers={model: model for model in models}), table)
    shown, costs = {}, {}
    for line in map(json.loads, plain.to_json_lines(found).splitlines()):
        place = line["table"].partition(": ")[2]
        if "paper" in line:
            where = next((each, model) for each in data for model in models if place.startswith(f"{each} on {model}"))
            shown[(*where, line["column"], line["row"]["editor"])] = round(100 * line["paper"], 6)
        elif line["section"] == "costs" and line["column"].startswith("paper"):
            [where] = [each for each in data if f" {each} on" in f" {place}"]
            costs.setdefault((line["column"], where), {})[line["row"]["editor"]] = float(line["text"])
    assert shown == scores() and len(shown) == 128
    seconds, sizes = table_of("Table 4"), table_of("Figure 5")
    for each, name in (("zsre", "zsRE"), ("counterfact", "CF")):
        assert costs["paper (s)", each] == seconds[name]
        assert costs["paper (GiB)", each] == sizes["edit memory"]
        assert costs["paper, with training", each] == sizes["bar end incl. training"]
        assert costs["paper + (GiB)", each] == sizes["excess training = difference"]


MARKDOWN = """\
Tables 2 and 3: zsre on gpt-j, one edit at a time, share of tokens (as the paper)

| editor | cases | Reliability |
| --- | --- | --- |
| identity | 3 | 0.0 ±0.0 |
| ft | 3 | **66.7 ±50.0 (paper 54.70)** |
| rome | 3 | 33.3 ±50.0 (paper 99.18) |

Reliability is reliability.token. Shares in percent, ± half the 95 % confidence interval; bold is the best.
"""
LATEX = r"""
    editor & cases & identity & ft \\
    \midrule
    ft & $3$ & $+66.7_{\pm 50.0}$ ($p = 1$) & - \\
    rome & $3$ & $+33.3_{\pm 50.0}$ ($p = 1$) & $-33.3_{\pm 50.0}$ ($p = 1$) \\
    \bottomrule
"""


@pytest.fixture(scope="module")
def small():
    """Three cases of which two, and one, are right."""
    table = rows(3, editors={"identity": 0, "ft": 0, "rome": 0}, model="gpt-j", dataset="zsre", protocols=SINGLE,
                 names=lambda number: (f"c{number}", f"s{number}")).to_pylist()
    right = {"identity": 0, "ft": 2, "rome": 1}
    kept = [{**row, "value": float(int(row["case_id"][1:]) < right[row["editor"]])} for row in table
            if row["metric"] == "reliability.token"]
    return measure(ABOUT, pa.Table.from_pylist(kept, schema=TABLE.schema))


def test_markdown_as_it_is_written(small):
    assert grids_to_markdown(plain.tables(small, "token")).startswith(MARKDOWN)


def test_latex_as_it_is_written(small):
    assert LATEX in grids_to_latex(plain.tables(small, "token"))


def test_strange_names_are_spelt_in_every_form():
    table = rows(4, editors={"identity": 0.1, HOSTILE["editor"]: 0.5, "=1+1\x1b[2J\u202e": 0.5},
                 dataset=HOSTILE["dataset"], names=hostile, protocols=SINGLE)
    found = measure(ABOUT, table, (), answers(4, names=hostile))
    tables = list(plain.tables(found, "exact"))
    for text in (grids_to_markdown(tables), grids_to_latex(tables), plain.to_csv(found), plain.to_json_lines(found)):
        assert not set(text) & set("\x1b\u202e\r")
    assert "<img" not in grids_to_markdown(tables).replace("\\<img", "")
    assert not any(cell.startswith(("=", "+", "-", "@")) and len(cell) > 1 and not _is_number(cell)
                   for row in csv.reader(io.StringIO(plain.to_csv(found))) for cell in row)


def _is_number(text):
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


