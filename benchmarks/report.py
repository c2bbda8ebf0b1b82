"""What the HTML report of a million rows costs, and how large it is.

    python -m benchmarks.report --out benchmarks/report.json
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from cluster.store.records import ROW_SCHEMA
from editors import EDITORS
from evaluators.report.page.about import About
from evaluators.report.page.page import write_page
from evaluators.scoring.measures import all_metrics

SETTINGS = (("single", 1), ("batch", 10), ("batch", 100), ("sequential", 1), ("sequential", 10), ("sequential", 100),
            ("sequential", 1000))
KINDS = ("reliability", "generality", "locality", "portability")
QUESTIONS = ("reliability", "generality", "locality", "locality", "portability.all")


def rows(total: int, seed: int = 0) -> pa.Table:
    """About so many rows: all editors in all settings, with all scores that campaigns usually have."""
    metrics = [name for name, metric in all_metrics().items()
               if name.startswith(KINDS) and metric.unit in ("share", "probability")]
    cases = max(1, total // (len(EDITORS) * len(SETTINGS) * len(metrics)))
    draw = np.random.default_rng(seed)
    return pa.concat_tables(list(_cells(metrics, cases, draw)))


def _cells(metrics: list[str], cases: int, draw: np.random.Generator) -> Iterator[pa.Table]:
    case, metric = np.divmod(np.arange(cases * len(metrics)), len(metrics))
    names = {"metric": pa.array(metrics).take(pa.array(metric)),
             "case_id": pa.array([f"case-{number:06}" for number in range(cases)]).take(pa.array(case)),
             "subject": pa.array([f"subject {number // 2}" for number in range(cases)]).take(pa.array(case))}
    smooth = np.array([name.endswith("magnitude") for name in metrics])[metric]
    for protocol, edits in SETTINGS:
        for editor in EDITORS:
            values = np.where(smooth, draw.normal(size=len(case)), draw.random(len(case)) < draw.random())
            same = {"editor": editor, "model": "m", "dataset": "d", "protocol": protocol, "edits": edits, "task": "t",
                    "settings": "s", "seed": 0, "order": 0, "texts": None}
            columns = {**names, "value": pa.array(values.astype(float)),
                       **{name: pa.array([value]).take(pa.array(np.zeros(len(case), np.int64)))
                          for name, value in same.items()}}
            yield pa.table([columns[field.name].cast(field.type) for field in ROW_SCHEMA], ROW_SCHEMA)


def answers(table: pa.Table, seed: int = 0) -> pa.Table:
    """Answers to the single edits of these rows."""
    draw = np.random.default_rng(seed)
    cases = [row for row in table.select(["case_id", "subject"]).group_by(["case_id", "subject"]).aggregate(
        []).to_pylist()]
    return pa.Table.from_pylist([
        {"editor": editor, "model": "m", "dataset": "d", "protocol": "single", "edits": 1, "seed": 0, **case,
         "relation": f"relation {number % 20}", "question": question, "prompt": f"{question} of {case['subject']} is",
         "target": f"answer {number % 97}", "unedited": f"answer {number % 89}", "edited": f"answer {number % 83}",
         "right": float(draw.random() < 0.5), "patch_norm": float(draw.random()), "seconds": float(draw.random())}
        for editor in EDITORS for number, case in enumerate(cases) for question in QUESTIONS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    table = rows(arguments.rows)
    asked = answers(table)
    start = time.process_time()
    with TemporaryDirectory() as folder:
        path = write_page(Path(folder), About(store="store", campaign="benchmark"), table, (), asked)
        size = path.stat().st_size
    found = {"rows": len(table), "answers": len(asked), "cpu_seconds": round(time.process_time() - start, 2),
             "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
             "page_mb": round(size / 1e6, 2)}
    print(json.dumps(found))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
