"""What a page says of a campaign beside its scores. Whoever reads the store fills it in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
V = TypeVar("V")


class Progress(NamedTuple):
    """Tasks of one kind: how many are planned, done and failed when last tried."""

    kind: str
    planned: int
    done: int
    failed: int


class Trouble(NamedTuple):
    """What failed, the reason in a line and in full, and in how many tasks."""

    what: str
    summary: str
    reason: str = ""
    tasks: int = 1


@dataclass(frozen=True)
class About:
    """A campaign as it stands in its store.

    `store` is where commands put what is missing, and `more` are the other stores of a report of several, whose
    campaigns are told together. `papers` says which models are the paper's, by their names in rows
    (`{"gpt-j": "gpt-j"}`); `read_at` is when the store was read, in UTC; `running` who runs it just now. `command`
    fills what is missing.
    """

    store: str
    campaign: str
    digest: str = ""
    started: str = ""
    read_at: str = ""
    command: str = ""
    running: str = ""
    progress: Sequence[Progress] = ()
    datasets: Sequence[tuple[str, int]] = ()
    skipped: Sequence[Trouble] = ()
    failures: Sequence[Trouble] = ()
    failed_cases: Sequence[Trouble] = ()
    notes: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    models: Sequence[Mapping[str, str]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    papers: Mapping[str, str] = field(default_factory=dict)
    more: Sequence[str] = ()

    @staticmethod
    def joined(found: Mapping[str, About]) -> About:
        """Several campaigns as one, by the letters of their stores: what each has planned is told by its letter."""
        every = list(found.values())

        def texts(names: Iterable[str]) -> str:
            return ", ".join(dict.fromkeys(name for name in names if name))

        def entries(of: Callable[[About], Sequence[T]]) -> list[T]:
            return [entry for each in every for entry in of(each)]

        def merged(of: Callable[[About], Mapping[str, V]]) -> dict[str, V]:
            return {name: value for each in every for name, value in of(each).items()}

        devices: Counter[str] = sum((Counter(each.devices) for each in every), Counter())
        return About(
            every[0].store, texts(each.campaign for each in every), texts(each.digest for each in every),
            texts(each.started for each in every), every[0].read_at,
            " && ".join(each.command for each in every if each.missing), texts(each.running for each in every),
            [entry._replace(kind=f"{letter}: {entry.kind}") for letter, each in found.items()
             for entry in each.progress],
            list(merged(lambda each: dict(each.datasets)).items()), entries(lambda each: each.skipped),
            entries(lambda each: each.failures), entries(lambda each: each.failed_cases),
            list(dict.fromkeys(entries(lambda each: each.notes))), merged(lambda each: each.tags),
            entries(lambda each: each.models),
            {package: texts(each.versions.get(package, "") for each in every)
             for package in merged(lambda each: each.versions)},
            devices, merged(lambda each: each.settings), merged(lambda each: each.papers),
            [each.store for each in every[1:]])

    @property
    def places(self) -> str:
        """All stores."""
        return ", ".join([self.store, *self.more])

    @property
    def missing(self) -> int:
        return sum(each.planned - each.done for each in self.progress)
