"""Texts that would move the cursor, change colours, turn the writing round, break a table or fill the screen are shown
as what they are, wherever they come from."""

from __future__ import annotations

import json
import logging
import re

import pytest
import yaml
from rich.console import Console
from support.chat_server import local_server, no_pauses  # noqa: F401 - fixtures
from typer.testing import CliRunner

from cluster.log import log_event, logging_to
from editors.core.printable import in_json, in_markdown, printable
from jobs.cli import app
from jobs.console import Screen
from jobs.progress import progress

NASTY = "\x1b[31mred\x07\x7f\x9b2J\u202eevil\u2066 | `a` <b> [/] [x](y)\r\n| c"
SHOWN = r"\x1b[31mred\x07\x7f\x9b2J\u202eevil\u2066 | `a` <b> [/] [x](y)\r\n| c"
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
LONG = "long " * 2000


def cases(nasty=NASTY):
    return [{"id": f"{number} {nasty}", "prompt": f"S{number} {nasty} lives in", "subject": f"S{number} {nasty}",
             "target_new": "Rome", "target_true": "Paris"} for number in range(2)] + [
            {"id": f"bad {nasty}", "prompt": "Nobody", "subject": f"{nasty}{LONG}", "target_new": "Rome"},
            {"id": LONG, "prompt": "Nobody", "subject": "Ann", "target_new": "Rome"}]


@pytest.fixture
def invoke(monkeypatch, local_pool, tmp_path):
    """Runs a command, and sees that it says nothing that a terminal obeys, and not too much."""
    monkeypatch.setattr("cluster.workers.pool.ray_pool",
                        lambda store, spec, address: local_pool(store, spec.count or 1)())
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert RAW.findall(result.stdout + result.stderr) == []
        assert max(map(len, (result.stdout + result.stderr).splitlines()), default=0) < 2000
        assert len(result.output) < 20_000
        return result

    return run


@pytest.fixture
def campaign(write_campaign, tmp_path):
    """Data, labels and names that are all of this kind."""
    (tmp_path / "cases.json").write_text(json.dumps(cases()))
    fields = yaml.safe_load(write_campaign().read_text())
    model = {"name": f"model {NASTY}", "path": fields["models"][0]["path"]}
    return write_campaign(
        name=f"small {NASTY}", models=[model], datasets=[{"name": f"data {NASTY}", "path": "cases.json"}],
        editors=["identity", {"name": "ft", "label": f"ft {NASTY}", "config": {"layers": [1], "steps": 1}},
                 {"name": "ft", "label": LONG, "config": {"layers": [1], "steps": 1}}])


def cells(line):
    """The cells of a line of a Markdown table, as GitHub's renderer divides it."""
    return re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]


def test_commands_show_names_and_data_as_they_are_and_markdown_keeps_its_columns(invoke, campaign, tmp_path):
    assert SHOWN in " ".join(invoke("plan", campaign).stdout.split("\n"))
    done = invoke("run", campaign, "--out", "store", "--log", "run.log")
    assert done.exit_code == 0 and SHOWN in done.stdout, done.output
    assert RAW.findall((tmp_path / "run.log").read_text(encoding="utf-8")) == []
    assert invoke("status", "store").exit_code == 0
    for more in ([], ["--all"], ["--versus", f"ft {NASTY}"]):
        assert invoke("report", "store", *more).exit_code == 0
        lines = invoke("report", "store", "--format", "markdown", *more).stdout.splitlines()
        table = [line for line in lines if line.startswith("|")]
        assert len(table) > 3 and len({len(cells(line)) for line in table}) == 1, table
        assert not re.search(r"(?<!\\)[`<]", "\n".join(lines))
    assert invoke("report", "store", "--figure", "figure.svg").exit_code == 0
    assert RAW.findall((tmp_path / "figure.svg").read_text(encoding="utf-8")) == []
    lines = CliRunner().invoke(app, ["report", "store", "--format", "json"]).stdout.splitlines()
    assert {json.loads(line)["editor"] for line in lines} == {"identity", f"ft {NASTY}", LONG}
    assert RAW.findall("".join(lines)) == []


def test_json_keeps_texts_as_they_are():
    value = {"editor": NASTY, "n": "\ud800"}
    assert json.loads(in_json(json.dumps(value, ensure_ascii=False))) == value
    assert RAW.findall(in_json(json.dumps(value, ensure_ascii=False))) == []


