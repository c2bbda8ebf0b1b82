"""`editfleet portability`: make questions about what follows from edits, have them reviewed, write the data set.

    python -m jobs.portability build testbed-cloze --endpoint http://localhost:8000/v1 --model my-model \\
        --subject-models testbed-gptj,testbed-t5 --limit 50 --out portability
    python -m jobs.portability export portability
    python -m jobs.portability import portability --unreviewed drop
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count as counting
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from editors.core.errors import InputError
from evaluators.files import make_folder
from evaluators.models import named_model
from evaluators.portability.asking import ask_all, unasked
from evaluators.portability.building import (
    Candidate,
    Sorted,
    read_candidates,
    scores,
    sort_answers,
    with_ranks,
    write_build,
)
from evaluators.portability.endpoint import Asking, ChatClient
from evaluators.portability.journal import Journal
from evaluators.portability.records import EditSource, read_source
from evaluators.portability.review import FINAL, SHEET, read_verdicts, write_final, write_sheet
from evaluators.scoring.metrics import KNOWN_RANK
from jobs.console import FAILED, console, count, exit_codes, shorten
from jobs.progress import progress

JOURNAL = "journal.jsonl"

portability = typer.Typer(no_args_is_help=True, add_completion=False,
                          help="Make questions about what follows from edits (paper, 5.1).")


@portability.command()
def build(
    source: Annotated[str, typer.Argument(help="A COUNTERFACT or ZsRE file, or a built-in data set.")],
    out: Annotated[Path, typer.Option(help="Folder for all that is asked, answered and built; a build resumes here.")],
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible address, up to /v1. Its key: OPENAI_API_KEY.")],
    model: Annotated[str, typer.Option(help="The model that is asked, by the endpoint's name for it.")],
    subject_models: Annotated[list[str], typer.Option(
        help="Models that have to know the linked facts: names or folders, given again or with commas between them.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many records, from the first on.")] = None,
    requests_per_minute: Annotated[float, typer.Option(min=0, help="Most requests a minute; 0: no limit.")] = 60,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 4,
    temperature: Annotated[float, typer.Option(min=0, max=100, help="Of the model that is asked.")] = 0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 256,
    timeout: Annotated[float, typer.Option(
        min=0.1, max=86_400, help="Seconds to wait for an answer before trying again.")] = 60,
    retries: Annotated[int, typer.Option(min=0, help="Further tries of a request that gets no answer.")] = 6,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(
        help="Of the subject models' weights.")] = "float32",
) -> None:
    """Ask a language model for a linked fact and a question per edit; keep those whose fact the subject models know.

    Ends with 1 where requests got no answer: the same command asks for those alone.
    """
    with exit_codes():
        screen = console()
        names = _model_names(subject_models)
        asking = Asking(endpoint, model, temperature, max_tokens, requests_per_minute or None, concurrency, timeout,
                        retries)
        edits = read_source(source, limit)
        make_folder(out)
        with Journal(out / JOURNAL) as journal:
            _ask(edits, asking, journal, screen)
            outcome = sort_answers(edits.records, asking, journal.answers)
            ranks, digests = _rank(outcome.candidates, names, dtype, screen)
            outcome = outcome._replace(candidates=with_ranks(outcome.candidates, ranks))
            write_build(out, edits, asking, outcome, journal.answers, digests)
        _tell(edits, outcome, names, out, screen)
        if outcome.unanswered:
            raise typer.Exit(FAILED)


@portability.command()
def export(
    folder: Annotated[Path, typer.Argument(help="The folder given to `build` as --out.")],
    sheet: Annotated[Path | None, typer.Option(help="The sheet to write, if not review.csv in the folder.")] = None,
) -> None:
    """Write a sheet (CSV) for human review: people put yes or no into its column `verdict`."""
    with exit_codes():
        candidates = read_candidates(folder)
        path = sheet or folder / SHEET
        write_sheet(path, candidates)
        console().print(f"{count(len(candidates), 'candidate')} to review: {path}", soft_wrap=True)


@portability.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="The folder given to `build` as --out.")],
    sheet: Annotated[Path | None, typer.Option(help="The reviewed sheet, if not review.csv in the folder.")] = None,
    unreviewed: Annotated[Literal["keep", "drop"], typer.Option(
        help="What becomes of candidates without a verdict; `keep` needs no sheet.")] = "drop",
    out: Annotated[Path | None, typer.Option(help="The final file, if not portability.json in the folder.")] = None,
) -> None:
    """Read the verdicts and write the records that passed, in the form of the paper's files."""
    with exit_codes():
        candidates = read_candidates(folder)
        path = sheet or folder / SHEET
        unseen = sheet is None and unreviewed == "keep" and not path.exists()
        verdicts = {} if unseen else read_verdicts(path, candidates)
        final = out or folder / FINAL
        review = write_final(final, candidates, verdicts, keep_unreviewed=unreviewed == "keep")
        console().print(f"{review.yes} yes, {review.no} no, {review.unreviewed} without a verdict; "
                        f"{count(review.written, 'record')}: {final}", soft_wrap=True)


