"""From YAML to fields, each with the line it stands on, and back. Files that would take for ever are refused."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from cluster.campaign.source import Location, Origin, Written
from editors.core.errors import InputError, quoted
from editors.core.places import scrubbed, shown

MOST_BYTES = 4_000_000  # of a campaign's files together; parsing takes seconds from there on
MOST_VALUES = 100_000  # in a campaign, with those that stand for others (`*name`) counted as often as they are used
MOST_FILES = 100
# What YAML 1.1 takes for a number and nobody else does: 010 is 8, and 1:30 is 90.
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# Values that no field has; `!!binary` would be taken for text.
NO_FIELDS = {f"tag:yaml.org,2002:{tag}": f"!!{tag}" for tag in ("binary", "set", "omap", "pairs")}
NO_TEXT = re.compile("[\0\ud800-\udfff]")  # what YAML can spell
ODD_NUMBER = re.compile(r"[-+]?0[0-7_]+|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


class Reader:
    """Reads all that makes up one campaign, and holds it to the limits that there are for all of it together."""

    def __init__(self) -> None:
        self._files = self._bytes = self._values = 0

    def read(self, path: Path) -> Written:
        """A file. Raises `InputError` where it cannot be read, is empty or no YAML."""
        try:
            self._files += 1
            self._bytes += (size := path.stat().st_size)
            if self._bytes > MOST_BYTES:
                has = f"has {size:,} bytes" if size == self._bytes else f"brings the files to {self._bytes:,} bytes"
                raise InputError(f"'{path}' {has}, and a campaign at most {MOST_BYTES:,}; is it a data set?")
            if self._files > MOST_FILES:
                raise InputError(f"'{path}' is one file too many: a campaign may read {MOST_FILES}, those that are "
                                 "included again and again among them")
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read campaign '{path}': {getattr(error, 'strerror', None) or error}") from error
        written = self._parse(text, Origin(str(path), 1, (), path.parent))
        if written is None:
            raise InputError(f"{path} is empty; a campaign needs name, models, datasets and editors")
        return written

    def read_option(self, text: str, told: str) -> Written:
        """The value of an option. Raises `InputError`, too."""
        written = self._parse(text, Origin(told, None, (), Path.cwd()))
        if written is None:
            raise InputError(f"{told}: there is no value; `null` stands for none")
        return written

    def count(self, values: int, told: str) -> None:
        """Raises `InputError` where so many values more are too many."""
        self._values += values
        if self._values > MOST_VALUES:
            raise InputError(f"{told} has more than {MOST_VALUES:,} values, those that `*name` repeats among them")

    def _parse(self, text: str, start: Origin) -> Written | None:
        """YAML; the same key twice is an error, where plain YAML would keep the last."""
        try:
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            if node is None:
                return None
            origins = dict(islice(_origins(node, start), MOST_VALUES + 1))
            self.count(len(origins), start.file)
            return Written(loader.construct_document(node), origins)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            place = f", line {mark.line + 1}, column {mark.column + 1}" if mark and start.line else ""
            raise InputError(f"{start.file}{place}: not valid YAML: {error.problem}") from error
        except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date that does not exist
            raise InputError(f"{start.file}: not valid YAML: {error}") from error


def to_yaml(fields: Any) -> str:
    """Fields as YAML that people can read and keep: without the secrets of URLs."""
    return yaml.safe_dump(_shown(fields), sort_keys=False, allow_unicode=True, width=math.inf)


def _shown(value: Any) -> Any:
    match value:
        case dict():
            return {_shown(key): _shown(each) for key, each in value.items()}
        case list():
            return list(map(_shown, value))
        case str():
            return scrubbed(shown(value))
    return value


def _origins(node: yaml.Node, start: Origin, at: Location = ()) -> Iterator[tuple[Location, Origin]]:
    def origin(node: yaml.Node, path: Location) -> Origin:
        return start._replace(line=start.line and node.start_mark.line + 1, path=path)

    def place(node: yaml.Node) -> str:
        return origin(node, ()).tell()

    if tag := NO_FIELDS.get(node.tag):
        raise InputError(f"{origin(node, at).tell()}: no field is a {tag}; write text, a number, a list or fields")
    if not at:
        yield at, origin(node, at)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{place(key)}: a field's name must be a word, not a list or a mapping")
            if key.value in seen:
                raise InputError(f"{place(key)}: '{key.value}' is written twice")
            seen.add(key.value)
            yield (*at, key.value), origin(key, (*at, key.value))
            yield from _origins(value, start, (*at, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield (*at, number), origin(value, (*at, number))
            yield from _origins(value, start, (*at, number))
    elif strange := NO_TEXT.search(node.value):
        raise InputError(f"{place(node)}: {quoted(node.value)} has the character U+{ord(strange[0]):04X}, which no "
                         "name, path or text can have")
    elif node.tag in NUMBERS and ODD_NUMBER.fullmatch(node.value):
        raise InputError(f"{place(node)}: YAML reads {node.value} as another number, in octal or base 60; write it in "
                         "plain digits, or a name in quotes")
