"""What a page says of a campaign beside its scores. Whoever reads the store fills it in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TypeVar

from editors.core.printable import in_json
from evaluators.files import finite

T = TypeVar("T")
V = TypeVar("V")


@dataclass(frozen=True)
class Progress:
    """Tasks of one kind: how many are planned, done and failed when last tried."""

    kind: str
    planned: int
    done: int
    failed: int


@dataclass(frozen=True)
class Trouble:
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
    fills what is missing, those of `fill` what belongs to campaigns of these names. `texts` are the campaigns' files
    as they were read, and `settings` what each editor was made with on each model, as JSON.
    """

    store: str
    campaign: str
    digest: str = ""
    started: str = ""
    read_at: str = ""
    command: str = ""
    fill: Mapping[str, str] = field(default_factory=dict)
    running: str = ""
    progress: Sequence[Progress] = ()
    datasets: Sequence[tuple[str, int, str]] = ()
    skipped: Sequence[Trouble] = ()
    failures: Sequence[Trouble] = ()
    failed_cases: Sequence[Trouble] = ()
    notes: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    models: Sequence[Mapping[str, str]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)
    settings: Sequence[tuple[str, str]] = ()
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

        if len(every) == 1:
            return every[0]
        return About(
            store=every[0].store, more=[each.store for each in every[1:]], read_at=every[0].read_at,
            fill=every[0].fill, command=" && ".join(each.command for each in every if each.missing),
            campaign=texts(each.campaign for each in every), digest=texts(each.digest for each in every),
            started=texts(each.started for each in every), running=texts(each.running for each in every),
            progress=[replace(entry, kind=f"{letter}: {entry.kind}") for letter, each in found.items()
                      for entry in each.progress],
            texts={f"{letter}: {name}": text for letter, each in found.items() for name, text in each.texts.items()},
            datasets=list(dict.fromkeys(entries(lambda each: each.datasets))), tags=merged(lambda each: each.tags),
            skipped=entries(lambda each: each.skipped), failures=entries(lambda each: each.failures),
            failed_cases=entries(lambda each: each.failed_cases), models=entries(lambda each: each.models),
            notes=list(dict.fromkeys(entries(lambda each: each.notes))),
            versions={package: texts(each.versions.get(package, "") for each in every)
                      for package in merged(lambda each: each.versions)},
            devices=sum((Counter(each.devices) for each in every), Counter[str]()),
            settings=list(dict.fromkeys(entries(lambda each: each.settings))),
            papers=merged(lambda each: each.papers))

    @property
    def places(self) -> str:
        """All stores."""
        return ", ".join([self.store, *self.more])

    @property
    def missing(self) -> int:
        return sum(each.planned - each.done for each in self.progress)

    def to_json_line(self) -> str:
        """All of it as one line of JSON, under `provenance`."""
        return in_json(json.dumps({"provenance": finite(asdict(self))}, ensure_ascii=False)) + "\n"
