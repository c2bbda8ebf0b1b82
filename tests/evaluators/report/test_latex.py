"""Tables as LaTeX: what is bold, what is escaped, and that TeX takes it."""

import math
import re
import shutil
import subprocess

import pytest

from evaluators.report.compare import Comparison
from evaluators.report.grids import Grid
from evaluators.report.latex import grids_to_latex, in_latex
from evaluators.report.tables import Summary, corrected, grids

TEX = shutil.which("pdflatex") or shutil.which("tectonic")
needs_tex = pytest.mark.skipif(TEX is None, reason="there is no pdflatex or tectonic here")
HOSTILE = ["\\input{/etc/passwd}", "a & b % c", "$x_1^2$ ~ #1 {}", "<script>|`'\"", "[1] *x* --- ,,",
           "\u05e9\u05dc\u05d5\u05dd \u202eevil", "\x1b[31mred\x07", "Łódź, Ångström, naïve, İstanbul",
           "\U0001f600 日本", "x" * 3000, "", "[", "*", "%", "\\\\[1em]", "\\end{tabular}",
           "\u201cquoted\u201d \u2013 it\u2019s \u2014 \u2026", "\ud800half"]


def summary(editor, metric, mean, edits=1):
    return Summary(editor, "m", "d", "single", edits, metric, mean, mean - 0.1, mean + 0.1, 7)


ROWS = [summary("identity", "reliability.exact", 0.9), summary("ft", "reliability.exact", 0.5),
        summary("rome", "reliability.exact", 0.75), summary("a_b", "reliability.exact", 0.75),
        summary("identity", "locality.exact", 1.0), summary("ft", "locality.exact", 0.25),
        summary("rome", "locality.exact", 0.125)]
GOLDEN = r"""% needs \usepackage[T1]{fontenc} and \usepackage{booktabs}; wide tables need \usepackage{graphicx}
\begin{table}[t]
  \centering\small
  \caption{model m, dataset d, protocol single, edits 1, shares in percent $\pm$ half the 95 \% confidence interval}
  \label{tab:editfleet-1}
  \begin{tabular}{@{}lrrr@{}}
    \toprule
    editor & cases & reliability.exact & locality.exact \\
    \midrule
    identity & $7$ & $90.0_{\pm 10.0}$ & $100.0_{\pm 10.0}$ \\
    a\_b & $7$ & $\mathbf{75.0}_{\pm 10.0}$ & - \\
    ft & $7$ & $50.0_{\pm 10.0}$ & $\mathbf{25.0}_{\pm 10.0}$ \\
    rome & $7$ & $\mathbf{75.0}_{\pm 10.0}$ & $12.5_{\pm 10.0}$ \\
    \bottomrule
  \end{tabular}
\end{table}
"""


def test_the_best_of_each_column_is_bold_but_never_the_unedited_model():
    assert grids_to_latex(grids(ROWS, "main")) == GOLDEN


def bold(rows, view="main"):
    return re.findall(r"mathbf\{([^}]*)\}", grids_to_latex(grids(rows, view)))


def test_the_best_is_of_its_setting_and_by_the_direction_of_its_metric():
    rows = [summary(editor, "reliability.exact", mean, edits)
            for edits, means in ((1, (0.5, 0.6)), (10, (0.4, 0.3)))
            for editor, mean in zip(("ft", "rome"), means, strict=True)]
    assert sorted(bold(rows)) == ["40.0", "60.0"]
    assert bold([summary("ft", "edit.diverged", 0.5), summary("rome", "edit.diverged", 0.25)], "all") == ["25.0"]
    assert bold([summary("ft", "reliability.exact", 0.5), summary("identity", "reliability.exact", 0.25)]) == []
    assert bold([summary("ft", "reliability.exact", 0.5), summary("rome", "reliability.exact", 0.5)]) == []  # equal
    assert bold([summary("ft", "reliability.exact", math.nan), summary("rome", "reliability.exact", 0.2)]) == ["20.0"]


