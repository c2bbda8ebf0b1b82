"""Human review: a sheet for spreadsheet programs, the verdicts read back from it, and the final file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from editors.core.errors import InputError
from evaluators.files import read_text, write_json, write_text
from evaluators.portability.building import Candidate

SHEET, FINAL = "review.csv", "portability.json"
VERDICT, COMMENT = "verdict", "comment"
# What spreadsheet programs would compute or rewrite: formulas, numbers, dates, truth values.
_TEMPTING = re.compile(r"['=+\-@\t\r\n]|(?=.{0,24}$).*\d|(true|false)$", re.IGNORECASE)


def write_sheet(path: Path, candidates: Sequence[Candidate]) -> None:
    """One row a candidate; people write yes or no into `verdict`. Raises `InputError` where the file is there already.

    A cell that a spreadsheet program would take for a formula, a number or a date begins with an apostrophe, which
    reading the sheet takes off again.
    """
    if path.exists():
        raise InputError(f"'{path}' is there already and may hold verdicts: move it away, or name another with --sheet")
    if not candidates:
        raise InputError("there is nothing to review: no candidate is known to all subject models")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*_cells(candidates[0]), *(f"rank: {model}" for model in candidates[0].ranks), VERDICT, COMMENT])
    for candidate in candidates:
        writer.writerow([*map(_guarded, _cells(candidate).values()), *candidate.ranks.values(), "", ""])
    write_text(path, text.getvalue(), encoding="utf-8-sig")  # the mark tells spreadsheet programs that it is UTF-8


def read_verdicts(path: Path, candidates: Sequence[Candidate]) -> dict[str, bool]:
    """Whether a candidate is good, by its id, of the rows that say so; columns of the sheet may have moved.

    Raises `InputError`, naming the row, for a verdict that is neither yes nor no, for an id that is unknown or stands
    there twice, and for a text that is not what was built: the verdict would be about something else.
    """
    known = {candidate.id: candidate for candidate in candidates}
    verdicts: dict[str, bool] = {}
    seen = set()
    for number, row in _rows(path):
        name = _bare(row["id"])
        where = f"{path}, row {number} (id {name})"
        if name not in known:
            raise InputError(f"{where}: no candidate has this id; export the sheet again if the build has changed")
        if name in seen:
            raise InputError(f"{where}: this id stands there twice")
        seen.add(name)
        for column, text in _cells(known[name]).items():
            if _bare(row[column]) != _bare(_guarded(text)):
                raise InputError(f"{where}: the {column} is '{_bare(row[column])}', and '{text}' was built: put it "
                                 "back, or export the sheet again if the build has changed")
        verdict = row[VERDICT].strip().lower()
        if verdict in ("yes", "no"):
            verdicts[name] = verdict == "yes"
        elif verdict:
            raise InputError(f"{where}: verdict '{row[VERDICT]}' is neither yes nor no; leave it empty if undecided")
    return verdicts


class Review(NamedTuple):
    """How many candidates got which verdict, and how many were written."""

    yes: int
    no: int
    unreviewed: int
    written: int


def write_final(path: Path, candidates: Sequence[Candidate], verdicts: Mapping[str, bool], *,
                keep_unreviewed: bool) -> Review:
    """Writes the records that passed, in the paper's form. Raises `InputError` where none did."""
    chosen = [candidate for candidate in candidates if verdicts.get(candidate.id, keep_unreviewed)]
    good = sum(verdicts.values())
    review = Review(good, len(verdicts) - good, len(candidates) - len(verdicts), len(chosen))
    if not chosen:
        raise InputError(f"no record is left: {review.no} of {len(candidates)} candidates have the verdict no, and "
                         f"{review.unreviewed} have none (--unreviewed keep takes those)")
    write_json(path, [candidate.extended() for candidate in chosen])
    return review


def _cells(candidate: Candidate) -> dict[str, str]:
    return {"id": candidate.id, "question": candidate.question, "subject": candidate.subject,
            "altered answer": candidate.altered, "triple": candidate.triple, "new question": candidate.new_question,
            "new answer": candidate.new_answer}


def _guarded(text: str) -> str:
    return f"'{text}" if _TEMPTING.match(text) else text


def _bare(cell: str) -> str:
    """A cell's text without the guard. Line ends are blanks: spreadsheet programs change them."""
    text = " ".join(cell.split())
    return text.removeprefix("'")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The sheet's rows, numbered as spreadsheet programs do, from 2; separated as the first line is."""
    text = read_text(path, "sheet")
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), restval="")
    columns = ["id", "question", "subject", "altered answer", "triple", "new question", "new answer", VERDICT]
    try:
        if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
            raise InputError(f"{path}: the column '{missing[0]}' is missing; its first row must be as it was exported")
        for number, row in enumerate(reader, 2):
            if any(value for value in row.values()):
                yield number, row
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV: {error}") from error
