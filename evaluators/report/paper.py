"""What Yao et al. 2023 ("Editing Large Language Models: Problems, Methods, and Opportunities") print of the efficiency
of editing GPT-J, to be shown beside our own.

Table 4's machine is given as "one 2x V100 32G", Figure 5's as "3 x V100": whether one device or all of them worked for
an edit, and whether memory is one device's or the sum, is not said. Neither is Figure 5's unit; its axis ends at 70; as
the weights alone are 22.5 GiB in float32, GiB is likely. The labels of KE's and MEND's bars stand apart from them and
are taken in the order from top to bottom. Second labels (`FIGURE_5_TRAINING`) are read as where a bar ends with the
memory of training, as their sum with the first would leave the axis.
"""

from __future__ import annotations

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
