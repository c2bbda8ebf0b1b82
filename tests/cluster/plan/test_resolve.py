"""Models are looked at before a cluster is started; what is not whole ends a command with code 2."""

from __future__ import annotations

import pytest

from cluster.driver import run_campaign
from cluster.store.store import Store
from editors.core.errors import InputError


def test_a_folder_that_is_not_whole_is_refused_where_the_campaign_names_it(make_plan, tiny_gptj, tmp_path):
    folder = tmp_path / "mine"
    tiny_gptj.module.save_pretrained(folder)
    tiny_gptj.tokenizer.save_pretrained(folder)
    models = [{"name": "mine", "path": str(folder)}]
    assert make_plan(models=models).tasks
    weights = (folder / "model.safetensors").read_bytes()
    for file, content, told in (("model.safetensors", weights[:-100], "'model.safetensors' is cut short or damaged"),
                                ("tokenizer.json", b"{", "its tokenizer cannot be read"),
                                ("config.json", b"{", "config.json")):
        whole = (folder / file).read_bytes()
        (folder / file).write_bytes(content)
        with pytest.raises(InputError, match=rf"line \d+, models\[0\]: cannot load model '{folder}': .*{told}"):
            make_plan(models=models)
        (folder / file).write_bytes(whole)


def test_settings_that_no_model_makes_right_are_told_before_one_is_looked_at(make_plan, tmp_path):
    models = [{"name": "mine", "path": str(tmp_path)}]  # which is none
    for config, told in (({"stpes": 2}, r"unknown field 'stpes'. Did you mean 'steps'"), ({"steps": "two"}, "steps: ")):
        with pytest.raises(InputError, match=rf"editors\[0\].*configuration of editor 'ft': {told}"):
            make_plan(models=models, editors=[{"name": "ft", "config": config}])
    with pytest.raises(InputError, match=r"models\[0\]"):  # what is missing may be in the model's preset
        make_plan(models=models, editors=[{"name": "ft", "config": {"steps": 2}}])


def test_a_t5_in_half_precision_is_refused(make_plan):
    with pytest.raises(InputError, match=r"models\[0\]: .*too large for float16; take 'dtype: bfloat16'"):
        make_plan(models=[{"name": "testbed-t5", "dtype": "float16"}], editors=["identity"])


def test_an_old_checkpoint_with_a_sentencepiece_tokenizer_is_edited(make_plan, old_t5_folder, tmp_path, local_pool):
    planned = make_plan(models=[{"name": "old", "path": str(old_t5_folder)}], statistics={},
                        datasets=[{"name": "testbed-questions", "limit": 2}],
                        editors=["identity", {"name": "ft", "config": {"layers": [2], "steps": 2}}])
    store = Store.create(tmp_path / "store")
    outcome = run_campaign(planned, store, local_pool(store))
    assert outcome.failed == 0 and outcome.done == len(planned.tasks)
    assert store.rows(store.campaigns()[0].tasks).num_rows
