"""The paper's numbers, against the notes that they were taken from."""

import pytest
from support.paper_notes import NAMES, NOTES, lines_of, table

from editors import EDITORS as METHODS
from evaluators.report.paper import (
    DATASETS,
    EDITORS,
    FIGURE_5,
    FIGURE_5_TRAINING,
    TABLE_1,
    TABLE_2,
    TABLE_2_REVISED,
    TABLE_3,
    TABLE_4,
    Printed,
    in_papers_order,
    printed,
    printed_of,
)
from evaluators.report.stores import labelled
from evaluators.report.tables import Summary


def test_numbers_are_of_editors_that_there_are():
    for numbers in (*TABLE_4.values(), FIGURE_5):
        assert set(numbers) == set(METHODS) - {"identity"}
    assert all(FIGURE_5_TRAINING[editor] > FIGURE_5[editor] for editor in FIGURE_5_TRAINING)


@pytest.mark.skipif(not NOTES.exists(), reason="the notes on the paper are not here")
def test_what_methods_need_is_the_papers():
    body = lines_of("Table 1")[2:]
    assert {name.lower() for name, *_ in body} == set(TABLE_1) == set(METHODS) - {"identity", "ft"}
    for name, _, *cells in body:
        each = TABLE_1[name.lower()]
        assert [word == "yes" for word in (*cells[:3], cells[5])] == [
            each.training, each.online, each.batch, each.efficient]
        assert cells[3].lower() in each.area.lower()
        assert _words(each.parameters) == _words(cells[4])


def _words(parameters):
    """Letter by letter, but for words that the notes shorten."""
    for word, short in (("neurons", "neuron"), ("hypernetwork", "hyper"), ("counterfactual model", "model_cf")):
        parameters = parameters.replace(word, short)
    return parameters.replace(" x ", " ").split()


@pytest.mark.skipif(not NOTES.exists(), reason="the notes on the paper are not here")
def test_numbers_are_the_papers():
    assert {"counterfact": table("Table 4")["CF"], "zsre": table("Table 4")["zsRE"]} == TABLE_4
    figure = table("Figure 5")
    assert (figure["edit memory"], figure["bar end incl. training"]) == (FIGURE_5, FIGURE_5_TRAINING)


@pytest.mark.skipif(not NOTES.exists(), reason="the notes on the paper are not here")
def test_every_score_of_table_2_is_the_papers():
    head, _, *lines = lines_of("Table 2")
    editors, where, count = [name.lower() for name in head[3:]], ["", ""], 0
    assert tuple(editors) == EDITORS
    for data, model, metric, *cells in lines:
        where = [NAMES[data], NAMES[model]] if data else where
        for editor, cell in zip(editors, cells, strict=True):
            found = printed(NAMES[metric].capitalize(), *where, editor)
            value, _, revised = cell.partition(" (rev. ")
            assert found == (None if cell == "-" else
                             Printed(float(value), float(revised.rstrip(")")) if revised else None)), (where, editor)
            count += found is not None
    assert count == sum(3 * len(of_model) for of_data in TABLE_2.values() for of_model in of_data.values())
    assert sum(map(len, TABLE_2_REVISED.values())) == sum("(rev. " in cell for line in lines for cell in line)


@pytest.mark.skipif(not NOTES.exists(), reason="the notes on the paper are not here")
def test_every_score_of_table_3_is_the_papers():
    head, _, *lines = lines_of("Table 3")
    found = {}
    for name, *cells in lines:
        model, data = (NAMES[part] for part in name.split())
        found.setdefault(data, {})[model] = {editor.lower(): float(cell.split()[0]) for editor, cell in
                                             zip(head[1:], cells, strict=True) if cell != "-"}
    assert found == TABLE_3


def summary(**changes):
    return Summary(**{"editor": "rome", "model": "gpt-j-6b", "dataset": "zsre", "protocol": "single", "edits": 1,
                      "metric": "locality.unrelated.token", "mean": 0.5, "low": 0.4, "high": 0.6, "n": 9, **changes})


def test_numbers_stand_beside_the_papers_models_and_data_alone():
    assert printed_of(summary(), "Locality") == Printed(100.0, 99.19)
    assert printed_of(summary(model="EleutherAI/gpt-j-6B"), "Generality") == Printed(94.9)
    assert printed_of(summary(dataset=labelled("zsre", "B")), "Portability") == Printed(50.91)
    assert printed_of(summary(model="google/t5-xl-ssm-nq", editor="ft"), "Reliability") == Printed(20.71)
    for changes in ({"dataset": "testbed-cloze"}, {"model": "testbed-gptj"}, {"editor": "kn (port)"}, {"edits": 10},
                    {"protocol": "batch"}, {"model": "t5-xl"}):
        assert printed_of(summary(**changes), "Locality") is None
    assert printed_of(summary(), "perplexity") is None


def test_editors_in_the_papers_order():
    assert sorted(["mine", "memit", "ft", "rome", "another"], key=in_papers_order) == [
        "ft", "rome", "memit", "another", "mine"]
    assert set(EDITORS) == set(METHODS) - {"identity"} and set(TABLE_2) == set(TABLE_3) == set(DATASETS)
