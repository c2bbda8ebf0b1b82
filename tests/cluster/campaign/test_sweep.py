"""What a campaign's `sweep` makes of its entries, and which sweeps are refused."""

from __future__ import annotations

import time
from itertools import pairwise, product

import pytest
import yaml

from cluster.campaign.file import load_campaign
from cluster.plan.planner import plan
from editors.core.errors import InputError

GOOD = """\
name: study
models: [testbed-gptj]
datasets: [{name: testbed-cloze, limit: 4}]
editors:
  - identity
  - {name: ft, config: {layers: [1], steps: 9}}
  - {name: rome, label: plain, protocols: [single]}
  - memit
protocols: [single, {name: batch, sizes: [2]}]
"""


@pytest.fixture
def load(tmp_path):
    def load(text, **options):
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return load_campaign(path, **options)

    return load


def sweep(**addresses):
    return GOOD + yaml.safe_dump({"sweep": addresses}, sort_keys=False)


def test_the_settings_of_an_entry_are_combined_and_entries_are_varied_apart(load):
    campaign = load(GOOD + """\
sweep:
  editors.ft.lr: [1.0e-4, 5.0e-4]
  editors.ft.steps: [5, 25]
  editors.plain.layer: [3, 4, 5]
  datasets.testbed-cloze.limit: [10, 100]
""")
    assert [editor.title for editor in campaign.editors] == [
        "identity", *(f"ft lr={lr} steps={steps}" for lr, steps in product(("0.0001", "0.0005"), (5, 25))),
        "plain layer=3", "plain layer=4", "plain layer=5", "memit"]
    assert campaign.editors[2].config == {"layers": [1], "lr": 1e-4, "steps": 25}  # one that is not swept stays
    assert campaign.editors[6].protocols == ("single",) and campaign.editors[6].config == {"layer": 4}
    assert [(data.name, data.built_in, data.limit) for data in campaign.datasets] == [
        ("testbed-cloze limit=10", "testbed-cloze", 10), ("testbed-cloze limit=100", "testbed-cloze", 100)]
    assert [tuple(point) for point in campaign.points][1:5:3] == [
        ("editors", "ft lr=0.0001 steps=25", "ft", {"lr": 1e-4, "steps": 25}),
        ("editors", "plain layer=3", "plain", {"layer": 3})]
    assert len(campaign.points) == 9


def test_grids_are_added_up(load):
    campaign = load(GOOD + """\
sweep:
  - {editors.ft.lr: [0.1], editors.ft.steps: [1, 2]}
  - {editors.ft.steps: [5], "editors.plain.layer": [3]}
""")
    assert [editor.title for editor in campaign.editors] == [
        "identity", "ft lr=0.1 steps=1", "ft lr=0.1 steps=2", "ft steps=5", "plain layer=3", "memit"]


def test_a_methods_name_means_all_editors_of_the_method(load):
    text = GOOD.replace("memit", "{name: rome, label: other, config: {steps: 2}}")
    campaign = load(text + "sweep: {editors.rome.layer: [1, 2]}")
    assert [editor.title for editor in campaign.editors][2:] == [
        "plain layer=1", "plain layer=2", "other layer=1", "other layer=2"]
    assert campaign.editors[-1].config == {"steps": 2, "layer": 2}


def test_lists_of_the_campaign_are_replaced(load):
    campaign = load(sweep(**{"seeds": [3, 4], "orders": [1], "protocols.batch.sizes": [1, 4]}))
    assert (campaign.seeds, campaign.orders) == ((3, 4), (1,))
    assert campaign.protocols[1].counts == (1, 4) and not campaign.points


def test_values_may_be_lists_and_numbers_as_texts_are_numbers(load):
    campaign = load(GOOD + "sweep: {editors.memit.layers: [[3, 4], [5]], editors.plain.kl: [1e-2, 1.0]}")
    assert [editor.title for editor in campaign.editors][2:] == [
        "plain kl=0.01", "plain kl=1", "memit layers=[3,4]", "memit layers=[5]"]