def _model_names(texts: Sequence[str]) -> list[str]:
    """The subject models by name. Raises `InputError`, before anything is asked, for one that is not there."""
    from editors.core.models.loading import load_config  # loads torch

    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise InputError(f"--subject-models '{', '.join(texts)}' has to name at least one model, and none twice")
    for name in names:
        load_config(named_model(name))
    return names


def _ask(edits: EditSource, asking: Asking, journal: Journal, screen: Console) -> None:
    waiting = unasked(edits.records, asking, journal)
    screen.print(f"{count(len(edits.records), 'record')}, {len(waiting)} to ask {asking.model} about", soft_wrap=True)
    if not waiting:
        return
    try:
        with ChatClient(asking) as client, progress(screen) as tell:
            number = counting(1)
            ask_all(waiting, client, journal, lambda entry: tell(
                f"{(done := next(number))} of {len(waiting)} asked", done, len(waiting)))
    except KeyboardInterrupt:
        typer.echo("What was answered is kept; run the same command again to go on.", err=True)
        raise


def _rank(candidates: Sequence[Candidate], names: Sequence[str], dtype: str,
          screen: Console) -> tuple[dict[str, list[int | None]], dict[str, str]]:
    """Of each subject model, the ranks of all links' answers and its digest. One model is loaded at a time."""
    import torch

    from editors.core.models.loading import load_model
    from evaluators.portability.knowledge import link_ranks

    ranks, digests = {}, {}
    links = [candidate.link for candidate in candidates]
    for name in names:
        with screen.status(f"asking {name} for the linked facts"):
            subject = load_model(named_model(name), name=name, dtype=dtype,
                                 device="cuda" if torch.cuda.is_available() else "cpu")
            ranks[name], digests[name] = link_ranks(subject, links), subject.digest
            del subject  # two may not fit
    return ranks, digests


def _tell(edits: EditSource, outcome: Sorted, names: Sequence[str], out: Path, screen: Console) -> None:
    """The counts, the rows of the paper's table 5, and what to do next."""
    for title, lines in (
            ("unusable", [f"  {skip.case_id}: {skip.reason}" for skip in edits.skipped]),
            ("with an answer of no use", [f"  {answer.id}: {answer.reason}" for answer in outcome.rejected]),
            ("without an answer", [f"  {name}" for name in outcome.unanswered])):
        if lines:
            for line in (f"{count(len(lines), 'record')} {title}:", *shorten(lines)):
                screen.print(line, soft_wrap=True)
    each, together = scores(outcome.candidates, names)
    table = Table("model", "suggestions", f"known (top {KNOWN_RANK})", "%")
    for name, score in (*each.items(), ("all", together)):
        table.add_row(name, str(len(outcome.candidates)), str(score.known), f"{score.percent:.2f}")
    screen.print(table)
    screen.print(f"{count(together.known, 'candidate')}: {out}. Next: editfleet portability export {out}",
                 soft_wrap=True)


if __name__ == "__main__":
    from jobs.cli import main

    main("portability")
