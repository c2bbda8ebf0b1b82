"""What editors/README.md shows, and the package's docstring, works."""

import doctest
import re
from pathlib import Path

import editors

ROOT = Path(__file__).parents[2]


def test_the_example_edits_one_row_and_not_the_other(tmp_path, monkeypatch, capsys):
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "editors" / "README.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "evaluators").symlink_to(ROOT / "evaluators")
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert capsys.readouterr().out.strip() == "tensor([ True, False])"
    assert (tmp_path / "edit.safetensors").exists()


def test_the_example_of_the_package_keeps_an_edit(monkeypatch):
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testmod(editors)
    assert failed == 0 and tried >= 10
