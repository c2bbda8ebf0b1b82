"""What a page carries and shows: against plain loops over the rows, without a browser."""

import base64
import gzip
import json
import re
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from support.report_rows import HOSTILE, RELATIONS, answers, cost_rows, hostile, rows

from editors.core.errors import InputError
from evaluators.report.page import browser
from evaluators.report.page.about import About, Progress, Trouble
from evaluators.report.page.asked import SAME, by_length, by_neighbour, by_relation, checked
from evaluators.report.page.page import page, write_page
from evaluators.report.sweeps import Point

ABOUT = About(store="results/x", campaign="c", command="editfleet run c --out results/x",
              fill={"figure7": "editfleet run figure7 --scale testbed --out results/x"},
              progress=[Progress("score", 5, 3, 1)], failures=[Trouble("rome on m", "no memory", "first\nno memory")])


def unpacked(packed):
    return json.loads(gzip.decompress(base64.b64decode(packed.data)))


def test_all_scores_of_all_cases_are_carried():
    table = rows(5)
    packed = browser.pack(table, None, [])
    content, found = unpacked(packed), {}
    for cell in content["cells"]:
        place = tuple(content["names"][cell[key]] for key in ("editor", "model", "dataset", "protocol"))
        for metric, values in cell["scores"].items():
            for case, value in zip(cell["cases"], values, strict=True):
                key = (*place, cell["edits"], content["metrics"][int(metric)][0], content["cases"][case])
                found[key] = value
    plain = {tuple(row[key] for key in ("editor", "model", "dataset", "protocol", "edits", "metric", "case_id")):
             row["value"] for row in table.to_pylist()}
    assert found == pytest.approx(plain, rel=1e-4) and len(plain) == len(table)
    assert packed.shown == packed.cases == 5 * 4 * 3


def test_what_has_no_room_is_left_out_from_the_end_and_counted(monkeypatch):
    monkeypatch.setattr(browser, "ROOM", 3000)
    packed = browser.pack(rows(200), checked(answers(200)), [])
    content = unpacked(packed)
    assert len(base64.b64decode(packed.data)) <= 3000 and 0 < packed.shown < packed.cases == 200 * 4 * 3
    for cell in content["cells"]:
        assert cell["total"] == 200 and len(cell["cases"]) < 200
        assert [content["cases"][case] for case in cell["cases"]] == [
            f"case-{number:03}" for number in range(len(cell["cases"]))]


def test_values_that_are_no_numbers_are_told_apart_from_those_that_are_not_there():
    table = rows(2, protocols=(("single", 1),))
    values = table["value"].to_pylist()
    values[:2] = [float("nan"), float("inf")]
    table = table.set_column(table.column_names.index("value"), "value", pa.array(values))
    content = unpacked(browser.pack(table, None, []))
    scores = content["cells"][0]["scores"]
    assert {str(value) for column in scores.values() for value in column} >= {"nan", "inf"}


def plain_means(table, key):
    found = defaultdict(list)
    for row in table.to_pylist():
        if (label := key(row)) is not None:
            found[row["editor"], label].append(row["right"])
    return {place: (round(float(np.mean(each)), 9), len(each)) for place, each in found.items()}


def shown_means(grids):
    [grid] = grids
    return {(row[0].text, head): (round(float(cell.data["mean"]), 9), int(cell.data["n"]))
            for row in grid.rows for head, cell in zip(grid.heads[1:], row[1:], strict=True) if cell.data}


def test_reliability_by_the_length_of_targets():
    table = answers()
    lengths = {1: "1-2", 2: "1-2", 3: "3", 4: "4-5", 5: "4-5", 6: "6"}
    expected = plain_means(table, lambda row: lengths[len(row["target"])] if row["question"] == "reliability" else None)
    assert shown_means(by_length(checked(table))) == expected


