"""The lazy group: it knows its commands without importing them, and what is slow to import waits until it is needed."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from jobs import cli

HEAVY = ("torch", "transformers", "ray", "deepspeed")
PROGRAM = """
import sys
from typer.testing import CliRunner
from jobs.cli import app
result = CliRunner().invoke(app, sys.argv[2:])
print(result.exit_code, *sorted(set(sys.argv[1].split(",")) & set(sys.modules)))
"""


def loaded(heavy, *arguments):
    """The exit code of a command in a process of its own, and which of the modules it has loaded in the end."""
    result = subprocess.run([sys.executable, "-c", PROGRAM, ",".join(heavy), *map(str, arguments)], check=True,
                            capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)})
    code, *found = result.stdout.split()
    return int(code), found


def test_help_lists_every_command_and_loads_none():
    assert loaded([*HEAVY, "pydantic", "pyarrow", "yaml", *(f"jobs.{name}" for name in cli.COMMANDS)],
                  "--help") == (0, [])
    shown = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "200"}).stdout
    for name, entry in cli.COMMANDS.items():
        assert name in shown and entry.line in shown


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_alone_is_loaded_with_its_options(name):
    code, found = loaded([*HEAVY, *(f"jobs.{other}" for other in cli.COMMANDS)], name, "--help")
    assert (code, found) == (0, [f"jobs.{name}"])


@pytest.mark.parametrize("arguments", [("statu",), ("run", "quickstar"), ("plan", "quickstar"), ("run", "WRONG"),
                                       ("plan", "WRONG"), ("train", "WRONG", "--out", "x")])
def test_a_mistyped_name_is_told_before_anything_slow_is_loaded(arguments, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: wrong\nmodels: [testbed-gptj]\ndatasets: [testbed-cloze]\neditors: [rom]\n")
    arguments = [str(wrong) if argument == "WRONG" else argument for argument in arguments]
    assert loaded(HEAVY, *arguments) == (2, [])
    shown = CliRunner().invoke(cli.app, arguments).output
    assert "Did you mean 'rome'?" in shown or "Did you mean 'quickstart'?" in shown or "'status'?" in shown


def test_each_command_is_a_module_too(tmp_path):
    for name in cli.COMMANDS:
        assert isinstance(cli.load(name), typer.core.TyperCommand | typer.core.TyperGroup)
    result = subprocess.run([sys.executable, "-m", "jobs.status", str(tmp_path)], capture_output=True, text=True,
                            env={"PYTHONPATH": ":".join(sys.path)})
    assert result.returncode == 2 and result.stderr.startswith("Error: there is no store")


@pytest.mark.parametrize(("name", "argument"), [("report", "--format=\x1b[31mred"), ("plan", "--\x1b[2J"),
                                                ("portability", "\x1b]0;title")])
def test_modules_show_what_is_wrong_as_the_command_does(name, argument):
    by_name, by_module = (subprocess.run([sys.executable, "-m", *words, "x", argument], capture_output=True, text=True,
                                         env={"PYTHONPATH": ":".join(sys.path)})
                          for words in (("jobs.cli", name), (f"jobs.{name}",)))
    assert (by_module.returncode, by_module.stderr) == (by_name.returncode, by_name.stderr)
    assert by_module.returncode == 2 and "\x1b" not in by_module.stderr


def test_what_nobody_has_foreseen_is_told_in_a_line_below_its_traceback(monkeypatch, capsys):
    def fail(*_, **__):
        local = "of no interest"
        raise KeyError("\x1b[31mhttps://user:secret@host/", local)

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main("metrics")
    told = capsys.readouterr().err
    assert ended.value.code == 1 and told.startswith("Traceback (most recent call last):\n")
    assert told.splitlines()[-1].startswith("Error: unexpected KeyError: ('\\x1b[31mhttps://***@host/'")
    assert "secret" not in told and "\x1b" not in told and "local = " not in told.splitlines()[-1]


@pytest.mark.parametrize(("output", "code", "told"), [
    (">&-", 0, ""), ("> /dev/full", 1, "Error: cannot write: no space is left on a disk, or where the output goes\n")])
@pytest.mark.parametrize("arguments", ["--help", "metrics"])
def test_an_output_that_takes_nothing(arguments, output, code, told):
    command = f"{shlex.quote(sys.executable)} -m jobs.cli {arguments} {output}"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True,
                            env={"PYTHONPATH": ":".join(sys.path)})
    assert (result.returncode, result.stderr) == (code, told)


def test_a_reader_that_has_seen_enough_gets_no_traceback():
    command = f"{shlex.quote(sys.executable)} -m jobs.cli schema | head -c 1"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True,
                            env={"PYTHONPATH": ":".join(sys.path)})
    assert result.stdout == "{" and result.stderr == ""