def test_what_is_kept_to_a_swept_model_is_kept_to_all_that_came_of_it(load):
    text = GOOD.replace("[testbed-gptj]", "[testbed-gptj, testbed-t5]").replace(
        "limit: 4", "limit: 4, models: [testbed-t5, testbed-gptj]")
    campaign = load(text + "sweep: {models.testbed-gptj.dtype: [float32, bfloat16]}")
    assert [(model.name, model.path, model.dtype) for model in campaign.models] == [
        ("testbed-gptj dtype=float32", "testbed-gptj", "float32"),
        ("testbed-gptj dtype=bfloat16", "testbed-gptj", "bfloat16"), ("testbed-t5", None, "float32")]
    assert campaign.datasets[0].models == ("testbed-t5", "testbed-gptj dtype=float32", "testbed-gptj dtype=bfloat16")


def test_secrets_are_in_no_name(load):
    campaign = load(sweep(**{"datasets.testbed-cloze.path": ["https://me:hidden@host/x.json"]}))
    assert "hidden" not in repr(campaign.points) and "hidden" not in campaign.datasets[0].name
    assert campaign.datasets[0].path == "https://me:hidden@host/x.json"


ROME = {"name": "rome", "config": {"layer": 1, "steps": 2, "contexts": [[2, 2]]}}
BY_HAND = {
    "editors": ({"editors.rome.lr": [0.1, 0.2], "editors.rome.statistics.tokens": [400, 500]},
                {"editors": ["identity", *(
                    {"name": "rome", "label": f"rome lr={lr} statistics.tokens={tokens}",
                     "config": {**ROME["config"], "lr": lr}, "statistics": {"tokens": tokens}}
                    for lr, tokens in product((0.1, 0.2), (400, 500)))]}),
    "data sets": ({"datasets.testbed-cloze.limit": [2, 3]},
                  {"datasets": [{"name": f"testbed-cloze limit={limit}", "built_in": "testbed-cloze", "limit": limit}
                                for limit in (2, 3)]}),
    "seeds and sizes": ({"seeds": [5, 6], "protocols.sequential.lengths": [2, 4]},
                        {"seeds": [5, 6], "protocols": ["single", {"name": "sequential", "lengths": [2, 4]}]}),
}


@pytest.mark.parametrize(("swept", "written"), BY_HAND.values(), ids=BY_HAND)
def test_tasks_are_those_of_the_campaign_written_out(make_plan, swept, written):
    fields = {"editors": ["identity", ROME], "protocols": ["single", {"name": "sequential", "lengths": [2]}]}
    by_hand = make_plan(**{**fields, **written})
    assert list(make_plan(**fields, sweep=swept).tasks) == list(by_hand.tasks)


def test_models_are_those_of_the_campaign_written_out(make_plan, tiny_folder):
    swept = make_plan(editors=["identity"], sweep={"models.tiny.dtype": ["float32", "bfloat16"]})
    by_hand = make_plan(editors=["identity"], models=[
        {"name": f"tiny dtype={dtype}", "path": str(tiny_folder), "dtype": dtype} for dtype in ("float32", "bfloat16")])
    assert list(swept.tasks) == list(by_hand.tasks)


def test_training_can_be_swept(make_plan, drilled):
    planned = make_plan(editors=["drilled"], sweep={"editors.drilled.training.limit": [2, 3]})
    assert [len(task.cases.cases) for task in planned.tasks.values() if task.kind == "train"] == [2, 3]


def test_an_editors_statistics_stand_over_the_campaigns(make_plan, tmp_path):
    (tmp_path / "text.txt").write_text("A text.\n" * 90)
    planned = make_plan(editors=[ROME, {**ROME, "label": "own", "statistics": {"corpus": "text.txt"}}])
    tasks = [task for task in planned.tasks.values() if task.kind == "statistics"]
    assert [(task.corpus, task.tokens) for task in tasks] == [("testbed", 500), (str(tmp_path / "text.txt"), 500)]


