"""Tables of what edits cost, beside what the paper prints."""

import json

import pyarrow as pa

from cluster.store.store import ROW_SCHEMA
from evaluators.report.costs import Cost, cost_tables, costs, parted
from evaluators.report.tables import to_json_lines, to_markdown, to_rich_tables

GIB = 2**30


def rows(*values, editor="rome", model="gpt-j", dataset="zsre", protocol="efficiency", where=("V100", "float32")):
    """Rows of (metric, repeat, value)."""
    same = {"editor": editor, "model": model, "dataset": dataset, "protocol": protocol, "edits": 10, "subject": "",
            "task": "t", "settings": "s", "seed": 0, "order": 0, "texts": where}
    return pa.Table.from_pylist([{**same, "metric": metric, "case_id": f"repeat {repeat}", "value": float(value)}
                                 for metric, repeat, value in values], schema=ROW_SCHEMA)


MEASURED = pa.concat_tables([
    rows(("cost.seconds", 1, 9), ("cost.seconds", 2, 3), ("cost.seconds", 3, 4), ("cost.seconds.cold", 1, 7),
         ("cost.memory.device", 1, 30 * GIB), ("cost.memory.rss", 1, 99 * GIB), ("cost.statistics.seconds", 0, 60)),
    rows(("cost.seconds", 1, 0.5), ("cost.memory.device", 1, 20 * GIB), ("cost.training.memory", 0, 29 * GIB),
         ("cost.training.seconds", 0, 7200), editor="mend", dataset="ours"),
    rows(("reliability.exact", 1, 1), protocol="single")])


def test_medians_lie_between_the_least_and_the_most():
    found = {(row.editor, row.metric): row for row in costs(MEASURED)}
    assert found["rome", "cost.seconds"] == Cost("rome", "gpt-j", "zsre", "efficiency", 10, "cost.seconds", 4.0, 3.0,
                                                 9.0, 3, "V100", "float32")
    assert ("rome", "reliability.exact") not in found
    scores, spent = parted(MEASURED)
    assert scores.num_rows == 1 and spent.num_rows == MEASURED.num_rows - 1


def test_the_papers_columns_are_beside_ours():
    other, table = cost_tables(costs(MEASURED))
    cells = {line[0]: dict(zip(each.head, line, strict=True)) for each in (other, table) for line in each.body}
    assert cells["rome"] == {
        "editor": "rome", "10 edits (s)": "4 (3-9)", "first edit (s)": "7", "device (GiB)": "30",
        "statistics (s)": "60", "paper (s)": "183", "paper (GiB)": "36.3"}
    # Of a data set that is none of the paper's, both of its times: counterfact's, then zsre's.
    assert cells["mend"]["paper (s)"] == "0.51 / 0.52" and cells["mend"]["paper + (GiB)"] == "10.3"
    assert cells["mend"]["training + (GiB)"] == "9" and cells["mend"]["training (h)"] == "2"
    assert "by V100" in table.title and "one 2x V100 32G" in table.note


def test_another_model_and_another_device_have_tables_of_their_own():
    more = pa.concat_tables([MEASURED, rows(("cost.seconds", 1, 1), model="t5-xl"),
                             rows(("cost.seconds", 1, 1), where=("H200", "float32"))])
    tables = list(cost_tables(costs(more)))
    assert len(tables) == 4 and sum("paper (s)" in table.head for table in tables) == 3


def test_every_form_shows_them():
    found = costs(MEASURED)
    assert "| rome | 4 (3-9) |" in to_markdown(found)
    assert len(to_rich_tables(found)) == 2
    line = next(json.loads(line) for line in to_json_lines(found).splitlines() if '"cost.seconds"' in line)
    assert line["median"] in (0.5, 4.0) and line["device"] == "V100"
