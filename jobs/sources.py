"""Campaigns of several stores, as the commands read them that hold stores together or against each other."""

from __future__ import annotations

from cluster.store.source import Source
from cluster.store.store import Store
from jobs.console import choose_campaign, shorten, warn, warn_of_damaged


def read_source(letter: str, place: str, campaign: str | None, name: str = "") -> Source:
    """A campaign of the store at a place, or the one run last; says what is foreign in the store, and what is damaged,
    with the `name` of the store before its place. Raises `InputError` where there is no such store or campaign."""
    store = Store.open(place)
    for line in shorten(store.strays()):
        warn(line)
    source = Source.read(letter, store, choose_campaign(store.place, store.campaigns(), campaign))
    warn_of_damaged(f"{name}{store.place}", source.damaged)
    return source
