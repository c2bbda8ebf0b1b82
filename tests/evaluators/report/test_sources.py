"""Locality by source, in a table of its own."""

from evaluators.report.grids import grids_to_markdown
from evaluators.report.latex import grids_to_latex
from evaluators.report.sources import source_grids
from evaluators.report.tables import Summary


def summary(editor, metric, mean, **changes):
    return Summary(**{"editor": editor, "model": "m", "dataset": "d", "protocol": "single", "edits": 1,
                      "metric": metric, "mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 7, **changes})


ROWS = [summary("ft", "locality.unrelated.exact", 0.5), summary("ft", "locality.exact", 0.25),
        summary("rome", "locality.exact", 0.75), summary("rome", "locality.token", 0.8),
        summary("rome", "reliability.exact", 1.0), summary("rome", "locality.distracting.exact", 0.125)]


def test_a_column_for_each_source_in_the_order_of_metrics():
    [grid] = source_grids(ROWS)
    assert grids_to_markdown([grid]) == """\
locality by source, model m, dataset d, protocol single, edits 1, shares in percent ± half the 95 % confidence interval

| editor | cases | locality | locality.unrelated | locality.distracting |
| --- | --- | --- | --- | --- |
| ft | 7 | 25.0 ±10.0 | 50.0 ±10.0 | - |
| rome | 7 | 75.0 ±10.0 | - | 12.5 ±10.0 |

locality is of other subjects' facts of the same relation; locality.distracting is of neighbours, behind the edit as a \
sentence; locality.unrelated is of other text
"""
    assert "\\mathbf{75.0}_{\\pm 10.0}" in grids_to_latex([grid])


def test_one_source_has_no_table_and_each_protocol_its_own():
    assert list(source_grids(ROWS[1:3])) == []
    batch = [summary("ft", metric, 0.5, protocol="batch", edits=10)
             for metric in ("locality.exact", "locality.attributes.exact")]
    assert ["batch" in grid.title for grid in source_grids([*ROWS, *batch])] == [False, True]
