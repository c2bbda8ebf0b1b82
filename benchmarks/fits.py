"""What edits take of a device's memory on GPT-J-6B with the published settings, by the model of bytes alone.

    python -m benchmarks.fits

The model has the published shape; nothing is loaded, and nothing measured. The tables are those of `editors/README.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cluster.plan.costs import PROBES
from cluster.plan.memory import BYTES, PROCESS
from editors import EDITORS, get_editor, preset
from editors.core.memory import ANSWER, GIB, KEPT_STATES, PROMPT, SPARE, USABLE, Bytes, Needs, Room
from editors.core.models.architectures import Shape
from editors.core.models.published import published_config
from evaluators.protocols.single import PATCHES, SHARE
from evaluators.scoring.observe import BATCH_TOKENS

MODEL = "EleutherAI/gpt-j-6b"
CONFIG = published_config(MODEL)
COUNTS = (10, 100, 1000)
JOINT = 10_000
MIB = 2**20


class Worker(NamedTuple):
    """One with so many GiB on each device, the weights in this dtype on one device or in the host's memory."""

    memory: int
    dtype: str
    offload: bool = False

    @property
    def of(self) -> Bytes:
        return Bytes(Shape.of(CONFIG), BYTES[self.dtype])

    @property
    def resident(self) -> float:
        """Bytes of weights on a device: all, or two whole blocks."""
        return 2 * self.of.weights / self.of.shape.depth if self.offload else self.of.weights

    def free(self, taken: float) -> float:
        """As `free_bytes` gives it to those who ask."""
        return max(USABLE * (self.memory * GIB - PROCESS - self.resident - taken), 0.0)


class Peak(NamedTuple):
    """The most bytes on a device at any time, and how many edits are made, and held, at once."""

    nbytes: float
    made: int
    held: int


def needs_of(name: str, worker: Worker, facts: int = 1) -> Needs:
    """Of a method with its published settings."""
    method = get_editor(name)
    return method.needs(method.Config.model_validate(preset(name, CONFIG)), worker.of, facts)


def peak(needs: Needs, worker: Worker, edits: int, facts: int = 1) -> Peak:
    """Of so many edits with their scores, as a worker goes about them: of `facts` each, which are asked about."""
    room, of = Room(), worker.of
    held = needs.held + (needs.spare if needs.spare <= SPARE * worker.memory * GIB else 0.0)
    most = max(int(min(edits, PATCHES / needs.each if needs.each else edits)), 1)
    together = room.at_once(most, SHARE * needs.each, worker.free(held))
    patches = together * needs.each
    made = room.at_once(min(needs.at_once, together * facts), needs.edit, worker.free(held))
    making = made * needs.edit + (together - min(made, together)) * needs.each
    kept = min(KEPT_STATES, worker.free(0) / 8)
    asked = of.asked(ANSWER / PROMPT)
    tokens = min(room.at_once(BATCH_TOKENS["cuda"], asked, worker.free(held + patches + kept)),
                 together * facts * PROBES)
    busy = max(needs.loading, making, patches + kept + tokens * asked)
    return Peak(PROCESS + worker.resident + held + busy, made, together)


def table(worker: Worker) -> Iterator[str]:
    """A row for every method: what it holds, what an edit takes while it is made and when it is, and the peaks."""
    header = ["editor", "held, GiB", "an edit being made, MiB", "one made, MiB", "at once, of 1,000: made, held",
              *(f"{count:,} edits, GiB" for count in COUNTS)]
    yield from _lines(header)
    for name in EDITORS:
        needs = needs_of(name, worker)
        peaks = [peak(needs, worker, count) for count in COUNTS]
        yield _line([f"`{name}`", f"{needs.held / GIB:.1f}", f"{needs.edit / MIB:.0f}", f"{needs.each / MIB:.1f}",
                     f"{peaks[-1].made:,}, {peaks[-1].held:,}", *(_told(each, worker) for each in peaks)])


def joint(workers: Sequence[Worker]) -> Iterator[str]:
    """MEMIT's one edit of many facts."""
    for worker in workers:
        found = peak(needs_of("memit", worker, JOINT), worker, 1, JOINT)
        yield (f"MEMIT's joint edit of {JOINT:,} facts in {worker.dtype} takes {_told(found, worker)} GiB of "
               f"{worker.memory}, {found.made:,} values at once.")


def _told(found: Peak, worker: Worker) -> str:
    size = f"{found.nbytes / GIB:.1f}"
    return size if found.nbytes <= worker.memory * GIB else f"{size}: does not fit"


def _lines(header: Sequence[str]) -> Iterator[str]:
    yield _line(header)
    yield _line(["---"] * len(header))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def told() -> str:
    """All of it, as Markdown."""
    one, gang = Worker(32, "float16"), Worker(32, "float32", offload=True)
    return "\n".join([
        f"In {one.dtype} on one device of {one.memory} GiB, of which its weights take {one.resident / GIB:.1f}:", "",
        *table(one), "",
        f"In {gang.dtype} as a gang of two (`devices: 2, offload: cpu`), on each device of {gang.memory} "
        "GiB:", "", *table(gang), "", *joint([Worker(80, "bfloat16"), Worker(80, "float32")])])


if __name__ == "__main__":
    print(told())
