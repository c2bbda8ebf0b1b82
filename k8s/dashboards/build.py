"""Writes the dashboards: `python -m k8s.dashboards.build`, whenever they or the metrics change.

The JSON is in the repository, so that nobody needs this to import it. Each dashboard's expressions stand beside its
panels in `campaign`, `efficiency` and `quality`.
"""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from k8s.dashboards import campaign, efficiency, quality

BOARDS = {"campaign": campaign.board, "efficiency": efficiency.board, "quality": quality.board}


def built(name: str) -> str:
    """A dashboard's JSON; panels are numbered in turn."""
    board = json.loads(json.dumps(BOARDS[name]().build(), cls=JSONEncoder))
    panels = [each for panel in board["panels"] for each in (panel, *panel.get("panels", ()))]
    for number, panel in enumerate(panels, start=1):
        panel["id"] = number
    return json.dumps(board, indent=1) + "\n"


def main() -> None:
    for name in BOARDS:
        (Path(__file__).parent / f"{name}.json").write_text(built(name), encoding="utf-8")


if __name__ == "__main__":
    main()