def test_errors_show_what_was_wrong_and_not_all_of_it(invoke, campaign, write_campaign, tmp_path):
    assert invoke("run", campaign, "--out", "store").exit_code == 0
    for changes in ({f"field {NASTY}": 1}, {"editors": [NASTY]}, {"editors": [LONG]}, {"models": [NASTY]},
                    {"datasets": [NASTY]}, {"datasets": [{"name": "d", NASTY: 1}]}, {"protocols": [NASTY]},
                    {"chunk": NASTY}, {"chunk": LONG}, {"measures": {NASTY: True}}, {"measures": {LONG: True}},
                    {"models": [{"name": NASTY, "path": "testbed-gptj"}, {"name": NASTY, "path": "testbed-gptj"}]},
                    {"editors": [{"name": "ft", "config": {NASTY: 1}}]}, {"statistics": {"corpus": NASTY}},
                    {"editors": [{"name": "ft", "protocols": [NASTY]}]}, {"datasets": [{"name": "d", "path": NASTY}]}):
        refused = invoke("plan", write_campaign(**changes))
        assert refused.exit_code == 2 and ("red" in refused.stderr or "long" in refused.stderr), refused.output
    for command in (["plan", NASTY], ["plan", LONG], ["audit", LONG], ["status", LONG], ["audit", NASTY],
                    ["status", NASTY], ["report", NASTY], [NASTY],
                    ["report", "store", "--versus", NASTY], ["report", "store", "--campaign", NASTY],
                    ["report", "store", "--format", NASTY], ["plan", "--workers", NASTY], ["plan", f"--{NASTY}", "x"],
                    ["export", "testbed-gptj", "--editor", NASTY, "--out", "x", "--data", "testbed-cloze"],
                    ["export", "testbed-gptj", "--editor", "ft", "--out", "x", "--data", "testbed-cloze", "--set",
                     NASTY],
                    ["audit", "testbed-cloze", "--format", NASTY], ["run", "quickstart", "--scale", NASTY]):
        assert invoke(*command).exit_code == 2, command


def test_audit_export_and_what_is_written_of_them(invoke, tmp_path):
    (tmp_path / "cases.json").write_text(json.dumps(cases()))
    assert invoke("audit", "cases.json", "--json", "audit.json", "--show", 5).exit_code == 0
    assert NASTY in json.loads((tmp_path / "audit.json").read_text())["skipped"][0]["case_id"]
    exported = invoke("export", "testbed-gptj", "--editor", "ft", "--data", "cases.json", "--out", "edited",
                      "--set", "steps=1")
    assert exported.exit_code == 0, exported.output
    card = (tmp_path / "edited/README.md").read_text(encoding="utf-8")
    assert RAW.findall(card) == [] and r"\<b>" in card and "<b>" not in card.replace(r"\<b>", "")


def test_replies_of_a_server_are_shown_as_they_are(invoke, server, sleeps, monkeypatch):
    for say in (NASTY, {"choices": [{"message": {"content": NASTY}}]}, {NASTY: 1}, LONG):
        server.say = lambda subject, altered, say=say: say
        built = invoke("portability", "build", "testbed-cloze", "--out", "made", "--endpoint", server.url, "--model",
                       NASTY + str(id(say)), "--subject-models", "testbed-gptj", "--limit", 1,
                       "--requests-per-minute", 1e6)
        assert built.exit_code == 0 and "with an answer of no use" in built.stdout, built.output


def test_progress_and_status_take_titles_as_texts(capsys):
    screen = Screen(force_terminal=True, width=200, markup=False, color_system=None)
    with progress(screen) as tell, screen.status(NASTY):
        tell(NASTY, 1, 2)
    assert SHOWN in capsys.readouterr().out and isinstance(screen, Console)


def test_a_log_line_is_one_printable_line(tmp_path):
    with logging_to(tmp_path / "log"):
        log_event("trouble", level=logging.WARNING, title=NASTY + "\ud800", reason=LONG)
    [line] = (tmp_path / "log").read_text(encoding="utf-8").split("\n")[:-1]
    assert RAW.findall(line) == [] and r"\u001b[31m" in line and len(line) < 1500


@pytest.mark.parametrize(("text", "shown"), [
    (NASTY, SHOWN), ("plain é 日本 \u200f", "plain é 日本 \u200f"), ("\ud800", "\\ud800"), ("a\tb", "a\\tb")])
def test_printable(text, shown):
    assert printable(text) == shown == printable(shown)


def test_long_texts_are_cut_in_the_middle_once():
    cut = printable("start" + LONG + "end", 80)
    assert cut.startswith("start") and cut.endswith("end") and len(cut) <= 80 and printable(cut, 80) == cut


@pytest.mark.parametrize(("text", "shown"), [
    ("a|b", r"a\|b"), (r"a\|b", r"a\\\|b"), ("`x` <b>", r"\`x\` \<b>"), ("[a](b)", r"[a\](b)"),
    ("t_patcher", "t_patcher"), ("_x_", r"\_x\_"), ("[ft]", "[ft]"), ("a\nb", r"a\\nb"), ("&lt; & b", r"\&lt; & b")])
def test_markdown(text, shown):
    assert in_markdown(text) == shown
