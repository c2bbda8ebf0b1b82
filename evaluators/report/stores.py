"""What rows are called that are of one store among several: the letter of the store stands behind their data set."""

from __future__ import annotations

import re

_LABEL = re.compile(r" \[store [A-Z]\]$")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of stores, in the order they are named


def labelled(dataset: str, letter: str) -> str:
    return f"{dataset} [store {letter}]"


def unlabelled(dataset: str) -> str:
    """The data set without the store's letter."""
    return _LABEL.sub("", dataset)
