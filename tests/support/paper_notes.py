"""The notes on the paper's numbers, where they are."""

from __future__ import annotations

import os
import re
from pathlib import Path

NOTES = Path(os.environ.get("EDITFLEET_NOTES") or Path(__file__).resolve().parents[3] / "shared/METHODS.md")
NAMES = {"zsRE": "zsre", "CF": "counterfact", "T5-XL": "t5-xl", "GPT-J": "gpt-j", "Rel": "reliability",
         "Gen": "generality", "Loc": "locality"}


def lines_of(title):
    """The cells of a table below its title, line by line."""
    lines = NOTES.read_text(encoding="utf-8").split(f"**{title}**")[1].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:lines.index("")]]


def table(title):
    """A table as {first column: {editor: value}}, of editors with a value."""
    rows = lines_of(title)
    editors = [name.lower() for name in rows[0][1:]]
    return {row[0]: {editor: float(cell) for editor, cell in zip(editors, row[1:], strict=True)
                     if re.fullmatch(r"[\d.]+", cell)} for row in rows[2:]}


def scores():
    """Tables 2 and 3 as {(data set, model, aspect, editor): value}, as first printed."""
    head, _, *lines = lines_of("Table 2")
    found, where = {}, ["", ""]
    for data, model, metric, *cells in lines:
        where = [NAMES[data], NAMES[model]] if data else where
        found |= {(*where, NAMES[metric].capitalize(), editor.lower()): float(cell.split()[0])
                  for editor, cell in zip(head[3:], cells, strict=True) if cell != "-"}
    head, _, *lines = lines_of("Table 3")
    for name, *cells in lines:
        model, data = (NAMES[part] for part in name.split())
        found |= {(data, model, "Portability", editor.lower()): float(cell.split()[0])
                  for editor, cell in zip(head[1:], cells, strict=True) if cell != "-"}
    return found
