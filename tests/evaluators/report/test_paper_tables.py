"""The paper's own tables: its rows, columns and order, its numbers beside ours, and what is missing."""

from evaluators.report.grids import grids_to_markdown, grids_to_text
from evaluators.report.latex import grids_to_latex
from evaluators.report.paper_tables import paper_grids
from evaluators.report.tables import Summary

FILL = {"table2": ["editfleet run table2 --out X"], "table3": ["editfleet run table3 --out X"]}
ASPECTS = {"Reliability": "reliability.token", "Generality": "generality.token", "Locality": "locality.token"}


def summary(editor, metric, mean, model="gpt-j", dataset="counterfact", edits=1):
    return Summary(editor, model, dataset, "single" if edits == 1 else "batch", edits, metric, mean, mean - 0.1,
                   mean + 0.1, 7)


def tables(*rows):
    return paper_grids(rows, FILL)


OURS = [summary(editor, metric, mean)
        for editor, mean in (("identity", 0.0), ("rome", 0.5), ("ft", 0.25), ("mine", 0.125))
        for metric in (*ASPECTS.values(), "reliability.exact")]


def test_table_2_has_the_papers_rows_and_columns_in_its_order():
    [table] = tables(*OURS)
    assert table.head == ["dataset", "model", "metric", "cases", "identity", "ft", "serac", "calinet", "t-patcher",
                          "ke", "mend", "kn", "rome", "memit", "mine"]
    assert [tuple(line[:3]) for line in table.body] == [
        (dataset, model, metric + behind) for dataset in ("zsre", "counterfact") for model in ("t5-xl", "gpt-j")
        for metric in ASPECTS for behind in ("", ", Yao et al.")]
    ours, papers = (dict(zip(table.head, line, strict=True)) for line in table.body[-6:-4])
    assert (ours["rome"], ours["ft"], ours["serac"], ours["cases"]) == ("50.0 ±10.0", "25.0 ±10.0", "—", "7")
    assert (papers["rome"], papers["ft"], papers["serac"], papers["identity"]) == ("99.80", "99.90", "99.78", "-")
    assert dict(zip(table.head, table.body[-1], strict=True))["rome"] == "100.00 / 93.61"
    assert table.parts == (0, 6, 12, 18)
    assert {column for _, column in table.leads} == {12} and all(line >= 18 for line, _ in table.leads)  # rome's


def test_what_is_missing_is_told_with_the_command_that_makes_it():
    [table] = tables(*OURS)
    of_t5 = dict(zip(table.head, table.body[0], strict=True))
    assert of_t5["ft"] == "—" and of_t5["rome"] == "-"  # the paper could not have it either
    assert table.told.endswith(". — is missing, and made by: editfleet run table2 --out X")
    assert "Reliability is reliability.token" in table.note and "Portability" not in table.note
    whole = [summary(editor, "reliability.token", 0.5, "mine", "own") for editor in table.head[4:]]
    [table] = tables(*whole)
    assert "missing" not in table.told and "—" not in str(table.body)


def test_other_models_and_data_have_their_own_rows_alone():
    [table] = tables(summary("ft", "reliability.token", 0.5, "testbed-gptj", "testbed-cloze"))
    assert [line[:3] for line in table.body] == [["testbed-cloze", "testbed-gptj", "Reliability"]]
    assert "Yao" not in grids_to_markdown([table]).split("\n", 1)[1].split("As Yao")[0]


def test_table_3_has_a_row_for_each_editor():
    _, table = tables(*OURS, summary("rome", "portability.all.token", 0.5),
                      summary("ft", "portability.all.token", 0.25))
    assert table.head == ["editor", "t5-xl, zsre", "Yao et al.", "t5-xl, counterfact", "Yao et al.", "gpt-j, zsre",
                          "Yao et al.", "gpt-j, counterfact (7 cases)", "Yao et al."]
    rows = {line[0]: line[1:] for line in table.body}
    assert list(rows) == ["ft", "serac", "calinet", "t-patcher", "ke", "mend", "kn", "rome", "memit"]
    assert rows["rome"] == ["-", "-", "-", "-", "—", "50.91", "50.0 ±10.0", "46.49"]
    assert rows["calinet"] == ["—", "13.55", "—", "2.91", "—", "29.77", "—", "0.68"]
    assert "table3" in table.told


def test_other_protocols_keep_their_tables():
    table2, other = tables(*OURS, summary("ft", "reliability.token", 0.5, edits=10))
    assert table2.title.startswith("Table 2") and other.head == ["editor", "cases", "Reliability"]


GOLDEN = """\
Table 2 of Yao et al. 2023: single edits, shares in percent ± half the 95 % confidence interval

| dataset | model | metric | cases | identity | ft | serac | calinet | t-patcher | ke | mend | kn | rome | \
memit | x\\|\\*y\\* |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| \\<b>d | m\\\\u202e | Reliability | 7 | 0.0 ±10.0 | — | — | — | — | — | — | — | — | — | 50.0 ±10.0 |

As Yao et al. 2023: Reliability is reliability.token. — is missing, and made by: editfleet run table2 --out X
"""


def test_as_markdown_and_latex_with_hostile_names():
    found = tables(summary("identity", "reliability.token", 0.0, "m\u202e", "<b>d"),
                   summary("x|*y*", "reliability.token", 0.5, "m\u202e", "<b>d"))
    assert grids_to_markdown(found) == GOLDEN
    text = grids_to_latex(found)
    assert (r"\textless{}b\textgreater{}d & m\textbackslash{}u202e & Reliability & $7$ & $0.0_{\pm 10.0}$ & "
            r"\textemdash{}") in text
    assert "\\resizebox{\\textwidth}{!}{%" in text and "mathbf" not in text  # nobody to be better than


def test_a_terminal_shows_wide_tables_in_pieces_that_lose_nothing():
    [table] = tables(*OURS)
    shown = grids_to_text([table], 120)
    lines = [line.split() for line in shown.splitlines()]
    assert sum(line[:2] == ["dataset", "model"] for line in lines) == 2
    for line in table.body:
        assert all(cell in shown for cell in line)
    assert any("99.90" in line and "99.78" in line for line in lines) and "ty\n" not in shown
    assert shown.count("Table 2 of") == 1 and shown.count("made by") == 1
    marked = table._replace(best=frozenset({(0, 4), (0, 14)}), title="t", note="")
    assert grids_to_text([marked]).count("*") == 2
