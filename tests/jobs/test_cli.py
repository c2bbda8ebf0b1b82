"""The lazy group: it knows its commands without importing them, and what is slow to import waits until it is needed."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from jobs import cli

HEAVY = ("torch", "transformers", "ray", "deepspeed")
PROGRAM = """
import importlib, json, os, sys
from typer.testing import CliRunner
from jobs.cli import app
heavy, before, commands = json.loads(sys.argv[1])
for name in before:
    importlib.import_module(name)
for arguments in commands:
    if os.fork() == 0:
        result = CliRunner().invoke(app, arguments)
        print(json.dumps([result.exit_code, sorted(set(heavy) & set(sys.modules))]), flush=True)
        os._exit(0)
    os.wait()
"""


def loaded(heavy, *commands, before=("pydantic", "pyarrow", "yaml", "jobs.console")):
    """The exit code of each command in a process of its own, and which of the modules it has loaded in the end. The
    processes begin with the modules of `before`, which are loaded once for all."""
    result = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps([heavy, before, commands])], check=True,
                            capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)})
    return [tuple(json.loads(line)) for line in result.stdout.splitlines()]


def test_help_lists_every_command_and_loads_none():
    assert loaded([*HEAVY, "pydantic", "pyarrow", "yaml", *(f"jobs.{name}" for name in cli.COMMANDS)],
                  ["--help"], before=()) == [(0, [])]
    shown = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "200"}).stdout
    for name, entry in cli.COMMANDS.items():
        assert name in shown and entry.line in shown


def test_a_command_alone_is_loaded_with_its_options():
    found = loaded([*HEAVY, *(f"jobs.{name}" for name in cli.COMMANDS)], *([name, "--help"] for name in cli.COMMANDS))
    assert found == [(0, [f"jobs.{name}"]) for name in cli.COMMANDS]


def test_a_mistyped_name_is_told_before_anything_slow_is_loaded(tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: wrong\nmodels: [testbed-gptj]\ndatasets: [testbed-cloze]\neditors: [rom]\n")
    told = {("statu",): "status", ("run", "quickstar"): "quickstart", ("plan", "quickstar"): "quickstart",
            ("run", str(wrong)): "rome", ("plan", str(wrong)): "rome", ("train", str(wrong), "--out", "x"): "rome"}
    assert loaded(HEAVY, *told) == [(2, [])] * len(told)
    for arguments, meant in told.items():
        assert f"Did you mean '{meant}'?" in CliRunner().invoke(cli.app, arguments).output


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
