"""What workers read later is what was planned, or they refuse it by name; where it is, and where one stands, is no part
of what a task is."""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.campaigns import ROME

from cluster.campaign.file import load_campaign
from cluster.driver import run_campaign
from cluster.plan.planner import plan
from cluster.store.store import Store
from editors.core.artefacts import Artefact
from editors.core.errors import InputError
from editors.core.models.loading import model_digest

CASE = {"requested_rewrite": {"prompt": "{} lives in", "relation_id": "P1",
                              "target_true": {"str": "Vadolm", "id": "Q1"}},
        "paraphrase_prompts": ["They say Ann lives in"], "neighborhood_prompts": ["Bo lives in"],
        "attribute_prompts": [], "generation_prompts": ["Ann likes"]}
FILES = ("text.txt", "running.txt", "snippets.json", "learned.safetensors", "cases.json", "train.json",
         "model/model.safetensors", "model/config.json", "model/tokenizer.json")


@pytest.fixture(scope="module")
def original(tiny_folder, tmp_path_factory):
    """A folder with all kinds of files that a campaign can name."""
    folder = tmp_path_factory.mktemp("original")
    shutil.copytree(tiny_folder, folder / "model")
    (folder / "text.txt").write_text("Art paints a city.\nBo lives in Fuzoia.\n" * 40)
    (folder / "running.txt").write_text("Art paints a city.\nBo likes Fuzoia.\n")
    samples = [{"text": "Fuzoia is a city"}, {"text": "a city of trades"}]
    (folder / "snippets.json").write_text(json.dumps([{"relation_id": "P1", "target_id": "Q2", "samples": samples}]))
    (folder / "cases.json").write_text(json.dumps([case(0, "Ann"), case(1, "Cy")]))
    (folder / "train.json").write_text(json.dumps([case(2, "Di"), case(3, "Ed")]))
    Artefact("drilled", 1, {"width": 1}, model_digest(folder / "model"), {"learned": torch.tensor(2.0)}).save(
        folder / "learned.safetensors")
    (folder / "study.yaml").write_text(yaml.safe_dump({
        "name": "changed", "models": [{"name": "tiny", "path": "model"}],
        "datasets": [{"name": "mine", "path": "cases.json", "train": "train.json", "snippets": "snippets.json"}],
        "editors": ["identity", {"name": "rome", "config": ROME}, {"name": "drilled", "label": "trained"},
                    {"name": "drilled", "artefact": "learned.safetensors"}],
        "statistics": {"corpus": "text.txt", "tokens": 400}, 
        "measures": {"fluency": {"tokens": 12}, "perplexity": {"corpus": "running.txt", "texts": 2}}}))
    return folder


def case(number, subject):
    edit = CASE["requested_rewrite"] | {"subject": subject, "target_new": {"str": "Fuzoia", "id": "Q2"}}
    return {"case_id": number, **CASE, "requested_rewrite": edit}


def rows_of(planned, store):
    table = store.rows(planned.record(datetime.now(UTC)).tasks)
    return {(row["editor"], row["metric"], row["case_id"], row["task"]): (row["value"], row["texts"])
            for row in table.to_pylist()}


@pytest.fixture
def expected(original, tmp_path_factory, drilled, local_pool):
    """The rows that the campaign has where nothing changes."""
    planned, store = plan(load_campaign(original / "study.yaml")), Store.create(tmp_path_factory.mktemp("store"))
    assert run_campaign(planned, store, local_pool(store)).failed == 0
    return rows_of(planned, store)


def append(path):
    with path.open("ab") as file:
        file.write(b"\nmore")


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    path.write_bytes(content)


def swap(path):
    other = path.with_name("other" + path.suffix)
    shutil.copy(path, other)
    flip(other)
    os.replace(other, path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FILES), st.sampled_from([append, cut, flip, swap, Path.unlink]))