WRONG = {
    "sweep: 3": ["line 10", "sweep: expected a mapping from addresses to lists"],
    "sweep: {}": ["line 10", "expected a mapping"],
    "sweep: []": ["line 10", "the list is empty"],
    "sweep: [3]": ["line 10", "sweep[0]: expected a mapping"],
    "sweep:\n  - seeds: [1]\n  - {}": ["line 12", "sweep[1]: expected a mapping"],
    "sweep:\n  editors.ft.lr: 0.1": ["line 11", "sweep.editors.ft.lr: expected a list of one value or more", "0.1"],
    "sweep: {editors.ft.lr: []}": ["expected a list of one value or more, got '[]'"],
    "sweep: {editors.ft.lr: {a: 1}}": ["expected a list of one value or more"],
    "sweep: {editors.ft.lr: [1.0e-3, 0.1, 1e-3]}": ["0.001 is listed twice"],
    "sweep: {editors.ft.lr: [1, 1.0]}": ["1 is listed twice"],
    "sweep:\n  seeds: [1]\n  editor.ft.lr: [1]": ["line 12", "unknown field 'editor'", "Did you mean 'editors'?"],
    "sweep: {editors.ftt.lr: [1]}": ["unknown editor of this campaign 'ftt'", "Did you mean 'ft'?"],
    "sweep: {editors.ft: [1]}": ["'editors.ft' names no setting"],
    "sweep: {editors: [1]}": ["'editors' holds for the whole campaign"],
    "sweep: {editors.ft..lr: [1]}": ["'editors.ft..lr' has nothing between two dots"],
    "sweep: {'': [1]}": ["unknown field ''"],
    "sweep: {7: [1]}": ["unknown field '7'"],
    "sweep: {editors.ft.label: [a]}": ["'label' cannot be swept"],
    "sweep: {models.testbed-gptj.name: [a]}": ["'name' cannot be swept"],
    "sweep: {datasets.testbed-clozes.limit: [1]}": ["unknown dataset of this campaign", "mean 'testbed-cloze'"],
    "sweep: {datasets.testbed-cloze.limits: [1]}": ["datasets.testbed-cloze.limits[0]: unknown field 'limits'"],
    "sweep:\n  datasets.testbed-cloze.limit:\n    - 1\n    - 0": ["line 13", "limit[1]: Input should be", "got 0"],
    "sweep: {models.testbed-gptj.dtype: [fp8]}": ["sweep.models.testbed-gptj.dtype[0]", "got 'fp8'"],
    "sweep: {protocols.batch.step: [1]}": ["only the numbers of a protocol", "'sizes'", "--set protocols.batch.step="],
    "sweep: {protocols.single.x: [1]}": ["'single' has none"],
    "sweep: {protocols.batch.sizes: [0]}": ["sweep.protocols.batch.sizes[0]", "got 0"],
    "sweep: {protocols.bath.sizes: [1]}": ["unknown protocol of this campaign 'bath'", "Did you mean 'batch'?"],
    "sweep: {statistics.tokens: [1, 2]}": ["for an editor, as editors.NAME.statistics.tokens"],
    "sweep: {training.limit: [1, 2]}": ["as editors.NAME.training.limit"],
    "sweep: {chunk: [1, 2]}": ["'chunk' holds for the whole campaign", "--set chunk=..., and a store each"],
    "sweep: {workers.threads: [1, 2]}": ["'workers.threads' holds for the whole campaign"],
    "sweep: {measures.kl: [true]}": ["'measures.kl' holds for the whole campaign"],
    "sweep: {seeds: [a]}": ["sweep.seeds[0]", "got 'a'"],
    "sweep: {seeds: [1, 1]}": ["1 is listed twice"],
    "sweep: [{seeds: [1]}, {seeds: [2]}]": ["sweep[1].seeds: it is swept twice"],
    "sweep: {editors.ft.lr: [1], editors.ft.config.lr: [2]}": ["'lr' and 'lr' set the same thing"],
    "sweep: {editors.ft.config: [{}], editors.ft.lr: [2]}": ["'lr' and 'config' set the same thing"],
    "sweep: [{editors.ft.lr: [1]}, {editors.ft.lr: [1, 2]}]": ["'ft lr=1' comes of two grids"],
    "sweep: {editors.ft.models.x: [1]}": ["sweep.editors.ft.models.x[0]"],
    "sweep: {editors.ft.statistics.token: [1]}": ["sweep.editors.ft.statistics.token[0]", "Did you mean 'tokens'?"],
    f"sweep: {{editors.ft.lr: {list(range(40))}, editors.ft.steps: {list(range(40))}}}": ["these are 1,600 points"],
    f"sweep: {{editors.ft.objective: [{'x' * 300}]}}": ["is a name of 313 characters"],
    f"sweep: {{editors.ft.lr: [{10**30}]}}": ["a number is too large"],
    "sweep: {editors.ft.lr: [010]}": ["line 10", "YAML reads 010 as another number"],
    "sweep: {seeds: [1], seeds: [2]}": ["line 10", "'seeds' is written twice"],
}


