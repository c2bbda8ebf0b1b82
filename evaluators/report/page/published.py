"""What Yao et al. 2023 ("Editing Large Language Models: Problems, Methods, and Opportunities") print of methods and of
scores, to be shown beside our own where model and data are theirs. `evaluators.report.paper` has their costs.

Locality of ROME and MEMIT on GPT-J is 100 in the first version of the paper; a later one prints the numbers in
`TABLE_2_REVISED`.
"""

from __future__ import annotations

from typing import NamedTuple


class Property(NamedTuple):
    """A line of table 1, as printed: what a method needs, does and changes."""

    training: bool
    online: bool
    batch: bool
    area: str
    parameters: str
    efficient: bool


class Scores(NamedTuple):
    """Of one editor in table 2, in percent."""

    reliability: float
    generality: float
    locality: float


TABLE_1 = {
    "serac": Property(True, True, True, "external model", "counterfactual model + classifier", True),
    "calinet": Property(False, True, True, "FFN", "N neurons", True),
    "t-patcher": Property(False, False, False, "FFN", "N neurons", False),
    "ke": Property(True, True, True, "FFN", "hypernetwork + L x mlp", False),
    "mend": Property(True, True, True, "FFN", "hypernetwork + L x mlp", False),
    "kn": Property(False, True, False, "FFN", "L x neurons", True),
    "rome": Property(False, True, False, "FFN", "mlp_proj", True),
    "memit": Property(False, True, True, "FFN", "L x mlp_proj", True),
}
#: By data set, model and editor.
TABLE_2: dict[str, dict[str, dict[str, Scores]]] = {
    "zsre": {
        "t5-xl": {
            "ft": Scores(20.71, 19.68, 89.01), "serac": Scores(99.80, 99.66, 98.13),
            "calinet": Scores(5.17, 4.81, 72.47), "t-patcher": Scores(30.52, 30.53, 77.10),
            "ke": Scores(3.00, 5.40, 96.43), "mend": Scores(78.80, 89.80, 98.45), "kn": Scores(22.51, 22.70, 16.43)},
        "gpt-j": {
            "ft": Scores(54.70, 49.20, 37.24), "serac": Scores(90.16, 89.96, 99.90),
            "calinet": Scores(22.72, 0.12, 12.03), "t-patcher": Scores(97.12, 94.95, 96.24),
            "ke": Scores(6.60, 7.80, 94.18), "mend": Scores(45.60, 48.00, 88.21), "kn": Scores(11.34, 9.40, 90.03),
            "rome": Scores(99.18, 94.90, 100.00), "memit": Scores(99.23, 87.16, 100.00)}},
    "counterfact": {
        "t5-xl": {
            "ft": Scores(33.57, 23.54, 72.72), "serac": Scores(99.89, 98.71, 99.93),
            "calinet": Scores(7.76, 7.57, 27.75), "t-patcher": Scores(80.26, 21.73, 85.09),
            "ke": Scores(1.00, 1.40, 96.28), "mend": Scores(81.40, 93.40, 91.58), "kn": Scores(47.86, 46.78, 57.10)},
        "gpt-j": {
            "ft": Scores(99.90, 97.53, 1.02), "serac": Scores(99.78, 99.41, 98.89),
            "calinet": Scores(43.58, 0.66, 2.69), "t-patcher": Scores(100.00, 83.98, 8.37),
            "ke": Scores(13.40, 11.00, 94.38), "mend": Scores(73.80, 74.20, 93.75), "kn": Scores(1.66, 1.38, 58.28),
            "rome": Scores(99.80, 86.63, 100.00), "memit": Scores(99.90, 73.13, 100.00)}},
}
#: Locality on GPT-J in the later version, by data set and editor.
TABLE_2_REVISED = {"zsre": {"rome": 99.19, "memit": 99.62}, "counterfact": {"rome": 93.61, "memit": 97.17}}
#: Portability in percent, by data set, model and editor. CaliNET's 2.91 is printed as "291".
TABLE_3: dict[str, dict[str, dict[str, float]]] = {
    "zsre": {
        "t5-xl": {"ft": 1.34, "serac": 4.75, "calinet": 13.55, "t-patcher": 1.20, "ke": 7.08, "mend": 11.34,
                  "kn": 0.84},
        "gpt-j": {"ft": 1.94, "serac": 5.53, "calinet": 29.77, "t-patcher": 3.10, "ke": 0.37, "mend": 0.08,
                  "kn": 19.30, "rome": 50.91, "memit": 52.74}},
    "counterfact": {
        "t5-xl": {"ft": 1.50, "serac": 0.58, "calinet": 2.91, "t-patcher": 0.02, "ke": 10.03, "mend": 29.17,
                  "kn": 4.29},
        "gpt-j": {"ft": 6.29, "serac": 9.51, "calinet": 0.68, "t-patcher": 7.21, "ke": 0.00, "mend": 0.00, "kn": 6.12,
                  "rome": 46.49, "memit": 47.45}},
}


def published(aspect: str, dataset: str, model: str, editor: str) -> str:
    """What the paper prints in percent for `Reliability`, `Generality`, `Locality` or `Portability`; empty where it has
    no number."""
    if aspect == "Portability":
        value = TABLE_3.get(dataset, {}).get(model, {}).get(editor)
        return "" if value is None else f"{value:g}"
    scores = TABLE_2.get(dataset, {}).get(model, {}).get(editor)
    if scores is None:
        return ""
    revised = TABLE_2_REVISED[dataset].get(editor) if aspect == "Locality" and model == "gpt-j" else None
    return f"{getattr(scores, aspect.lower()):g}" + (f" (later {revised:g})" if revised is not None else "")
