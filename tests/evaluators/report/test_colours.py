"""The editors' colours: one for each, and apart for whoever looks."""

from itertools import combinations

import numpy as np
import pytest

from editors import EDITORS
from evaluators.report.colours import COLOURS

# How linear RGB looks to people who lack one kind of cone: Machado, Oliveira and Fernandes 2009, severity 1.
EYES = {"all": np.eye(3),
        "no red": [[.152286, 1.052583, -.204868], [.114503, .786281, .099216], [-.003882, -.048116, 1.051998]],
        "no green": [[.367322, .860646, -.227968], [.280085, .672501, .047413], [-.011820, .042940, .968881]],
        "no blue": [[1.255528, -.076749, -.178779], [-.078411, .930809, .147602], [.004733, .691367, .303900]]}
XYZ = np.array([[.4124564, .3575761, .1804375], [.2126729, .7151522, .0721750], [.0193339, .1191920, .9503041]])
WHITE, DARK = "#ffffff", "#181b1f"  # what reports and dashboards are drawn on


def linear(colour):
    value = np.array([int(colour[at:at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(value <= .04045, value / 12.92, ((value + .055) / 1.055) ** 2.4)


def lab(rgb):
    x, y, z = np.cbrt(XYZ @ np.clip(rgb, 0, 1) / [.95047, 1, 1.08883])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(*colours):
    darker, lighter = sorted((XYZ @ linear(colour))[1] + .05 for colour in colours)
    return lighter / darker


def test_every_editor_has_a_colour():
    assert set(COLOURS) == set(EDITORS)


@pytest.mark.parametrize("eyes", EYES)
def test_colours_keep_apart(eyes):
    seen = {editor: lab(np.array(EYES[eyes]) @ linear(colour)) for editor, colour in COLOURS.items()}
    close = [pair for pair in combinations(seen, 2) if np.linalg.norm(seen[pair[0]] - seen[pair[1]]) < 20]
    assert close == []


def test_colours_stand_out_from_what_they_are_drawn_on():
    assert [editor for editor, colour in COLOURS.items()
            if contrast(colour, WHITE) < 1.7 or contrast(colour, DARK) < 2.2] == []
