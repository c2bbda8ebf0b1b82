"""Whether edits cost as much each where there are many: a thousand at once, beside the same in ten parts.

    python -m benchmarks.linear --out benchmarks/linear.json

CPU seconds of one thread on the built-in GPT-J; half of the parts are made before the whole and half after it, so that
what else the machine does falls on both. Memory is what the process had at most, without the patches that it kept.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.editors import peak_mb, prepare
from editors.core.editor import Editor
from editors.core.models.work import DONE
from editors.core.requests import EditRequest
from evaluators.metering.instruments import reset_resident_peak

PARTS = 10


def compare(editor: Editor, requests: Sequence[EditRequest]) -> dict[str, Any]:
    """What so many edits take, in parts and at once."""
    whole_size, size = len(requests), len(requests) // PARTS
    parts = [requests[start: start + size] for start in range(0, whole_size, size)]
    editor.edit_each(requests[:1])  # what is made once
    before = [_spent(editor, part) for part in parts[: PARTS // 2]]
    whole = _spent(editor, requests)
    split = [*before, *(_spent(editor, part) for part in parts[PARTS // 2:])]
    seconds, flops = (sum(each[key] for each in split) for key in ("seconds", "flops"))
    return {"seconds_an_edit": {str(size): round(seconds / whole_size, 5),
                                str(whole_size): round(whole["seconds"] / whole_size, 5)},
            "whole_by_parts": {"seconds": round(whole["seconds"] / seconds, 3),
                               "operations": round(whole["flops"] / flops, 3) if flops else None},
            "peak_mb": {str(size): max(each["peak"] for each in split), str(whole_size): whole["peak"]},
            "patches_mb": round(whole["patches"])}


def _spent(editor: Editor, requests: Sequence[EditRequest]) -> dict[str, float]:
    reset_resident_peak()
    seconds, flops = time.process_time(), DONE.flops
    made = editor.edit_each(requests)
    seconds, flops = time.process_time() - seconds, DONE.flops - flops
    return {"seconds": seconds, "flops": flops, "peak": peak_mb(made),
            "patches": sum(patch.nbytes for patch in made) / 1e6}


def main(out: Annotated[Path, typer.Option(help="Where the figures go, as JSON.")],
         editors: Annotated[str, typer.Option(help="Editors, by commas.")] = "mend,t-patcher,calinet,memit",
         edits: Annotated[int, typer.Option(help="How many at once; a multiple of ten.")] = 1000) -> None:
    """Measure each editor, one after another."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _, made, cases = prepare(editors.split(","), edits, Path(folder))
        found = {name: compare(editor, [case.request() for case in cases]) for name, editor in made.items()}
    out.write_text(json.dumps({"threads": 1, "editors": found}, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
