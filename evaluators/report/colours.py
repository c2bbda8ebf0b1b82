"""One colour for each editor, in pictures and dashboards alike.

The ten keep apart for people who see all colours and for those who lack one kind of cone, and stand out from white and
from the dark grey of dashboards.
"""

from __future__ import annotations

COLOURS = {
    "identity": "#8c959f",
    "calinet": "#77cfe2",
    "ft": "#c76562",
    "ke": "#9b9222",
    "kn": "#dcb17c",
    "memit": "#548cd4",
    "mend": "#076f00",
    "rome": "#5a4bd6",
    "serac": "#a4135b",
    "t-patcher": "#8d258e",
}
OTHERS = "#0b5cad"  # of editors that are not the house's own, and of a sweep's settings


def colour_of(editor: str) -> str:
    return COLOURS.get(editor, OTHERS)
