"""Tasks on their way to workers: small, as the cases that they are about are sent once for all tasks about them.

A task of 100 cases is 150 KB, and a driver would take longer to pickle it than for all else that it does about it.
"""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cluster.plan.refs import Chunk
from cluster.plan.tasks import Task
from evaluators.cases import Case
from evaluators.datasets.keeping import texts_of

KEPT = 48 << 20  # bytes of cases that are kept ready, well below what Ray's store holds on a machine of its own
SMALL = 16 << 10  # bytes of cases that are sent with their task: looking after them would take longer


class Parcel(NamedTuple):
    """A task without its cases, and these: each chunk's as text, or what stands for that."""

    task: bytes
    cases: tuple[Any, ...]


class Packing:
    """Packs tasks for one cluster, where `put` keeps bytes and gives what stands for them as long as it is held."""

    def __init__(self, put: Callable[[bytes], Any], kept: int = KEPT) -> None:
        self._put, self._most, self._bytes = put, kept, 0
        #: What stands for the cases of a chunk, by its digest, and how many bytes these are.
        self._kept: dict[str, tuple[Any, int]] = {}
        self._draw = random.Random(0)

    def pack(self, task: Task) -> Parcel:
        written = io.BytesIO()
        pickler = _Pickler(written, protocol=pickle.HIGHEST_PROTOCOL)
        pickler.dump(task)
        return Parcel(written.getvalue(), tuple(map(self._sent, pickler.chunks.values())))

    def _sent(self, chunk: Chunk) -> Any:
        if chunk.digest in self._kept:
            return self._kept[chunk.digest][0]
        text = b"\n".join(texts_of(chunk.cases))  # each is one line of JSON
        if len(text) <= SMALL or len(text) > self._most:
            return text
        while self._bytes + len(text) > self._most:
            # Any of them: as all come round for one editor after another, the one not used for longest is the next.
            self._bytes -= self._kept.pop(self._draw.choice(list(self._kept)))[1]
        self._kept[chunk.digest] = self._put(text), len(text)
        self._bytes += len(text)
        return self._kept[chunk.digest][0]


def unpack(task: bytes, cases: Sequence[bytes]) -> Task:
    """The task of a parcel, whose cases have come."""
    found: Task = _Unpickler(io.BytesIO(task), cases).load()
    return found


class _Pickler(pickle.Pickler):
    """Leaves cases out; `chunks` has those that had any, by the digest of these."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.chunks: dict[str, Chunk] = {}

    def persistent_id(self, value: Any) -> tuple[Any, ...] | None:
        if type(value) is not Chunk:
            return None
        self.chunks.setdefault(value.digest, value)
        return list(self.chunks).index(value.digest), value.digest, value.dataset, value.first, value.source


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, texts: Sequence[bytes]) -> None:
        super().__init__(file)
        self._texts = texts
        self._cases: dict[int, tuple[Case, ...]] = {}

    def persistent_load(self, saved: tuple[Any, ...]) -> Chunk:
        number, digest, dataset, first, source = saved
        if number not in self._cases:
            lines = self._texts[number].split(b"\n") if self._texts[number] else []
            self._cases[number] = tuple(map(Case.model_validate_json, lines))
        chunk = Chunk(dataset, first, self._cases[number], source)
        chunk.__dict__["digest"] = digest  # which would be computed anew
        return chunk
