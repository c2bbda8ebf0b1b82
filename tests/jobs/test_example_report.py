"""The report that is shown: its numbers are README's, and it tells nothing of the machine that made it."""

import base64
import gzip
import re
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/report/index.html").read_text("utf-8")
ASPECTS = {"reliability": "reliability.exact", "generality": "generality.exact", "locality": "locality.exact",
           ".attributes": "locality.attributes.exact", ".unrelated": "locality.unrelated.exact",
           "portability": "portability.all.exact"}


class Cells(HTMLParser):
    """The text of each cell by its row's editor and its metric."""

    def __init__(self):
        super().__init__()
        self.found, self._editor, self._metric, self._heading = {}, "", "", False

    def handle_starttag(self, tag, attrs):
        if tag in ("th", "td"):
            self._metric, self._heading = dict(attrs).get("data-metric", ""), ("scope", "row") in attrs

    def handle_data(self, text):
        if self._heading and text.strip():
            self._editor, self._heading = text, False
        elif self._metric and text.strip():
            self.found.setdefault((self._editor, self._metric), text)
            self._metric = ""


def test_its_numbers_are_those_of_readme():
    cells = Cells()
    cells.feed(PAGE)
    table = re.search(r"^\| editor (?:.+\n)+", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)[0]
    head, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len(lines) == 10
    for editor, cases, *values in lines:
        assert cases == "200"
        for name, value in zip(head[2:], values, strict=True):
            assert cells.found[editor, ASPECTS[name]] == value, (editor, name)


def test_it_is_of_no_machine_and_no_larger_than_it_may_be():
    packed = re.search(r'id="packed">([^<]+)<', PAGE)[1]
    whole = PAGE.replace(packed, gzip.decompress(base64.b64decode(packed)).decode())
    assert not re.findall(r"(?<![\w.<])/(?:home|root|tmp|work|usr|Users|mnt|opt)\b[^<\"]*", whole)
    assert len(PAGE) < 1_500_000
    for picture in ("light.png", "phone.png"):
        assert (ROOT / "docs/report" / picture).stat().st_size < 150_000
