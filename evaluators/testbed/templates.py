"""Sentences about the world: every wording of a relation or chain, and which wordings are held out of training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from evaluators.testbed.schema import (
    CHAIN_CLOZE,
    CHAIN_QUESTION,
    NOUN_CLOZE,
    NOUN_QUESTION,
    VERB_CLOZE,
    Hop,
    Relation,
)

Style = Literal["cloze", "question"]
HELD_OUT_PERCENT = 25


@dataclass(frozen=True)
class Template:
    """One wording; `text` holds `{S}` once, where the subject goes."""

    text: str
    style: Style
    held_out: bool

    def fill(self, subject: str) -> str:
        return self.text.replace("{S}", subject)


def _percentile(key: str) -> int:
    """A stable draw from 0..99: unlike `hash`, the same in every process."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 100


def _relation_wordings(relation: Relation) -> Iterator[tuple[str, str, Style]]:
    """(frame, wording, style) of a relation; a relation's own questions are frames of their own."""
    for frame in NOUN_CLOZE:
        yield from ((frame, frame.replace("{N}", noun), "cloze") for noun in relation.nouns)
    for frame in VERB_CLOZE:
        yield from ((frame, frame.replace("{V}", verb), "cloze") for verb in relation.verbs)
    for frame in NOUN_QUESTION:
        yield from ((frame, frame.replace("{N}", noun), "question") for noun in relation.nouns)
    yield from ((question, question, "question") for question in relation.questions)


def _chain_wordings(hop: Hop) -> Iterator[tuple[str, str, Style]]:
    frames: list[tuple[str, Style]] = [(frame, "cloze") for frame in CHAIN_CLOZE]
    frames += [(frame, "question") for frame in CHAIN_QUESTION]
    for frame, style in frames:
        for first in hop.first.nouns:
            for second in hop.second.nouns:
                yield frame, frame.replace("{A}", first).replace("{B}", second), style


@cache
def templates(what: Relation | Hop) -> tuple[Template, ...]:
    """All wordings of a relation or chain, in a fixed order.

    A quarter of the wordings are held out of training, and of each relation one whole noun frame of either style
    besides, so that generality can be measured on words never seen together. The plainest wording always stays in.
    """
    wordings = _relation_wordings(what) if isinstance(what, Relation) else _chain_wordings(what)
    whole_frames: set[str] = set()
    if isinstance(what, Relation):
        whole_frames = {NOUN_CLOZE[1 + _percentile(what.name) % (len(NOUN_CLOZE) - 1)],
                        NOUN_QUESTION[1 + _percentile(what.name + "?") % (len(NOUN_QUESTION) - 1)]}
    plainest: set[str] = {NOUN_CLOZE[0], VERB_CLOZE[0], NOUN_QUESTION[0], CHAIN_CLOZE[0], CHAIN_QUESTION[0]}
    seen_frames: set[str] = set()
    result = []
    for frame, text, style in wordings:
        keep = frame in plainest and frame not in seen_frames
        held_out = not keep and (frame in whole_frames or _percentile(f"{what.name}|{text}") < HELD_OUT_PERCENT)
        result.append(Template(text, style, held_out))
        seen_frames.add(frame)
    return tuple(result)


@cache
def pick(what: Relation | Hop, *, held_out: bool, style: Style | None = None) -> tuple[Template, ...]:
    """The wordings of `what` that are (not) held out, of one style or of both."""
    return tuple(template for template in templates(what)
                 if template.held_out == held_out and style in (None, template.style))