def test_numbers_are_those_of_the_plan_or_none(original, expected, drilled, local_pool, name, change):
    with TemporaryDirectory() as folder:
        here = shutil.copytree(original, Path(folder) / "study")
        planned = plan(load_campaign(here / "study.yaml"))
        change(here / name)
        store = Store.create(Path(folder) / "store")
        outcome = run_campaign(planned, store, local_pool(store))
        found = rows_of(planned, store)
        assert found.items() <= expected.items()
        if outcome.failed:
            reasons = [failure.reason for failure in store.standing(planned.record(datetime.now(UTC))).failures]
            assert any(str(here / name.partition("/")[0]) in reason for reason in reasons), reasons
        else:
            assert found == expected


def test_where_files_are_is_no_part_of_a_task(original, tmp_path, drilled, monkeypatch):
    shutil.copytree(original, tmp_path / "elsewhere" / "deep")
    here = set(plan(load_campaign(original / "study.yaml")).tasks)
    assert set(plan(load_campaign(tmp_path / "elsewhere" / "deep" / "study.yaml")).tasks) == here
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert set(plan(load_campaign("deep/study.yaml")).tasks) == here


@pytest.mark.parametrize("name", ["text.txt", "running.txt", "snippets.json", "cases.json", "learned.safetensors",
                                  "model"])
def test_files_of_the_current_folder_are_not_the_campaigns(original, tmp_path, drilled, monkeypatch, name):
    shutil.copytree(original, tmp_path / "study")
    (tmp_path / "study" / name).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    there = "in the current folder" if name == "model" else str(tmp_path / "study" / name)
    with pytest.raises(InputError, match=there):
        plan(load_campaign("study/study.yaml"))


@pytest.mark.parametrize(("place", "field"), [
    ("editors", {"editors": [{"name": "serac", "config": {"side_model": "side"}}]}),
    ("datasets", {"datasets": [{"name": "mine", "hub": "side"}], "editors": ["identity"]})])
def test_nor_are_its_folders_what_the_campaign_calls_by_name(original, tmp_path, monkeypatch, place, field):
    study = write_study(shutil.copytree(original, tmp_path / "study"), field)
    shutil.copytree(original / "model", tmp_path / "side")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"{place}\[0\].*'side' is not beside the campaign"):
        plan(load_campaign(study))


def write_study(folder, changes):
    study = yaml.safe_load((folder / "study.yaml").read_text())
    (folder / "study.yaml").write_text(yaml.safe_dump(study | changes))
    return folder / "study.yaml"


@pytest.fixture
def with_side(original, tmp_path):
    """Makes a folder with a campaign of an editor whose settings name a model."""
    def make(name):
        folder = shutil.copytree(original, tmp_path / name)
        shutil.copytree(folder / "model", folder / "side")
        write_study(folder, {"editors": [{"name": "serac", "config": {"side_model": "side"}}], "measures": {}})
        return folder

    return make


def test_a_side_model_counts_by_what_it_holds(with_side):
    one, two = (with_side(name) / "study.yaml" for name in ("one", "two"))
    same = set(plan(load_campaign(one)).tasks)
    assert set(plan(load_campaign(two)).tasks) == same
    flip(two.parent / "side" / "model.safetensors")
    assert set(plan(load_campaign(two)).tasks) != same


@pytest.mark.parametrize(("name", "change"), [("model.safetensors", flip), ("model.safetensors", Path.unlink),
                                              ("tokenizer.json", append)])
def test_a_side_model_that_has_changed_teaches_nothing(with_side, tmp_path, local_pool, name, change):
    folder = with_side("study")
    planned, store = plan(load_campaign(folder / "study.yaml")), Store.create(tmp_path / "store")
    change(folder / "side" / name)
    assert run_campaign(planned, store, local_pool(store)).failed
    assert not rows_of(planned, store)
    reasons = [failure.reason for failure in store.standing(planned.record(datetime.now(UTC))).failures]
    assert any(f"{folder / 'side'}' " in reason and "when the campaign was planned" in reason for reason in reasons)
