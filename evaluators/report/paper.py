"""What Yao et al. 2023 ("Editing Large Language Models: Problems, Methods, and Opportunities") print, to be shown
beside our own: what methods need (table 1), scores in percent (tables 2 and 3), and the efficiency of editing GPT-J.
Figures 6 and 7 print no numbers.

Table 2's locality of ROME and MEMIT on GPT-J is 100 in the first version of the paper; its authors later print the
numbers in `TABLE_2_REVISED`. Table 3's 2.91 of CaliNET is printed as "291".

Table 4's machine is given as "one 2x V100 32G", Figure 5's as "3 x V100": whether one device or all of them worked for
an edit, and whether memory is one device's or the sum, is not said. Neither is Figure 5's unit; its axis ends at 70; as
the weights alone are 22.5 GiB in float32, GiB is likely. The labels of KE's and MEND's bars stand apart from them and
are taken in the order from top to bottom. Second labels (`FIGURE_5_TRAINING`) are read as where a bar ends with the
memory of training, as their sum with the first would leave the axis.
"""

from __future__ import annotations

from typing import NamedTuple

from evaluators.report.samples import ReportRow
from evaluators.report.stores import unlabelled


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


#: In the paper's order.
EDITORS = ("ft", "serac", "calinet", "t-patcher", "ke", "mend", "kn", "rome", "memit")
#: What its models may be called, their names on the hub last, and its data sets, in its order.
MODELS = {"t5-xl": ("t5-xl", "t5-xl-ssm-nq"), "gpt-j": ("gpt-j", "gpt-j-6b")}
DATASETS = ("zsre", "counterfact")
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
#: Portability in percent, by data set, model and editor.
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
#: Seconds for 10 edits: TABLE_4[data set][editor].
TABLE_4: dict[str, dict[str, float]] = {
    "counterfact": {"ft": 35.94, "serac": 5.31, "calinet": 1.88, "t-patcher": 1864.74, "ke": 2.20, "mend": 0.51,
                    "kn": 225.43, "rome": 147.2, "memit": 143.2},
    "zsre": {"ft": 58.86, "serac": 6.51, "calinet": 1.93, "t-patcher": 1825.15, "ke": 2.21, "mend": 0.52,
             "kn": 173.57, "rome": 183.0, "memit": 145.6},
}
#: GiB that editing took.
FIGURE_5: dict[str, float] = {"ft": 27.0, "serac": 33.2, "calinet": 24.9, "t-patcher": 34.0, "ke": 42.3, "mend": 59.4,
                              "kn": 30.6, "rome": 36.3, "memit": 40.1}
#: GiB with what training took, of those that are trained.
FIGURE_5_TRAINING: dict[str, float] = {"serac": 37.3, "ke": 45.5, "mend": 69.7}


class Printed(NamedTuple):
    """A number of the paper, in percent, and the one that a later version of it has instead."""

    value: float
    later: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.2f}" + (f" / {self.later:.2f}" if self.later is not None else "")


def papers_model(model: str) -> str | None:
    """Which of the paper's models a campaign's name of a model means: its name there, or on the hub."""
    name = unlabelled(model).rsplit("/", 1)[-1].lower()
    return next((papers for papers, names in MODELS.items() if name in names), None)


def papers_dataset(dataset: str) -> str | None:
    name = unlabelled(dataset)
    return name if name in DATASETS else None


def printed(heading: str, dataset: str, model: str, editor: str) -> Printed | None:
    """What tables 2 and 3 have for `Reliability`, `Generality`, `Locality` or `Portability` of an editor; None where
    there is no number, or model and data are not the paper's."""
    data, papers = papers_dataset(dataset), papers_model(model)
    if data is None or papers is None:
        return None
    if heading == "Portability":
        value = TABLE_3[data][papers].get(editor)
        return None if value is None else Printed(value)
    scores = TABLE_2[data][papers].get(editor)
    if scores is None or heading.lower() not in Scores._fields:
        return None
    revised = TABLE_2_REVISED[data].get(editor) if (heading, papers) == ("Locality", "gpt-j") else None
    return Printed(getattr(scores, heading.lower()), revised)


def printed_of(row: ReportRow, heading: str) -> Printed | None:
    """What stands beside one of our numbers: the paper's tables are of edits each on a model of its own."""
    if (row.protocol, row.edits) != ("single", 1):
        return None
    return printed(heading, row.dataset, row.model, row.editor)


def in_papers_order(editor: str) -> tuple[int, str]:
    """Sorts editors as the paper does, and others behind them."""
    return EDITORS.index(editor) if editor in EDITORS else len(EDITORS), editor
