"""What all commands share: exit codes, finding a campaign, and how counts, skips and failures are shown."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from cluster.campaign.file import load_campaign
from cluster.campaign.files import missing_files_told
from cluster.campaign.spec import Campaign
from cluster.plan.known import told
from cluster.plan.planner import Plan, plan
from cluster.plan.sources import Assumed
from cluster.store.errors import Damaged, StoreError
from cluster.store.files import MARKER
from cluster.store.store import CampaignRecord, Standing, Store
from cluster.workers.losses import ClusterLost
from editors.core.errors import InputError, first_problem, quoted, unknown
from editors.core.files import NO_ROOM
from editors.core.places import scrubbed, shown
from editors.core.printable import printable, printable_lines
from evaluators.datasets import DatasetSpec
from evaluators.datasets.spec import Format, Target

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130
DIFFERENT = 1  # of `diff`, as of the tool of that name
OF_MACHINE = NO_ROOM | {errno.EIO, errno.EMFILE, errno.ENFILE}
CAMPAIGNS = Path(__file__).parent / "campaigns"
RESULTS = Path("results")  # where stores are that nobody names
MOST_WORKERS = 1_000_000
SHOWN = 10  # of a long list

Address = Annotated[str | None, typer.Option(
    help="A Ray cluster to use; without it RAY_ADDRESS, else this machine.")]
Log = Annotated[Path | None, typer.Option(
    help="A file for one line per event; where there is no terminal, standard error has them.")]
Workers = Annotated[int | None, typer.Option(
    min=1, max=MOST_WORKERS, help="Number of workers instead of the campaign's.")]
CampaignName = Annotated[str, typer.Argument(help="A campaign file, or the name of a shipped campaign.")]
Scale = Annotated[str | None, typer.Option(
    help="One of the campaign's `scales`: `testbed` has the paper's campaigns run on the built-in models.")]
Set = Annotated[list[str] | None, typer.Option(
    "--set", metavar="ADDRESS=VALUE", help="A value in the place of the campaign's, such as editors.rome.layer=7, as "
                                           "YAML; may be given again and again.")]
Data = Annotated[str | None, typer.Option(help="The folder or URL that the paths of data sets and texts start from.")]


class Screen(Console):
    """A console that shows any text as what it is: one line, without markup, and nothing that the terminal obeys."""

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(printable(text), **settings)

    def status(self, status: Any, **settings: Any) -> Status:
        return super().status(Text(printable(status)), **settings)


def console(*, stderr: bool = False) -> Screen:
    """Standard output, or standard error; wide enough for tables where it is no terminal."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 120
    return Screen(width=width, highlight=False, markup=False, emoji=False, stderr=stderr)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Wrong input ends the command with its message and code 2, a store that fails or a cluster that is gone with 1, an
    interruption with 130."""
    try:
        with warnings.catch_warnings():
            # without the place in the code that Python would show
            warnings.showwarning = lambda message, *_, **__: warn(scrubbed(str(message)))
            yield
    except InputError as error:
        warn(f"Error: {scrubbed(str(error))}")
        raise typer.Exit(WRONG_INPUT) from error
    except (StoreError, ClusterLost) as error:
        warn(f"Error: {scrubbed(str(error))}")
        raise typer.Exit(FAILED) from error
    except OSError as error:  # what is asked of a file before anybody opens it: its name may be too long
        if error.filename is None:
            raise
        cure = "; make room there, or name another place" if error.errno in NO_ROOM else ""
        warn(f"Error: cannot use {quoted(os.fsdecode(error.filename))}: {error.strerror or error}{cure}")
        raise typer.Exit(FAILED if error.errno in OF_MACHINE else WRONG_INPUT) from error
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        raise typer.Exit(INTERRUPTED) from None


def warn_of_damaged(place: str, damaged: Iterable[Damaged]) -> None:
    """Says what of a store cannot be read, and that it is left out."""
    for line in shorten(sorted(f"{place}: {each}; it is left out" for each in damaged)):
        warn(line)


def warn(text: str) -> None:
    """Shows lines on standard error."""
    typer.echo(printable_lines(text), err=True)


def find_campaign(name: str) -> Path:
    """A campaign's file: a path, or the name of one shipped here. Raises `InputError` where it is neither."""
    shipped = shipped_campaigns()
    if os.path.isfile(name):  # what is too long for a file's name is none; `Path.is_file` raises
        return Path(name)
    if name in shipped:
        return shipped[name]
    if Path(name).name != name or Path(name).suffix:
        raise InputError(f"there is no campaign file '{name}'; shipped campaigns: {', '.join(shipped)}")
    raise unknown("campaign", name, shipped)


def shipped_campaigns() -> dict[str, Path]:
    return {path.stem: path for path in sorted(CAMPAIGNS.glob("*.yaml"))}


def plan_campaign(name: str, scale: str | None, data: str | None, settings: Sequence[str] | None = None,
                  assumed: Assumed | None = None) -> Plan:
    """All tasks of a campaign. Raises `InputError` for whatever would keep it from running, but for what may be
    `assumed`."""
    campaign = read_campaign(name, scale, data, settings)
    if assumed is not None:
        return plan(campaign, assumed)
    with missing_files_told(campaign):
        return plan(campaign)


