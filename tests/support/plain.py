"""What was exported, asked by transformers and PEFT alone, in a process that has never heard of EditFleet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

ASK = """
import sys, torch
from transformers import AutoModelForCausalLM
base, asked, *folders = sys.argv[1:]
asked = torch.load(asked, weights_only=True)
found = {}
for folder in folders:
    if folder.endswith("-peft"):
        from peft import PeftModel
        module = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="float32"), folder)
    else:
        module = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logits = module.eval()(input_ids=asked["ids"], attention_mask=asked["mask"]).logits
    found[folder.rpartition("/")[2]] = logits[asked["row"], asked["position"]].float().contiguous()
assert not {"editors", "evaluators", "jobs"} & set(sys.modules)
torch.save(found, "found.pt")
"""


def asked_plainly(base: Path, folders: Sequence[Path], batch, scratch: Path) -> Mapping[str, torch.Tensor]:
    """Logits at a batch's targets, by folder name: of edited models, and where a name ends in "-peft" of the model in
    `base` with that adapter."""
    torch.save({"ids": batch.input_ids, "mask": batch.attention_mask, "row": batch.row, "position": batch.position},
               scratch / "asked.pt")
    ended = subprocess.run([sys.executable, "-c", ASK, base, scratch / "asked.pt", *folders], cwd=scratch,
                           capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return torch.load(scratch / "found.pt", weights_only=True)
