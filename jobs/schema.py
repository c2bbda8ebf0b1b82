"""`editfleet schema`: what a campaign may say, for editors that complete and check YAML, or as a page for people.

    python -m jobs.schema > campaign.schema.json       # and in the first line of a campaign beside it:
                                                       # yaml-language-server: $schema=campaign.schema.json
    python -m jobs.schema --markdown > REFERENCE.md
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from jobs.reference import reference
from jobs.settings import campaign_schema


def schema(markdown: Annotated[bool, typer.Option(
        "--markdown", help="Print the reference of all settings instead, as Markdown.")] = False) -> None:
    """Print the JSON Schema of campaigns, by which editors complete and check their YAML."""
    typer.echo(reference() if markdown else json.dumps(campaign_schema(), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    from jobs.cli import main

    main("schema")