def test_differences_show_p_and_powers_of_ten_are_set():
    rows = corrected([Comparison("ft", "m", "d", "single", 1, "reliability.exact", "identity", 0.5, 0.4, 0.6, 0.01, 9),
                      Comparison("ft", "m", "d", "single", 1, "locality.exact", "identity", -0.5, -0.6, -0.4, 1e-4, 9)],
                     "main")
    text = grids_to_latex(grids(rows, "main"))
    assert "$+50.0_{\\pm 10.0}$ ($p = 0.01$) & $-50.0_{\\pm 10.0}$ ($p = 0.0002$)" in text and "mathbf" not in text
    text = grids_to_latex([Grid("t", ["a", "b"], [["x", "2.5e+09 ±1.0e+08"], ["y", "inf"]], 1, "")])
    assert "$2.5 \\cdot 10^{9}_{\\pm 1.0 \\cdot 10^{8}}$" in text and "y & inf" in text


@pytest.mark.parametrize(("text", "found"), [
    ("a_b%c&d#e$f{g}", r"a\_b\%c\&d\#e\$f\{g\}"), ("\\^~", r"\textbackslash{}\textasciicircum{}\textasciitilde{}"),
    ("[x]*", "{[}x{]}{*}"), ("a--b---c", "a-{}-b-{}-{}-c"), ("<>|", r"\textless{}\textgreater{}\textbar{}"),
    ("é \u05d0 \u202e \x1b", r"é \textbackslash{}u05d0 \textbackslash{}u202e \textbackslash{}x1b"),
    ("a\nb", r"a\textbackslash{}nb")])
def test_texts_are_escaped(text, found):
    assert in_latex(text) == found


def hostile_grids():
    """Every text in every place that a grid has."""
    yield Grid("all", ["name", "value"], [[text, f"{number}.0 ±1.0"] for number, text in enumerate(HOSTILE)], 1, "")
    for text in HOSTILE:
        yield Grid(text, [text, text, text], [[text, text, "1.0 ±0.5"], ["x", text, text]], 1, text,
                   leads=frozenset({(0, 1), (0, 2)}), parts=(0, 1))


def test_hostile_texts_leave_the_structure_as_it_is():
    text = grids_to_latex(hostile_grids())
    lines = text.splitlines()
    assert lines.count("  \\begin{table}[t]") == 0 and lines.count("\\begin{table}[t]") == 1 + len(HOSTILE)
    assert sum(line.startswith("\\end{table}") for line in lines) == 1 + len(HOSTILE)
    assert not re.search("[\x00-\x09\x0b-\x1f\u0590-\u06ff\u202a-\u202e\ud800-\udfff]", text)
    body = [line for line in lines if line.endswith(r"\\")]
    assert len(body) == 1 + len(HOSTILE) + 3 * len(HOSTILE)
    assert all(len(re.findall(r"(?<!\\)&", line)) == (1 if number <= len(HOSTILE) else 2)
               for number, line in enumerate(body))


def compiled(folder, tables):
    """What TeX says of a page with these tables; it must take them."""
    document = ("\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage{booktabs,graphicx}\n"
                f"\\extrafloats{{200}}\n\\begin{{document}}\n{tables}\\end{{document}}\n")
    (folder / "t.tex").write_text(document, encoding="utf-8")
    quiet = ["-interaction=nonstopmode", "-halt-on-error", "-draftmode", "-no-shell-escape"]
    options = quiet if "pdflatex" in TEX else []
    ended = subprocess.run([TEX, *options, "t.tex"], cwd=folder, capture_output=True, timeout=120)
    said = ended.stdout.decode(errors="replace")
    assert ended.returncode == 0, said[-2000:]
    return said


@needs_tex
def test_tex_takes_it(tmp_path):
    compiled(tmp_path, grids_to_latex([*grids(ROWS, "main"), *grids(ROWS, "all"), *hostile_grids()]))


@needs_tex
@pytest.mark.parametrize("columns", range(1, 14))
@pytest.mark.parametrize("cell", ["1", "100", "100.0 ±0.0"])
def test_no_table_is_wider_than_the_page(tmp_path, columns, cell):
    grid = Grid("t", ["name", *["t-patcher"] * columns], [["employer", *[cell] * columns]], 1, "")
    assert "Overfull" not in compiled(tmp_path, grids_to_latex([grid]))
