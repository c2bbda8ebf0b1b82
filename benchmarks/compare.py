"""What got worse by more than a tenth since figures were measured last.

    python -m benchmarks.compare OLD NEW

OLD and NEW are files with figures, or folders of such files. It ends with 1 where anything got worse. Figures are
compared by the last words of their names; what is not a cost or a yield, such as how many tasks there were, says what
was measured, and where that changed nothing is compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

WORSE = 0.10  # as a share of what it was
#: By a figure's name with those that it is in, as in `cpu_seconds.report`.
NOISE = re.compile(r"(^|[._])(wall_seconds|seconds|seconds_at_tasks|scrapes|machine|python|cpus|"
                   r"peak_gflops|first_by_last|ray_alone_cpu_ms_per_task)$|\.(theirs|difference)\.")
MORE = re.compile(r"(^|[._])(edits_per_second|cases_per_second|share_of_peak|times_faster|speedup|loop_by_it|"
                  r"loop_by_kept)($|\.)")
LESS = re.compile(r"(^|[._])(cpu_seconds|seconds_an_edit|seconds_a_case|cpu_ms|ms|ms_per_task|ms_per_second|"
                  r"mb|mib|gib|bytes|gflop|gflop_real|operations|hours|idle_share|padding|share_of_driver)($|[._])")


class Change(NamedTuple):
    name: str
    before: float
    after: float

    @property
    def share(self) -> float:
        """By how much worse it is, as a share of what it was; less than 0 where it is better."""
        if not self.before or not self.after:
            return 0.0 if self.before == self.after else float("inf")
        return (self.before / self.after if MORE.search(self.name) else self.after / self.before) - 1


def flat(figures: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its name; of a list of numbers, as of memory over time, the highest."""
    if isinstance(figures, dict):
        for key, value in figures.items():
            yield from flat(value, f"{name}.{key}" if name else key)
    elif isinstance(figures, list) and figures and all(isinstance(each, int | float) for each in figures):
        yield name, max(figures)
    elif isinstance(figures, list):
        for number, value in enumerate(figures):
            yield from flat(value, f"{name}.{number}")
    else:
        yield name, figures


def is_cost(name: str) -> bool:
    return not NOISE.search(name) and bool(MORE.search(name) or LESS.search(name))


def changes(before: Any, after: Any) -> list[Change]:
    """All figures that both have. Raises `ValueError` where they are of something else."""
    old, new = dict(flat(before)), dict(flat(after))
    for name in old.keys() & new.keys():
        if not is_cost(name) and not NOISE.search(name) and old[name] != new[name]:
            raise ValueError(f"'{name}' was {old[name]} and is {new[name]}: measured at something else")
    return [Change(name, old[name], new[name]) for name in old if name in new and is_cost(name)]


def pairs(old: Path, new: Path) -> Iterator[tuple[str, Path, Path]]:
    """Files with figures that both have, by name."""
    if old.is_file():
        yield new.name, old, new
    else:
        yield from ((file.name, file, new / file.name) for file in sorted(old.glob("*.json"))
                    if (new / file.name).is_file())


def main(
    old: Annotated[Path, typer.Argument(help="Figures as they were: a file, or a folder of files.", exists=True)],
    new: Annotated[Path, typer.Argument(help="Figures as they are.", exists=True)],
) -> None:
    """Tell what got worse by more than a tenth."""
    worse = compared = 0
    for name, before, after in pairs(old, new):
        try:
            found = changes(*(json.loads(path.read_text(encoding="utf-8")) for path in (before, after)))
        except ValueError as error:
            typer.echo(f"{name}: not compared, {error}")
            continue
        compared += len(found)
        for change in found:
            if change.share > WORSE:
                worse += 1
                typer.echo(f"{name}: {change.name} got worse by {change.share:.0%}: {change.before} -> {change.after}")
    typer.echo(f"{compared} figures compared, {worse} of them worse by more than {WORSE:.0%}.")
    raise typer.Exit(1 if worse else 0)


if __name__ == "__main__":
    typer.run(main)