def test_locality_of_neighbours_with_the_same_answer():
    table = answers()
    expected = plain_means(table, lambda row: {" Old ": SAME, "other": "other answer"}.get(row["target"]))
    assert not list(by_neighbour(checked(table.drop_columns(["target_true"]))))
    assert shown_means(by_neighbour(checked(table))) == expected


def test_editors_by_relation():
    table = answers()
    grid = next(by_relation(checked(table)))
    found = {(editor, row[0].text): (round(float(cell.data["mean"]), 9), int(cell.data["n"]))
             for row in grid.rows for editor, cell in zip(grid.heads[1:], row[1:], strict=True)}
    assert found == plain_means(table, lambda row: row["relation"] if row["question"] == "reliability" else None)
    assert {row[0].text for row in grid.rows} == set(RELATIONS)
    assert all(cell.shade == round(10 * float(cell.data["mean"])) for row in grid.rows for cell in row[1:])


def test_answers_without_a_column_are_refused():
    with pytest.raises(InputError, match="lacks unedited"):
        page(ABOUT, rows(2), (), answers(2).drop_columns(["unedited"]))


def test_a_campaign_that_has_just_begun_has_a_page():
    text = page(ABOUT, rows(0))
    for told in ("2 of 5 tasks are not done", "editfleet run c --out results/x", "1 tasks failed", "no single edits",
                 "nothing on what edits cost", "editfleet run figure7 --scale testbed"):
        assert told in text


def test_a_sweep_has_a_table_and_a_picture():
    points = [Point("editors", name, "any", {"lr": rate}) for name, rate in (("ft", 0.001), ("rome", 0.1))]
    text = page(ABOUT, rows(4), points)
    section = text.partition('<section id="sweeps"')[2].partition("</section>")[0]
    assert "any by lr" in section and "0.001" in section and 'class="best"' in section
    picture = base64.b64decode(re.search(r"data:image/svg\+xml;base64,([\w+/=]+)", section)[1]).decode()
    assert picture.startswith("<svg") and "over lr, logarithmic" in picture
    assert '<section id="sweeps"' not in page(ABOUT, rows(2))


@pytest.mark.parametrize(("papers", "dataset", "shown"), [
    ({"gpt-j": "gpt-j"}, "zsre", True), ({}, "zsre", False), ({"gpt-j": "gpt-j"}, "mine", False)])
def test_the_papers_numbers_stand_beside_its_own_model_and_data_alone(papers, dataset, shown):
    table = pa.concat_tables([rows(4, model="gpt-j", dataset=dataset), cost_rows(model="gpt-j", dataset=dataset)])
    about = About(store="s", campaign="c", papers=papers)
    assert ("paper 99.18" in page(about, table)) is shown  # rome's reliability
    costs = re.findall(r"<th scope=\"col\" class=\"number\"><bdi>paper \(s\)", page(about, table))
    assert bool(costs) is bool(papers)


def test_nothing_in_a_name_becomes_part_of_the_page(tmp_path):
    names = {HOSTILE["editor"]: 0.5, "identity": 0.1, "\x1b[31mred": 0.4}
    table = rows(4, editors=names, dataset=HOSTILE["dataset"], model=HOSTILE["subject"], names=hostile)
    about = About(store=HOSTILE["dataset"], campaign=HOSTILE["editor"], failures=[Trouble(
        HOSTILE["subject"], HOSTILE["long"], HOSTILE["editor"])], tags={HOSTILE["editor"]: HOSTILE["dataset"]})
    text = write_page(tmp_path / "a/b", about, table, (), answers(4, editors=names, names=hostile)).read_text()
    assert "<img src=x" not in text and "</script><script>" not in text and "\x1b" not in text and "\u202e" not in text
    assert text.count("<script") == text.count("</script>") == 3
    assert re.search(r"default-src &#39;none&#39;; script-src &#39;sha256-[\w+/=]+&#39;;", text)
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", text) and "style=\"" not in text
