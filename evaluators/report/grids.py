"""Tables as text, before they are Markdown or a terminal's."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from editors.core.printable import in_markdown

MISSING = "—"  # in the place of a value
WIDE, PIECE = 13, 7  # columns that a terminal takes beside one another, and behind the names where there are more


class Grid(NamedTuple):
    """A printable table; the first `names` columns say what a row is about, and the note what its headings mean. The
    cells in `best`, by line and column, stand out; those in `leads` do where papers have them so, in LaTeX, which rules
    a line before each line of `parts`. What is missing in it, `commands` make, each of which stays on one line."""

    title: str
    head: list[str]
    body: list[list[str]]
    names: int
    note: str
    best: frozenset[tuple[int, int]] = frozenset()
    leads: frozenset[tuple[int, int]] = frozenset()
    parts: tuple[int, ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """The note, and the commands."""
        made = f"{MISSING} is missing, and made by: {'; '.join(self.commands)}" if self.commands else ""
        return ". ".join(filter(None, [self.note, made]))


def grids_to_markdown(grids: Iterable[Grid]) -> str:
    """Markdown tables; what stands out is bold."""
    return "\n".join(map(_markdown, grids))


def _markdown(grid: Grid) -> str:
    head = list(map(in_markdown, grid.head))
    body = [[f"**{in_markdown(cell)}**" if (line, column) in grid.best else in_markdown(cell)
             for column, cell in enumerate(cells)] for line, cells in enumerate(grid.body)]
    table = "".join("| " + " | ".join(line) + " |\n" for line in (head, ["---"] * len(head), *body))
    note = f"\n{in_markdown(grid.told)}\n" if grid.told else ""
    return f"{in_markdown(grid.title)}\n\n{table}{note}"


def grids_to_text(grids: Iterable[Grid], width: int = 160) -> str:
    """The tables of a terminal so many characters wide, for a file."""
    screen = Console(file=io.StringIO(), width=width, color_system=None, markup=False, emoji=False, highlight=False)
    with screen.capture() as captured:
        show_grids(screen, grids)
    return captured.get()


def show_grids(screen: Console, grids: Iterable[Grid]) -> None:
    """Shows tables, and below each the commands that make what it lacks, as they can be copied."""
    for grid in grids:
        for table in grids_to_rich([grid]):
            screen.print(table)
        if grid.commands:
            screen.print(Text(f"{MISSING} is missing, and made by:"))
            for command in grid.commands:
                screen.print(Text(command), soft_wrap=True)


def grids_to_rich(grids: Iterable[Grid]) -> Iterator[Table]:
    """The same tables for a terminal; what stands out has an asterisk. Those that are wide come in pieces, below one
    another."""
    for grid in (piece for whole in grids for piece in _pieces(whole)):
        table = Table(title=Text(grid.title), caption=Text(grid.note) if grid.note else None, box=box.SIMPLE_HEAD,
                      pad_edge=False, collapse_padding=True)
        for number, name in enumerate(grid.head):
            header = name if number < grid.names else name.replace(".", "\n")
            table.add_column(Text(header), justify="left" if number < grid.names else "right", overflow="fold")
        for line, cells in enumerate(grid.body):
            told = ["*" * ((line, column) in grid.best) + cell for column, cell in enumerate(cells)]
            table.add_row(*map(Text, told[:grid.names]),
                          *(Text(cell.replace(" (p", "\n(p")) for cell in told[grid.names:]))
        yield table


def _pieces(grid: Grid) -> Iterator[Grid]:
    if len(grid.head) <= WIDE:
        yield grid
        return
    starts = range(grid.names, len(grid.head), PIECE)
    for start in starts:
        columns = [*range(grid.names), *range(start, min(start + PIECE, len(grid.head)))]
        best = frozenset((line, columns.index(column)) for line, column in grid.best if column in columns)
        yield Grid(grid.title if start == starts[0] else "", [grid.head[column] for column in columns],
                   [[line[column] for column in columns] for line in grid.body], grid.names,
                   grid.note if start == starts[-1] else "", best)
