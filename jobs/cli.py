"""The command `editfleet`. Each subcommand is a module of its own, and `python -m jobs.NAME` too."""

from __future__ import annotations

import typer

from jobs.audit import audit
from jobs.harness import harness
from jobs.plan import plan
from jobs.portability import portability
from jobs.pretrain import pretrain
from jobs.report import report
from jobs.run import run
from jobs.status import status
from jobs.train import train

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False,
                  help="Edit facts in language models, many ways at once, and measure what becomes of the models.")
for command in (run, plan, status, report, harness, train, pretrain, audit):
    app.command()(command)
app.add_typer(portability, name="portability")


def main() -> None:
    app()


if __name__ == "__main__":
    main()
