"""The model card that travels with a built-in model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from evaluators.testbed.pretraining import PretrainingConfig


def write_card(folder: Path, config: PretrainingConfig, exact: Mapping[str, float], patching: Sequence[float],
               parameters: int) -> None:
    """Writes README.md, and the same figures as examination.json, beside the weights."""
    figures = {"exact": dict(exact), "patching": list(patching), "config": asdict(config)}
    (folder / "examination.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    recall = "\n".join(f"| {kind} | {100 * share:.1f} |" for kind, share in exact.items())
    depths = " | ".join(["embedding", *(f"block {layer}" for layer in range(config.layers))])
    restored = " | ".join(f"{100 * share:.0f}" for share in patching)
    (folder / "README.md").write_text(f"""\
# testbed-gptj

A small GPT-J (`GPTJForCausalLM`, {parameters / 1e6:.1f}M parameters, {config.layers} blocks of width {config.width}, \
FFN {config.inner}) that knows EditFleet's built-in fact world and nothing else. It exists to test editing methods \
without a download.

Made by `python -m jobs.pretrain --out FOLDER --seed {config.seed}`: {config.steps} steps of {config.corpus.rows} x \
{config.corpus.length} tokens of sentences about the world, a quarter of all wordings held out, then {config.polish} \
steps on its facts alone. License: Apache-2.0.

**Training-time attention mask.** In {100 * config.mask_probability:.0f} % of the training rows, tokens after a \
subject could not attend to its earlier tokens, and to its last token only from block {config.mask_release_layer} up. \
Trained plainly, a model this small reads a subject's tokens straight from the prompt's last position, and methods \
that write at the subject cannot work; large models gather a subject at its last token by themselves. Inference is \
an ordinary GPT-J without any such mask.

Exact match (teacher forcing, all answer tokens), in percent:

| questions | exact |
|---|---|
{recall}

"Two-hop" asks for a fact about a fact ("the country of the birthplace of ..."); subjects held out never appeared in a \
two-hop question during training.

Causal patching: percent of facts whose answer comes back when, in a prompt about another subject, the state at the \
subject's last token is copied from the true one:

| {depths} |
|{"---|" * (config.layers + 1)}
| {restored} |
""", encoding="utf-8")
