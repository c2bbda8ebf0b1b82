"""`--set`: one value in the place of the campaign's, by its address."""

from __future__ import annotations

import pytest

from cluster.campaign.file import load_campaign
from cluster.plan.planner import plan
from editors.core.errors import InputError

GOOD = """\
name: study
models: [testbed-gptj, {name: "v1.5", path: testbed-t5}]
datasets: [{name: testbed-cloze, limit: 4, models: [testbed-gptj]}]
editors:
  - identity
  - {name: ft, label: ft 0.5, config: {steps: 9}}
  - {name: ft, label: "ft 0.5.1"}
  - {name: rome, models: [testbed-gptj]}
protocols: [single, {name: batch, sizes: [2]}]
measures: {kl: true, generation: true}
scales:
  small: {chunk: 5}
"""
NINE = "[x, x, x, x, x, x, x, x, x]"


@pytest.fixture
def load(tmp_path):
    (tmp_path / "study.yaml").write_text(GOOD)
    return lambda *settings, **options: load_campaign(tmp_path / "study.yaml", settings=settings, **options)


@pytest.mark.parametrize(("setting", "found", "value"), [
    ("chunk=50", lambda campaign: campaign.chunk, 50),
    ("name='010'", lambda campaign: campaign.name, "010"),
    ("seeds=[3, 4]", lambda campaign: campaign.seeds, (3, 4)),
    ("statistics.tokens=7", lambda campaign: campaign.statistics.tokens, 7),
    ("workers.count=3", lambda campaign: campaign.workers.count, 3),
    ("workers={cpus: 2, threads: 2}", lambda campaign: campaign.workers.threads, 2),
    ("retries.max_task_errors=1", lambda campaign: campaign.retries.max_task_errors, 1),
    ("training.limit=9", lambda campaign: campaign.training.limit, 9),
    ("tags.who=anna", lambda campaign: campaign.tags, {"who": "anna"}),
    ("measures.generation.tokens=9",
     lambda campaign: {measure.name: measure for measure in campaign.measures}["generation"].tokens, 9),
    ("models.testbed-gptj.dtype=bfloat16", lambda campaign: campaign.models[0].dtype, "bfloat16"),
    ("models.v1.5.dtype=bfloat16", lambda campaign: campaign.models[1].dtype, "bfloat16"),
    ("datasets.testbed-cloze.limit=9", lambda campaign: campaign.datasets[0].limit, 9),
    ("datasets.testbed-cloze.models=null", lambda campaign: campaign.datasets[0].models, None),
    ("protocols.batch.sizes=[1, 3]", lambda campaign: campaign.protocols[1].counts, (1, 3)),
    ("editors.rome.layer=7", lambda campaign: campaign.editors[3].config, {"layer": 7}),
    ("editors.rome.config.layer=7", lambda campaign: campaign.editors[3].config, {"layer": 7}),
    ("editors.rome.config={lr: 1.0}", lambda campaign: campaign.editors[3].config, {"lr": 1.0}),
    ("editors.rome.label=x=y", lambda campaign: campaign.editors[3].label, "x=y"),
    ("editors.rome.statistics.tokens=3", lambda campaign: campaign.statistics_of(campaign.editors[3]).tokens, 3),
    ("editors.ft.steps=1", lambda campaign: [editor.config for editor in campaign.editors[1:3]], 2 * [{"steps": 1}]),
    ("editors.ft 0.5.steps=1", lambda campaign: [editor.config for editor in campaign.editors[1:3]],
     [{"steps": 1}, {}]),
    ("editors.ft 0.5.1.steps=1", lambda campaign: [editor.config for editor in campaign.editors[1:3]],
     [{"steps": 9}, {"steps": 1}]),
    ("editors.'ft 0.5'.steps=1", lambda campaign: [editor.config for editor in campaign.editors[1:3]],
     [{"steps": 1}, {}]),
    ("editors=[kn]", lambda campaign: [editor.name for editor in campaign.editors], ["kn"]),
    ("sweep={seeds: [7]}", lambda campaign: campaign.seeds, (7,)),
    ("sweep.editors.rome.layer=[1, 2]", lambda campaign: [editor.title for editor in campaign.editors[3:]],
     ["rome layer=1", "rome layer=2"]),
])
def test_a_value_is_put_where_its_address_leads(load, setting, found, value):
    assert found(load(setting)) == value
    assert found(load()) != value


def test_names_with_an_equals_sign_can_be_quoted(tmp_path):
    (tmp_path / "study.yaml").write_text(GOOD.replace("ft 0.5.1", "lr=0.5"))
    campaign = load_campaign(tmp_path / "study.yaml", settings=['editors."lr=0.5".steps=3'])
    assert campaign.editors[2].config == {"steps": 3} and campaign.editors[1].config == {"steps": 9}


