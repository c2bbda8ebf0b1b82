"""Tables as LaTeX, by booktabs, ready to be pasted: intervals are subscripts, the best editors bold."""

from __future__ import annotations

import re
from collections.abc import Iterable

from editors.core.printable import LINE, printable
from evaluators.report.grids import Grid

NEEDS = "% needs \\usepackage[T1]{fontenc} and \\usepackage{booktabs}; wide tables need \\usepackage{graphicx}\n"
NARROW = 5  # columns that a table beside another column of text has at most
WIDE, APART = 70, 2.6  # characters of \small that a page of `article` is wide, and the space between columns in such
# What LaTeX takes for something else, at least at the beginning of a cell.
_MEANT = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
          "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
          "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}",
          "[": "{[}", "]": "{]}", "*": "{*}", "\u2014": r"\textemdash{}", "\u2013": r"\textendash{}",
          "\u00b1": r"$\pm$", "\u2018": "`", "\u2019": "'", "\u201c": "``", "\u201d": "''", "\u2026": r"\ldots{}"}
# Letters that every LaTeX has in this encoding: Latin ones with accents. Others are spelt, as strange ones are.
_KNOWN = frozenset(map(chr, range(0xc0, 0x17f))) - frozenset("\u0126\u0127\u0138\u013f\u0140\u0149\u0166\u0167")
_LIGATURE = re.compile("(?<=-)(?=-)|(?<=,)(?=,)")  # two that would be printed as another sign
_NUMBER = r"[+-]?[\d.]+(?:e[+-]\d+)?"
_VALUE = re.compile(rf"({_NUMBER})(?: ±({_NUMBER}))?(?: \(p ({_NUMBER})\))?")


def in_latex(text: str, longest: int = LINE) -> str:
    """A text that LaTeX prints as it is; what it has no letters for is spelt, as `\\u05d0`."""
    plain = _LIGATURE.sub("\0", printable(text, longest))
    return "".join("{}" if char == "\0" else _MEANT.get(char) or _letter(char) for char in plain)


def _letter(char: str) -> str:
    if char.isascii() or char in _KNOWN:
        return char
    return _MEANT["\\"] + char.encode("unicode_escape").decode("ascii").removeprefix("\\")


def grids_to_latex(grids: Iterable[Grid]) -> str:
    """A `table` for each grid; nothing where there is none."""
    found = "\n".join(_table(number, grid) for number, grid in enumerate(grids, 1))
    return NEEDS + found if found else ""


def _table(number: int, grid: Grid) -> str:
    kind = "table" if len(grid.head) <= NARROW else "table*"
    columns = "l" * grid.names + "r" * (len(grid.head) - grid.names)
    body = [rule + _row(_cell(grid, line, column, cell) for column, cell in enumerate(cells))
            for line, cells in enumerate(grid.body)
            for rule in ["    \\midrule\n" if line in grid.parts and line else ""]]
    note = f"  \\par\\smallskip{{\\footnotesize {in_latex(grid.told, 4 * LINE)}\\par}}\n" if grid.told else ""
    head = _row(map(in_latex, grid.head))
    tabular = (f"  \\begin{{tabular}}{{@{{}}{columns}@{{}}}}\n    \\toprule\n{head}    \\midrule\n{''.join(body)}"
               "    \\bottomrule\n  \\end{tabular}")
    if sum(max(map(len, column)) + APART for column in zip(grid.head, *grid.body, strict=True)) - APART > WIDE:
        tabular = f"  \\resizebox{{\\textwidth}}{{!}}{{%\n{tabular}}}"
    return (f"\\begin{{{kind}}}[t]\n  \\centering\\small\n  \\caption{{{in_latex(grid.title)}}}\n"
            f"  \\label{{tab:editfleet-{number}}}\n{tabular}\n{note}\\end{{{kind}}}\n")


def _row(cells: Iterable[str]) -> str:
    return "    " + " & ".join(cells) + r" \\" + "\n"


def _cell(grid: Grid, line: int, column: int, cell: str) -> str:
    bold = (line, column) in grid.leads | grid.best
    found = _VALUE.fullmatch(cell) if column >= grid.names else None
    if found is None:
        return f"\\textbf{{{in_latex(cell)}}}" if bold else in_latex(cell)
    value, half, p = (part and _number(part) for part in found.groups())
    value = f"\\mathbf{{{value}}}" if bold else value
    return f"${value}" + (f"_{{\\pm {half}}}" if half else "") + "$" + (f" ($p = {p}$)" if p else "")


def _number(text: str) -> str:
    """A number in mathematics: 2.5e+09 is 2.5 times a power of ten."""
    value, _, exponent = text.partition("e")
    return f"{value} \\cdot 10^{{{int(exponent)}}}" if exponent else value
