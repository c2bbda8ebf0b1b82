"""The model cards that travel with the built-in models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from evaluators.files import write_json, write_text
from evaluators.testbed.pretraining.base import PretrainingConfig
from evaluators.testbed.pretraining.gptj import GPTJPretrainingConfig
from evaluators.testbed.pretraining.t5 import T5PretrainingConfig

RECALL = """\
Exact match (teacher forcing, all answer tokens), in percent:

| questions | exact |
|---|---|
{rows}

"Two-hop" asks for a fact about a fact ("the country of the birthplace of ..."); subjects held out never appeared in a \
two-hop question during training.
"""


def write_gptj_card(folder: Path, config: GPTJPretrainingConfig, exact: Mapping[str, float],
                    patching: Sequence[float], parameters: int) -> None:
    """Writes README.md, and the same figures as examination.json, beside the weights."""
    depths = " | ".join(["embedding", *(f"block {layer}" for layer in range(config.layers))])
    restored = " | ".join(f"{100 * share:.0f}" for share in patching)
    _write(folder, config, {"exact": dict(exact), "patching": list(patching)}, f"""\
# testbed-gptj

A small GPT-J (`GPTJForCausalLM`, {parameters / 1e6:.1f}M parameters, {config.layers} blocks of width {config.width}, \
FFN {config.inner}) that knows EditFleet's built-in fact world and nothing else. It exists to test editing methods \
without a download.

Made by `python -m jobs.pretrain gptj --out FOLDER --seed {config.seed}`: {config.steps} steps of \
{config.corpus.rows} x {config.corpus.length} tokens of sentences about the world, a quarter of all wordings held out, \
then {config.polish} steps on its facts alone. License: Apache-2.0.

**Training-time attention mask.** In {100 * config.mask_probability:.0f} % of the training rows, tokens after a \
subject could not attend to its earlier tokens, and to its last token only from block {config.mask_release_layer} up. \
Trained plainly, a model this small reads a subject's tokens straight from the prompt's last position, and methods \
that write at the subject cannot work; large models gather a subject at its last token by themselves. Inference is \
an ordinary GPT-J without any such mask.

{_recall(exact)}
Causal patching: percent of facts whose answer comes back when, in a prompt about another subject, the state at the \
subject's last token is copied from the true one:

| {depths} |
|{"---|" * (config.layers + 1)}
| {restored} |
""")


def write_t5_card(folder: Path, config: T5PretrainingConfig, exact: Mapping[str, float], parameters: int) -> None:
    """Writes README.md, and the same figures as examination.json, beside the weights."""
    _write(folder, config, {"exact": dict(exact)}, f"""\
# testbed-t5

A small T5 (`T5ForConditionalGeneration`, {parameters / 1e6:.1f}M parameters, {config.layers} + {config.layers} blocks \
of width {config.width}, ReLU FFN {config.inner}, a head of its own) that answers questions about EditFleet's built-in \
fact world and knows nothing else. It exists to test editing methods without a download.

Made by `python -m jobs.pretrain t5 --out FOLDER --seed {config.seed}`: {config.steps} steps of {config.rows} \
questions, a quarter of all wordings held out, then {config.polish} steps on the facts alone. License: Apache-2.0.

{_recall(exact)}""")


def _recall(exact: Mapping[str, float]) -> str:
    return RECALL.format(rows="\n".join(f"| {kind} | {100 * share:.1f} |" for kind, share in exact.items()))


def _write(folder: Path, config: PretrainingConfig, figures: Mapping[str, object], text: str) -> None:
    write_json(folder / "examination.json", {**figures, "config": asdict(config)})
    write_text(folder / "README.md", text)
