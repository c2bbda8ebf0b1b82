"""Rows and answers of a campaign that was never run, drawn from a seed: for tests of reports."""

from __future__ import annotations

import random

import pyarrow as pa

from cluster.store.records import ROW_SCHEMA

EDITORS = {"identity": 0.1, "ft": 0.9, "mend": 0.6, "rome": 0.8}
RELATIONS = ("born in", "plays", "works for")
HOSTILE = {"editor": "<img src=x onerror=hacked=1>", "dataset": "[bold]d</script><script>hacked=1</script>",
           "subject": "\u202eevil עברית \x1b[31m", "case": "a&case=b#c?\"'>", "long": "long" * 2000}


def rows(cases=12, *, editors=EDITORS, model="m", dataset="d", protocols=(("single", 1), ("batch", 4), ("batch", 8)),
         names=lambda number: (f"case-{number:03}", f"subject {number // 2}"), seed=0):
    """A table of rows: three ways of taking reliability, generality and two kinds of locality."""
    draw, found = random.Random(seed), []
    for protocol, edits in protocols:
        for editor, share in editors.items():
            same = {"editor": editor, "model": model, "dataset": dataset, "protocol": protocol, "edits": edits,
                    "task": f"{editor}-{protocol}-{edits}", "settings": "s", "seed": 0, "order": 0, "texts": None}
            for number in range(cases):
                case, subject = names(number)
                for base in ("reliability", "generality", "locality", "locality.attributes", "portability.all"):
                    for way in ("token", "exact", "generation"):
                        value = 1.0 if draw.random() < share else draw.choice([0.0, 0.5]) if way == "token" else 0.0
                        found.append({**same, "metric": f"{base}.{way}", "value": value, "case_id": case,
                                      "subject": subject})
                found.append({**same, "metric": "reliability.magnitude", "value": draw.gauss(0, 0.3), "case_id": case,
                              "subject": subject})
    return pa.Table.from_pylist(found, schema=ROW_SCHEMA)


def cost_rows(editors=("ft", "mend", "rome"), model="m", dataset="d"):
    """Two repeats of what ten edits cost, on a device."""
    same = {"model": model, "dataset": dataset, "protocol": "efficiency", "edits": 10, "subject": "", "task": "c",
            "settings": "s", "seed": 0, "order": 0, "texts": ["cuda A", "float32"]}
    return pa.Table.from_pylist(
        [{**same, "editor": editor, "metric": metric, "value": float(value * (1 + repeat)), "case_id": str(repeat)}
         for number, editor in enumerate(editors, 1) for repeat in (0, 1)
         for metric, value in (("cost.seconds", number), ("cost.memory.device", number * 2**30))], schema=ROW_SCHEMA)


def answers(cases=12, *, editors=EDITORS, model="m", dataset="d",
            names=lambda number: (f"case-{number:03}", f"subject {number // 2}"), seed=1):
    """Answers to single edits: the edited prompt and two neighbours, of which the first has the same answer."""
    draw, found = random.Random(seed), []
    for editor, share in editors.items():
        for number in range(cases):
            case, subject = names(number)
            target = "x" * (1 + number % 6)
            same = {"editor": editor, "model": model, "dataset": dataset, "protocol": "single", "edits": 1, "seed": 0,
                    "case_id": case, "subject": subject, "relation": RELATIONS[number % 3], "seconds": draw.random(),
                    "patch_norm": 2.5}
            asked = (("reliability", f"{subject} is", target), ("locality", "another is", " Old "),
                     ("locality", "a third is", "other"))
            for question, prompt, expected in asked:
                right = float(draw.random() < share)
                found.append({**same, "question": question, "prompt": prompt, "target": expected, "unedited": "old",
                              "edited": expected if right else "<b>wrong</b>", "right": right, "target_true": "old",
                              "edited_written": f"{expected} <i>and more</i>" if number % 2 else None,
                              "unedited_written": "old"})
    table = pa.Table.from_pylist(found)
    coded = pa.dictionary(pa.int32(), pa.string())  # as a store has them
    return table.cast(pa.schema([(field.name, coded if field.type == pa.string() else field.type)
                                 for field in table.schema]))


def hostile(number):
    """Case ids and subjects that try to be something else."""
    return ((HOSTILE["case"], HOSTILE["subject"]), (HOSTILE["long"], HOSTILE["long"]))[number % 2] \
        if number < 2 else (f"case-{number:03}", f"subject {number // 2}")
