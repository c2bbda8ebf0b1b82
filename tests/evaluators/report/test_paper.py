"""The paper's numbers of efficiency, against the notes that they were taken from."""

import re
from pathlib import Path

import pytest

from editors import EDITORS
from evaluators.report.paper import FIGURE_5, FIGURE_5_TRAINING, TABLE_4

NOTES = Path(__file__).resolve().parents[4] / "shared" / "METHODS.md"


def table(title):
    """A table below its title as {first column: {editor: value}}, of editors with a value."""
    lines = NOTES.read_text(encoding="utf-8").split(f"**{title}**")[1].splitlines()[1:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:lines.index("")]]
    editors = [name.lower() for name in rows[0][1:]]
    return {row[0]: {editor: float(cell) for editor, cell in zip(editors, row[1:], strict=True)
                     if re.fullmatch(r"[\d.]+", cell)} for row in rows[2:]}


def test_numbers_are_of_editors_that_there_are():
    for numbers in (*TABLE_4.values(), FIGURE_5):
        assert set(numbers) == set(EDITORS) - {"identity"}
    assert all(FIGURE_5_TRAINING[editor] > FIGURE_5[editor] for editor in FIGURE_5_TRAINING)


@pytest.mark.skipif(not NOTES.exists(), reason="the notes on the paper are not here")
def test_numbers_are_the_papers():
    assert {"counterfact": table("Table 4")["CF"], "zsre": table("Table 4")["zsRE"]} == TABLE_4
    figure = table("Figure 5")
    assert (figure["edit memory"], figure["bar end incl. training"]) == (FIGURE_5, FIGURE_5_TRAINING)