def read_campaign(name: str, scale: str | None, data: str | None,
                  settings: Sequence[str] | None = None) -> Campaign:
    """A campaign as it is written. Raises `InputError` for every mistake in it."""
    return load_campaign(find_campaign(name), scale=scale, data=data, settings=settings or (),
                         shipped=shipped_campaigns())


def data_set(data: str, format: str | None = None, target: str | None = None, *, name: str | None = None,
             **more: Any) -> DatasetSpec:
    """A data set as options name it: a file or URL, or a built-in name. With a `name`, it is a file whatever it looks
    like."""
    for option, given, possible in (("format", format, get_args(Format)), ("target", target, get_args(Target))):
        if given is not None and given not in possible:
            raise unknown(option, given, possible)
    if not data.strip():
        raise InputError("a data set is a file, a URL or the name of a built-in one, not a blank")
    is_file = name is not None or "://" in data or Path(data).suffix != "" or os.path.exists(data)
    place = {"name": name or Path(shown(data)).name, "path": data} if is_file else {"name": data}
    try:
        return DatasetSpec.model_validate({**place, "format": format, "target": target, **more})
    except ValidationError as error:
        raise InputError(f"data set {quoted(data)}: {first_problem(error)}") from None


def check_device(device: str) -> None:
    """Raises `InputError` where nothing can be put on a device here."""
    import torch

    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        raise InputError(f"--device: cannot use '{device}' here: {str(error).splitlines()[0]}") from error


def default_store(name: str) -> Path:
    """Where a campaign's results go without a store's name. Raises `InputError` for a name that is no folder's."""
    if name in (".", "..") or Path(name).name != name:
        raise InputError(f"'{name}' cannot be a folder's name: give the store one, with --out, or the campaign another")
    return RESULTS / name


def is_store(folder: Path) -> bool:
    return (folder / MARKER).is_file()


def choose_campaign(place: str, records: list[CampaignRecord], name: str | None) -> CampaignRecord:
    """The campaign of that name that was run last; without a name, the last of all."""
    if not records:
        raise InputError(f"no campaign has been run into store '{place}'")
    chosen = [record for record in records if name in (None, record.name)]
    if not chosen:
        raise unknown("campaign", name or "", {record.name for record in records})
    others = {record.name for record in records} - {chosen[0].name}
    if others and name is None:
        warn(printable(f"showing '{chosen[0].name}'; with --campaign: {', '.join(sorted(others))}"))
    return chosen[0]


def tasks_table(record: CampaignRecord, standing: Standing | None,
                more: Mapping[str, Sequence[str]] | None = None) -> Table:
    """Tasks by kind: how many there are and, of a campaign that has a store, are done and failed when last tried.

    `more` has further columns: their heads, and the cells of all `kinds`.
    """
    more = more or {}
    table = Table("tasks", *(["done", "failed"] if standing else []), "planned", "edits", *more)
    for place, kind in enumerate(kinds(record)):
        tasks = {task.id: task for task in record.tasks if task.kind == kind}
        counts = [len(tasks), sum(task.edits for task in tasks.values())]
        if standing:
            counts = [len(tasks.keys() & standing.done), sum(f.task in tasks for f in standing.failures), *counts]
        table.add_row(kind, *map(str, counts), *(cells[place] for cells in more.values()))
    return table


def kinds(record: CampaignRecord) -> list[str]:
    """The kinds of a campaign's tasks, in the order of the plan."""
    return list(dict.fromkeys(task.kind for task in record.tasks))


def list_skipped(record: CampaignRecord) -> Iterator[str]:
    """Cases per data set, which records of it are unusable and why, which cases are known, and which are left out."""
    for data in record.datasets:
        yield f"{data.name}: {count(data.cases, 'case')}" + (f", {len(data.skipped)} skipped:" if data.skipped else "")
        yield from shorten(f"  {case.case_id}: {case.reason}" for case in data.skipped)
    for each in record.known:
        yield from shorten(told(each))
    yield from record.notes


def list_failed(record: CampaignRecord, standing: Standing, store: Store) -> Iterator[str]:
    """What tasks found that people should know, cases that could not be edited or scored, and tasks that were given up.
    """
    yield from shorten(store.told(record.tasks))
    if cases := store.failed_cases(record.tasks):
        yield f"{count(len(cases), 'case')} could not be edited or scored:"
        yield from shorten(f"  {case.case_id}: {case.reason} ({count(tasks, 'task')})" for case, tasks in cases.items())
    if standing.failures:
        yield f"{count(len(standing.failures), 'task')} failed; running the campaign again tries again:"
        yield from shorten(f"  {failure.title}: {failure.summary} ({store.failure_path(failure.task)})"
                           for failure in standing.failures)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shorten(lines: Iterable[str]) -> list[str]:
    lines = list(map(printable, lines))
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"  ... and {len(lines) - SHOWN} more"]
