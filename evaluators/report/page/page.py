"""The page: all sections of a report in one HTML file that asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from editors.core.printable import printable
from evaluators.files import make_folder, write_text
from evaluators.report.page.about import About
from evaluators.report.page.blocks import ASPECTS, WAYS, Grid, Listing, Note, Picture, Section
from evaluators.report.page.browser import Packed, pack
from evaluators.report.page.sections import measure
from evaluators.report.page.told import provenance, standing
from evaluators.report.sweeps import Point

FILE = "index.html"
HERE = Path(__file__).parent
SCRIPTS = ("page.js", "cases.js", "pairs.js")


def write_page(folder: Path, about: About, table: pa.Table, points: Sequence[Point] = (),
               answers: pa.Table | None = None) -> Path:
    """Writes the page into a folder, which is made, and gives its path.

    `table` has the rows of a campaign's tasks, of which there may be none yet; `answers`, where there are any, are as
    `evaluators.report.page.asked` says. Raises `InputError` where the folder cannot be written or columns are missing.
    """
    make_folder(folder)
    write_text(folder / FILE, page(about, table, points, answers))
    return folder / FILE


def page(about: About, table: pa.Table, points: Sequence[Point] = (), answers: pa.Table | None = None) -> str:
    """The page's HTML."""
    found = measure(about, table, points, answers)
    packed = pack(found.scores, found.answers, found.pairs)
    cases = Section("cases", "Cases", "Cases", _told(packed), kind="cases")
    return _render(about, [standing(about), *found.sections, cases, provenance(about)], packed)


def _told(packed: Packed) -> str:
    if packed.shown == packed.cases:
        return f"All {packed.cases:,} scored cases, by editor and setting."
    return (f"{packed.shown:,} of the {packed.cases:,} scored cases, by editor and setting: the first of each by their "
            "ids, as many as this page has room for. Tables and figures are of all.")


def _render(about: About, sections: Sequence[Section], packed: Packed) -> str:
    style = _file("page.css")
    script = "\n".join(map(_file, SCRIPTS))
    rooms = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                        lstrip_blocks=True)
    rooms.filters["shown"] = printable
    rooms.tests.update({kind.__name__.lower(): _is(kind) for kind in (Grid, Listing, Note, Picture)})
    policy = (f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; img-src data:; "
              "base-uri 'none'; form-action 'none'")
    return rooms.get_template("page.html").render(
        about=about, sections=sections, ways=WAYS, policy=policy, style=Markup(style), script=Markup(script),
        packed=packed.data, constants=Markup(_in_script({"aspects": ASPECTS, "ways": list(WAYS)})))


def _is(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kind)


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """What a content security policy knows an inline script or style by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _in_script(value: object) -> str:
    """JSON that nothing can end a script element with."""
    return json.dumps(value).replace("<", "\\u003c")