def test_it_stands_over_scales_and_the_last_one_counts(load):
    assert load("chunk=6", scale="small").chunk == 6
    assert load("chunk=6", "chunk=7").chunk == 7


def test_paths_start_at_the_current_folder(load, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert load("datasets.testbed-cloze.path=cases.json").datasets[0].path == str(tmp_path / "here" / "cases.json")


@pytest.mark.parametrize(("settings", "parts"), [
    (["chunk"], ["--set chunk: expected ADDRESS=VALUE"]), (["=3"], ["--set =3: expected ADDRESS=VALUE"]),
    (["chunk="], ["--set chunk=: there is no value; `null` stands for none"]),
    (["chunk=many"], ["--set chunk=many: ", "valid integer"]), (["chunk=010"], ["--set chunk=010: YAML reads 010"]),
    (["chunk=1:30"], ["YAML reads 1:30"]), (["chunk=yes"], ["--set chunk=yes: a number is meant here, not true"]),
    (["chunk=[1"], ["--set chunk=[1: not valid YAML"]), (["chunks=3"], ["unknown field 'chunks'", "mean 'chunk'?"]),
    (["include=x"], ["unknown field 'include'"]), (["scales.small.chunk=3"], ["unknown field 'scales'"]),
    (["statistics.token=3"], ["--set statistics.token=3: unknown field 'token'", "Did you mean 'tokens'?"]),
    (["chunk.x=3"], ["chunk, with --set chunk.x=3: ", "valid integer"]),
    (["name.x=3"], ["--set name.x=3: 'x' cannot be set in ''study'', which is no mapping"]),
    (["models.gpt.dtype=float16"], ["unknown model of this campaign 'gpt'", "testbed-gptj"]),
    (["editors.romme.layer=3"], ["--set editors.romme.layer=3: unknown editor of this campaign 'romme'", "'rome'?"]),
    (["editors.rome=3"], ["'editors.rome' names no setting"]), (["editors.=3"], ["names no setting"]),
    (["editors.rome.=3"], ["names no setting"]), (["workers..count=3"], ["nothing between two dots"]),
    (["datasets.testbed-cloze.limits=3"], ["--set datasets.testbed-cloze.limits=3: unknown field", "mean 'limit'?"]),
    (["protocols.batch.sizes=[0]"], ["--set protocols.batch.sizes=[0], [0]: ", "got 0"]),
    (["protocols.sequential.lengths=[1]"], ["unknown protocol of this campaign 'sequential'"]),
    (["workers.threads=4"], ["with --set workers.threads=4: 'threads: 4' needs as many cores"]),
    (["tags.who=7"], ["--set tags.who=7: ", "valid string"]),
    (["sweep.editors.rome.layer=3"], ["--set sweep.editors.rome.layer=3: expected a list of one value or more"]),
    (["editors.rome.layer=3", "sweep={editors.rome.layer: [4]}"], ["--set editors.rome.layer=3 would change nothing"]),
    (["seeds=[3]", "sweep={seeds: [4]}"], ["--set seeds=[3] would change nothing"]),
    (["workers=&a [*a]"], ["--set workers=&a [*a]"]),
    ([f"tags=[&a {NINE}, &b {NINE.replace('x', '*a')}, &c {NINE.replace('x', '*b')}, &d {NINE.replace('x', '*c')}, "
      f"&e {NINE.replace('x', '*d')}, {NINE.replace('x', '*e')}]"], ["has more than 100,000 values"]),
    (["chunk=" + "1" * 500], ["a number of 500 digits is too large"]),
    (["data=https://me:hidden@host/x", "chunk=0"], ["--set chunk=0"]),
])
def test_what_cannot_be_set_is_refused(load, settings, parts):
    with pytest.raises(InputError) as error:
        load(*settings)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(("setting", "message"), [
    ("editors.rome.lr=fast", "^--set editors.rome.lr=fast: .*lr: Input should be a valid number"),
    ("editors.rome.lrr=1", "^--set editors.rome.lrr=1: .*unknown field 'lrr'. Did you mean 'lr'"),
    ("editors.rome.layer=99", r"study.yaml, line 8, editors\[3\], with .*--set editors.rome.layer=99: .*layer 99"),
    ("editors.rome.models=[x]", r"^--set editors.rome.models=\[x\]: unknown model of this campaign 'x'"),
])
def test_what_a_method_refuses_is_told_with_the_option(load, setting, message):
    campaign = load("models=[testbed-gptj]", "editors.rome.protocols=[single]", setting)
    with pytest.raises(InputError, match=message):
        plan(campaign)


def test_secrets_in_an_option_are_not_told(load):
    with pytest.raises(InputError) as error:
        load("data=[https://me:hidden@host/x]")
    assert "hidden" not in str(error.value) and "--set data=[https://***@host/x]" in str(error.value)
