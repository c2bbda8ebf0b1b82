"""The command `editfleet`: a lazy group, which imports the module of a command when it is called.

Each command is a function in a module of its own, and `python -m jobs.NAME` too.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TextIO

import typer
from typer.core import TyperCommand, TyperGroup


class Entry(NamedTuple):
    """A command: the function or Typer that it is, and the line that `editfleet --help` has for it."""

    target: str
    line: str


COMMANDS = {
    "run": Entry("jobs.run:run", "Run a campaign, or what is missing of it, and show the results."),
    "plan": Entry("jobs.plan:plan", "Check a campaign; tell its tasks, how long they take and where its models fit."),
    "status": Entry("jobs.status:status", "Show what is done, what failed and what is missing in a store."),
    "watch": Entry("jobs.watch:watch", "Watch a campaign that is being run, by its store or its metrics."),
    "report": Entry("jobs.report:report", "Show results, or differences between editors, with 95 % intervals."),
    "cases": Entry("jobs.cases:cases", "Show single edits: what models say to every question, before and after."),
    "diff": Entry("jobs.diff:diff", "Compare two stores: tasks, missing results, and numbers that changed."),
    "search": Entry("jobs.search:search", "Search for better settings of an editor, and hold them against its preset."),
    "metrics": Entry("jobs.metrics:metrics", "Show all metrics: unit, which way is better, version and meaning."),
    "schema": Entry("jobs.schema:schema", "Print the JSON Schema of campaigns, or the reference of all settings."),
    "audit": Entry("jobs.audit:audit", "Look for edits that measure something else than they seem to."),
    "portability": Entry("jobs.portability:portability", "Make questions about what follows from edits."),
    "harness": Entry("jobs.harness:harness", "Run tasks of lm-evaluation-harness before and after an edit."),
    "edit": Entry("jobs.edit:edit", "Make edits of a model, check them, and write them as one patch file."),
    "show": Entry("jobs.show:show", "Show what a patch file is: its model, editor, edits and changes."),
    "score": Entry("jobs.score:score", "Score a patch: whether its edits hold, and what else they change."),
    "compose": Entry("jobs.compose:compose", "Add up patches of one model."),
    "undo": Entry("jobs.undo:undo", "Take an edit out of a patch."),
    "chat": Entry("jobs.chat:chat", "Write on after prompts, before and after edits, side by side."),
    "export": Entry("jobs.export:export", "Write an edited model, or an adapter, for use without EditFleet."),
    "train": Entry("jobs.train:train", "Train what a campaign's editors need, outside of a campaign."),
    "pretrain": Entry("jobs.pretrain:pretrain", "Train a built-in model anew and examine it."),
}


def load(name: str) -> Any:
    """The command as Typer runs it; imports its module."""
    module, _, attribute = COMMANDS[name].target.partition(":")
    target = getattr(importlib.import_module(module), attribute)
    if isinstance(target, typer.Typer):
        return typer.main.get_command(target)
    app = typer.Typer(add_completion=False)
    app.command(name)(target)
    return typer.main.get_command(app)


@contextmanager
def _plainly() -> Iterator[None]:
    """What is wrong with the command line is told without what terminals obey, and without secrets."""
    try:
        yield
    except typer.TyperException as error:
        from editors.core.places import scrubbed
        from editors.core.printable import printable

        told = vars(error)
        if isinstance(told.get("message"), str):
            told["message"] = printable(scrubbed(told["message"]))
        raise


def _is_text(argument: str) -> bool:
    """Python spells bytes that are no UTF-8 in a way that nothing can be written with."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


class LazyGroup(TyperGroup):
    """Lists its commands by their lines alone, and loads the one that is called."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {name: TyperCommand(name, help=entry.line) for name, entry in COMMANDS.items()}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for arg in args:
            if not _is_text(arg):
                from editors.core.printable import printable

                raise typer.BadParameter(f"'{printable(arg)}' is not text in UTF-8; rename what is called so")
        return super().parse_args(ctx, args)

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        with _plainly():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: Any) -> Any:
        with _plainly():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: Any) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load(name or ""), rest


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)


@app.callback()
def editfleet() -> None:
    """Edit facts in language models, many ways at once, and measure what becomes of the models."""


def main(*command: str) -> None:
    """Runs `editfleet`, or one of its commands, with the arguments of this process. What nobody has foreseen ends it
    with its traceback, a line that names it, and code 1."""
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()  # a caller may have closed them
    try:
        app([*command, *sys.argv[1:]], prog_name="editfleet")
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            typer.echo("Error: cannot write: no space is left on a disk, or where the output goes", err=True)
            with _nowhere() as nowhere:  # where what is left of the output can go
                os.dup2(nowhere.fileno(), 1)
            sys.exit(1)
        from editors.core.places import scrubbed
        from editors.core.printable import printable_lines

        told = "".join(traceback.format_exception(error))
        told += f"Error: unexpected {type(error).__name__}: {error}. Please report it, with all of the above"
        typer.echo(printable_lines(scrubbed(told)), err=True)
        sys.exit(1)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


if __name__ == "__main__":
    main()