@pytest.mark.parametrize(("written", "parts"), WRONG.items(), ids=lambda part: str(part)[:50].replace("\n", " "))
def test_a_sweep_that_makes_no_sense_is_refused(load, written, parts):
    with pytest.raises(InputError) as error:
        load(GOOD + written + "\n")
    assert str(error.value).count("study.yaml") >= 1
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(("address", "values", "message"), [
    ("editors.ft.lr", ["fast"], r"line 11, sweep.editors.ft.lr\[0\]: .*lr: Input should be a valid number"),
    ("editors.ft.lrr", [0.1], r"line 11, sweep.editors.ft.lrr\[0\]: .*unknown field 'lrr'. Did you mean 'lr'"),
    ("editors.plain.layer", [99], r"line 7, editors\[2\], with .*line 11, sweep.editors.plain.layer\[0\]: .*layer 99"),
    ("editors.memit.artefact", ["x"], r"line 11, sweep.editors.memit.artefact\[0\]: editor 'memit' is not trained"),
    ("editors.memit.statistics.corpus", ["none.txt"], r"line 11, sweep.editors.memit.statistics.corpus\[0\]: .*none"),
    ("editors.memit.statistics.shard", [1], r"line 11, sweep.editors.memit.statistics.shard\[0\]: .*raise 'shard'"),
])
def test_what_a_method_refuses_is_told_with_its_place_in_the_sweep(load, address, values, message):
    campaign = load(f"{GOOD}sweep:\n  {address}: {values}\n")
    with pytest.raises(InputError, match=message):
        plan(campaign)


def test_a_sweep_that_would_take_for_ever_is_refused(load):
    """A large entry that is repeated, and products of lists that no machine can hold."""
    nine = "[x, x, x, x, x, x, x, x, x]"
    bomb = [f"  a: &a {nine}", *(f"  {name}: &{name} [{', '.join(9 * [f'*{before}'])}]"
                                 for before, name in pairwise("abcd"))]
    lines = ["  - name: memit", "    config:", *(f"    {line}" for line in bomb), ""]
    text = GOOD.replace("  - memit\n", "\n".join(lines))
    with pytest.raises(InputError, match=r"sweep has more than 100,000 values"):
        load(text + f"sweep: {{editors.memit.layer: {list(range(200))}}}\n")
    ones = list(range(100))
    started = time.process_time()
    with pytest.raises(InputError, match="points, and a campaign has 1,000 at most"):
        load(sweep(**{f"editors.ft.{name}": ones for name in "abcdefghijklmnop"}))
    assert time.process_time() - started < 5


def test_the_largest_sweep_is_made_at_once(load):
    started = time.process_time()
    campaign = load(sweep(**{"editors.ft.lr": list(range(1, 41)), "editors.ft.steps": list(range(1, 26))}))
    assert len(campaign.points) == 1000 and time.process_time() - started < 10
