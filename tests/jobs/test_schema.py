"""The JSON Schema of campaigns accepts what is right and refuses what is wrong; both files made of it are current."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from cluster.campaign.file import load_campaign
from editors.core.errors import InputError
from jobs import reference
from jobs.cli import app
from jobs.console import CAMPAIGNS, shipped_campaigns
from jobs.settings import TITLE, campaign_schema

FILE = CAMPAIGNS / "campaign.schema.json"
PAGE = Path(reference.__file__).with_name("REFERENCE.md")
RIGHT = {"name": "mine", "models": ["testbed-gptj"], "datasets": ["testbed-cloze"], "editors": ["identity", "ft"]}
FT = {"name": "ft", "config": {"layers": [1], "lr": 1e-3}}


@pytest.fixture(scope="module")
def validator():
    found = campaign_schema()
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


@pytest.mark.parametrize("path", sorted(CAMPAIGNS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_campaigns_are_right_and_name_the_schema(path, validator):
    text = path.read_text()
    assert text.startswith(f"# yaml-language-server: $schema={FILE.name}\n")
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize("change", [
    {}, {"editors": [FT]}, {"editors": [{"name": "memit", "config": {"contexts": [[10, 5]]}, "label": "mine"}]},
    {"protocols": ["single", {"name": "batch", "sizes": [1, 10]}, {"name": "sequential", "lengths": [1], "step": 1}]},
    {"measures": {"kl": True, "distracting": False, "generation": {"tokens": 5}}},
    {"datasets": [{"name": "mine", "path": "mine.json", "format": "edits"}]},
    {"models": [{"name": "mine", "path": "folder", "dtype": "bfloat16"}]},
    {"datasets": [{"name": "few", "built_in": "testbed-cloze", "limit": 3}]}, {"tags": {"study": "rates"}},
    {"sweep": {"editors.ft.lr": [1e-3, 1e-2], "seeds": [0, 1]}}, {"sweep": [{"editors.ft.lr": [1]}, {"orders": [1]}]},
    {"editors": [{"name": "memit", "statistics": {"tokens": 9}}, {"name": "ke", "training": {"limit": 9}}]},
    {"include": "quickstart"}, {"include": ["quickstart", "testbed"], "models": ["testbed-t5"]},
    {"scales": {"small": {"datasets": [{"name": "testbed-cloze", "limit": 5}], "chunk": 5}}}])
def test_what_a_campaign_may_say_is_right(change, validator, tmp_path):
    fields = {**RIGHT, **change}
    assert [error.message for error in validator.iter_errors(fields)] == []
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(fields))
    load_campaign(tmp_path / "mine.yaml", shipped=shipped_campaigns())


@pytest.mark.parametrize("change", [
    {"name": None}, {"chunks": 3}, {"chunk": 0}, {"seeds": []}, {"seeds": ["x"]}, {"models": []},
    {"models": [{"name": "mine", "dtype": "float8"}]}, {"datasets": ["testbed-close"]},
    {"datasets": [{"name": "testbed-cloze", "limits": 3}]}, {"editors": ["rom"]}, {"editors": [{"label": "no name"}]},
    {"protocols": ["batches"]}, {"protocols": ["batch"]}, {"protocols": [{"name": "batch"}]},
    {"protocols": [{"name": "single", "sizes": [1]}]}, {"measures": {"kll": True}},
    {"include": []}, {"include": 3}, {"sweep": {}}, {"sweep": []}, {"sweep": {"editors.ft.lr": []}},
    {"sweep": {"editors.ft.lr": 3}}, {"sweep": {"chunk": [1, 2]}}, {"sweep": {"editors.ft": [1]}}, {"tags": {"a": 1}},
    {"tags": ["a"]}, {"datasets": [{"name": "few", "built_in": "testbed-close"}]},
    {"measures": {"generation": {"tokens": 0}}}, {"workers": {"offload": "disk"}}, {"retries": {"max_task_errors": 0}}])
def test_what_a_campaign_may_not_say_is_wrong(change, validator, tmp_path):
    fields = {**RIGHT, **change}
    assert list(validator.iter_errors(fields))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(fields))
    with pytest.raises(InputError):
        campaign = load_campaign(tmp_path / "mine.yaml")
        for data in campaign.datasets:
            data.check_source()  # its name is looked up where it is read


@pytest.mark.parametrize("editor", [
    {"name": "ft", "config": {"layer": 1}}, {"name": "ft", "config": {"lr": "fast"}},
    {"name": "rome", "config": {"key": "newest"}}, {"name": "identity", "config": {"layers": [1]}}])
def test_the_settings_of_an_editor_are_those_of_its_method(editor, validator):
    assert list(validator.iter_errors({**RIGHT, "editors": [editor]}))


def test_a_campaign_that_includes_another_may_leave_out_what_that_has(validator):
    assert [error.message for error in validator.iter_errors({"include": "quickstart", "chunk": 5})] == []
    assert list(validator.iter_errors({"chunk": 5}))


def test_a_mistake_in_a_scale_is_found(validator):
    assert list(validator.iter_errors({**RIGHT, "scales": {"small": {"chunks": 5}}}))


def test_the_file_beside_the_campaigns_is_current():
    """`editfleet schema > jobs/campaigns/campaign.schema.json` writes it anew."""
    result = CliRunner().invoke(app, ["schema"])
    assert result.exit_code == 0 and json.loads(result.stdout)["title"] == TITLE
    assert result.stdout == FILE.read_text()


def test_the_reference_is_current():
    """`editfleet schema --markdown > jobs/REFERENCE.md` writes it anew."""
    assert CliRunner().invoke(app, ["schema", "--markdown"]).stdout == PAGE.read_text()


def test_every_setting_says_what_it_is():
    assert reference.undocumented() == []
