"""Campaign files: what they may leave out, and what mistakes are answered with."""

from __future__ import annotations

import math
from itertools import pairwise
from textwrap import dedent

import pytest

from cluster.campaign.file import load_campaign
from editors.core.errors import InputError

GOOD = """\
name: study
models: [testbed-gptj]
datasets: [testbed-cloze]
editors: [identity, ft]
"""


@pytest.fixture
def load(tmp_path):
    def load(text, **options):
        path = tmp_path / "study.yaml"
        path.write_text(dedent(text))
        return load_campaign(path, **options)

    return load


def test_names_stand_for_mappings_and_the_rest_has_defaults(load):
    campaign = load(GOOD)
    assert [spec.name for spec in campaign.models] == ["testbed-gptj"]
    assert (campaign.models[0].dtype, campaign.datasets[0].split) == ("float32", "eval")
    assert [editor.title for editor in campaign.editors] == ["identity", "ft"]
    assert [protocol.name for protocol in campaign.protocols] == ["single"]
    assert (campaign.chunk, campaign.seeds, campaign.orders) == (25, (0,), (0,))
    assert (campaign.statistics.tokens, campaign.workers.cpus, campaign.workers.count) == (100_000, 1, None)


def test_retries_that_are_not_given_have_their_defaults(load):
    retries = load(GOOD + "retries: {max_task_errors: 1, no_worker_timeout: .inf}\n").retries
    assert (retries.max_task_errors, retries.max_worker_losses, retries.no_worker_timeout) == (1, 5, math.inf)


def test_a_label_lets_an_editor_run_twice(load):
    campaign = load(GOOD.replace("[identity, ft]", "[ft, {name: ft, label: ft-long, config: {steps: 99}}]"))
    assert [editor.title for editor in campaign.editors] == ["ft", "ft-long"]
    assert campaign.editors[1].config == {"steps": 99}


def test_protocols_with_their_numbers(load):
    campaign = load(GOOD + "protocols: [single, {name: batch, sizes: [10, 1]}, {name: sequential, lengths: [4]}]\n")
    assert [(protocol.name, protocol.counts) for protocol in campaign.protocols] == [
        ("single", (1,)), ("batch", (1, 10)), ("sequential", (4,))]


def test_paths_may_be_relative_to_the_file(load, tmp_path):
    (tmp_path / "mine").mkdir()
    for name in ("cases.json", "train.json", "mend.safetensors"):
        (tmp_path / name).write_text("[]")
    campaign = load("""\
        name: study
        models: [{name: a, path: mine}, {name: b, path: some/hub-name}]
        datasets: [{name: d, path: cases.json, train: train.json, format: counterfact}]
        editors: [{name: ft, artefact: mend.safetensors}]
        workers: {offload: nvme, nvme: not-yet/there}
        """)
    assert [spec.path for spec in campaign.models] == [str(tmp_path / "mine"), "some/hub-name"]
    assert campaign.datasets[0].path == str(tmp_path / "cases.json")
    assert campaign.datasets[0].train == str(tmp_path / "train.json")
    assert campaign.editors[0].artefact == str(tmp_path / "mend.safetensors")
    assert campaign.workers.nvme == str(tmp_path / "not-yet" / "there")


@pytest.mark.parametrize(("change", "line", "parts"), [
    (("chunk: 25", "chunks: 25"), 5, ["unknown field 'chunks'", "Did you mean 'chunk'?"]),
    (("chunk: 25", "chunk: 0"), 5, ["chunk", "greater than 0", "got 0"]),
    (("chunk: 25", "chunk: many"), 5, ["chunk", "got 'many'"]),
    (("chunk: 25", "name: again"), 5, ["'name' is written twice"]),
    (("name: study\n", ""), 1, ["name: this field is required"]),
    (("[identity, ft]", "[]"), 4, ["editors", "at least 1"]),
    (("[identity, ft]", "[identity, romme]"), 4, ["editors[1].name", "unknown editor 'romme'", "Did you mean 'rome'?"]),
    (("[identity, ft]", "[ft, ft]"), 4, ["editors", "'ft' is listed twice", "label"]),
    (("[identity, ft]", "[identity, 7]"), 4, ["editors[1]", "got 7"]),
    (("[identity, ft]", "\n- identity\n- {name: ft,\n   labels: x}"), 7, ["editors[1].labels", "mean 'label'?"]),
    (("[testbed-gptj]", "[{name: testbed-gptj, dtype: fp8}]"), 2, ["models[0].dtype", "float32", "got 'fp8'"]),
    (("[testbed-gptj]", "testbed-gptj"), 2, ["models", "got 'testbed-gptj'"]),
    (("[testbed-cloze]", "[{name: testbed-cloze, limit: -1}]"), 3, ["datasets[0].limit", "got -1"]),
    (("[testbed-cloze]", "[{name: testbed-cloze, splitt: eval}]"), 3, ["datasets[0]", "splitt", "'split'"]),
    (("chunk: 25", "protocols: [batches]"), 5, ["protocols[0]", "unknown protocol 'batches'", "Did you mean 'batch'?"]),
    (("chunk: 25", "protocols: [batch]"), 5, ["protocols[0]", "needs sizes", "{name: batch, sizes: [1, 10, 100]}"]),
    (("chunk: 25", "protocols: [{name: sequential, sizes: [3]}]"), 5, ["protocols[0].sizes", "unknown", "lengths"]),
    (("chunk: 25", "protocols: [{name: sequential}]"), 5, ["protocols[0]", "'sequential' needs lengths"]),
    (("chunk: 25", "protocols:\n- single\n- {name: batch, size: [3]}"), 7, ["protocols[1].size", "mean 'sizes'"]),
    (("chunk: 25", "protocols:\n- {name: batch,\n   sizes: [2, 0]}"), 7, ["protocols[0].sizes[1]", "got 0"]),
    (("chunk: 25", "protocols: [{name: batch, sizes: [2, 2]}]"), 5, ["protocols[0]", "twice: 2, 2"]),
    (("chunk: 25", "protocols: [single, single]"), 5, ["protocols", "'single' is listed twice"]),
    (("chunk: 25", "training: {limits: 3}"), 5, ["training.limits", "Did you mean 'limit'?"]),
    (("[testbed-cloze]", "[{name: testbed-cloze, model: [x]}]"), 3, ["datasets[0]", "'models'"]),
    (("ft]", "{name: ft, protocols: []}]"), 4, ["editors[1].protocols", "at least 1"]),
    (("[testbed-cloze]", "[{name: testbed-cloze, models: []}]"), 3, ["datasets[0].models", "at least 1"]),
    (("chunk: 25", "workers: {cpus: 0}"), 5, ["workers.cpus", "got 0"]),
    (("chunk: 25", "workers: {gpus: .inf}"), 5, ["workers.gpus", "finite"]),
    (("chunk: 25", "seeds: [99999999999999999999]"), 5, ["seeds[0]", "of 20 digits is too large"]),
    (("chunk: 25", "retries: {max_task_error: 1}"), 5, ["retries.max_task_error", "mean 'max_task_errors'?"]),
    (("chunk: 25", "retries:\n  max_task_errors: 1\n  max_node_losses: 0"), 7,
     ["retries.max_node_losses", "greater than 0", "got 0"]),
    (("chunk: 25", "retries: {no_worker_timeout: .nan}"), 5, ["retries.no_worker_timeout", "got nan"]),
    (("chunk: 25", "retries: 3"), 5, ["retries", "expected a mapping, got 3"]),
    (("name: study", "name: {{ x }}"), 1, ["a field's name must be a word"]),
    (("chunk: 25", "statistics:\n  token: 5"), 6, ["statistics.token", "Did you mean 'tokens'?"]),
    (("chunk: 25", "chunk: [1"), 6, ["not valid YAML"]),
    (("chunk: 25", "chunk: 2\tx: {"), 5, ["not valid YAML"]),
])
def test_mistakes_are_named_with_their_line(load, change, line, parts):
    with pytest.raises(InputError) as error:
        load((GOOD + "chunk: 25\n").replace(*change))
    message = str(error.value)
    assert f"study.yaml, line {line}" in message
    for part in parts:
        assert part in message


def test_all_mistakes_are_told_at_once(load):
    with pytest.raises(InputError) as error:
        load(GOOD.replace("ft", "fft").replace("name: study", "name: ''") + "chunk: x\n")
    assert len(str(error.value).splitlines()) == 3


@pytest.mark.parametrize(("text", "message"), [
    ("", "is empty"), ("# only a comment\n", "is empty"), ("- a\n- b\n", "expected a mapping"), ("study", "a mapping"),
    ("{1: 2}", "unknown field '1'"), ("a: &x [*x]", "study.yaml"),
    ("name: 2024-13-01", "not valid YAML")])
def test_files_that_are_no_campaign(load, text, message):
    with pytest.raises(InputError, match=message):
        load(text)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name, message in (("absent.yaml", "No such file"), (".", "Is a directory"), ("binary.yaml", "cannot read")):
        with pytest.raises(InputError, match=message):
            load_campaign(tmp_path / name)


def test_input_errors_get_their_place(load):
    campaign = load(GOOD)
    with pytest.raises(InputError, match=r"study.yaml, line 4, editors\[1\].config: wrong"), \
            campaign.at("editors", 1, "config"):
        raise InputError("wrong")


SCALED = GOOD + """\
chunk: 5
scales:
  small:
    models: [testbed-t5]
    datasets:
      - {name: testbed-questions, limit: 3}
"""


def test_a_scale_replaces_fields(load):
    plain, small = load(SCALED), load(SCALED, scale="small")
    assert [spec.name for spec in plain.models] == ["testbed-gptj"] and plain.chunk == small.chunk == 5
    assert [spec.name for spec in small.models] == ["testbed-t5"] and small.datasets[0].limit == 3
    assert small.editors == plain.editors


@pytest.mark.parametrize(("change", "scale", "parts"), [
    (("", ""), "smal", ["unknown scale 'smal'", "Did you mean 'small'?"]),
    (("limit: 3", "limit: 0"), "small", ["line 10", "datasets[0].limit", "got 0"]),
    (("models: [testbed-t5]", "model: [testbed-t5]"), "small", ["line 8", "unknown field 'model'"]),
    (("small:", "small: 3\n  more:"), "small", ["line 6", "scales"]),
])
def test_mistakes_in_a_scale_are_named_with_their_line(load, change, scale, parts):
    with pytest.raises(InputError) as error:
        load(SCALED.replace(*change), scale=scale)
    for part in parts:
        assert part in str(error.value)


def test_a_campaign_without_scales_says_so(load):
    with pytest.raises(InputError, match="unknown scale 'testbed'"):
        load(GOOD, scale="testbed")


def test_paths_of_data_sets_start_at_data(load, tmp_path):
    text = GOOD.replace("[testbed-cloze]", "[{name: d, path: in/cases.json, train: s3://bucket/train.json}]")
    elsewhere = load(text + "data: s3://bucket/data/\n").datasets[0]
    assert (elsewhere.path, elsewhere.train) == ("s3://bucket/data/in/cases.json", "s3://bucket/train.json")
    assert load(text, data="/given").datasets[0].path == "/given/in/cases.json"
    (tmp_path / "mine").mkdir()
    assert load(text + "data: mine\n").datasets[0].path == f"{tmp_path}/mine/in/cases.json"
    assert load(text + "data: mine\n", data="https://host/x").datasets[0].path == "https://host/x/in/cases.json"
    absolute = text.replace("in/cases.json", "/there/cases.json")
    assert load(absolute + "data: mine\n").datasets[0].path == "/there/cases.json"


@pytest.mark.parametrize(("field", "parts"), [
    ("seeds: []", ["seeds", "at least 1"]), ("seeds: [1, 1]", ["seeds", "twice"]), ("orders: [-1]", ["orders[0]"]),
    ("protocols: [{name: batch, sizes: [2], step: 2}]", ["protocols[0].step", "unknown field 'step'"]),
    ("measures: {generation: {token: 3}}", ["measures.generation.token", "Did you mean 'tokens'?"]),
    ("measures: {fluenc: true}", ["measures.fluenc", "unknown measure", "Did you mean 'fluency'?"]),
    ("measures: {1: true}", ["measures.1", "unknown measure '1'"]),
    ("measures: {kl: 3}", ["measures.kl", "expected true, false", "got 3"]),
    ("measures: {perplexity: {texts: 0}}", ["measures.perplexity.texts", "greater than 0", "got 0"]),
    ("protocols: [{name: single, sizes: [3]}]", ["protocols[0].sizes", "nothing to set here"]),
    ("measures: {generation: {template: x}}", ["template 'x'", "{prompt}"]),
    ("contradictions: keep", ["contradictions", "'exclude' or 'allow'"]),
])
def test_what_is_measured_and_repeated(load, field, parts):
    with pytest.raises(InputError) as error:
        load(f"{GOOD}{field}\n")
    for part in parts:
        assert part in str(error.value)


# --- numbers that are none, and files that would take for ever


@pytest.mark.parametrize(("written", "told"), [
    ("chunk: yes", "chunk: a number is meant here, not true"), ("chunk: 010", "YAML reads 010 as another number"),
    ("chunk: 1:30", "YAML reads 1:30 as another number"), ("chunk: 1e400", "got '1e400'"),
    ("chunk: 100000000000000000000", "chunk: a number of 21 digits is too large"),
    (f"chunk: 1{400 * '0'}", "chunk: a number of 401 digits is too large"),
    ("seeds: [true]", r"seeds\[0\]: a number is meant here, not true"),
    ("workers: {gpus: off}", "workers.gpus: a number is meant here, not false"),
    ("retries: {max_task_errors: true}", "retries.max_task_errors: a number is meant"),
    ("measures: {perplexity: {texts: true}}", "measures.perplexity.texts: a number is meant"),
    ("measures: {perplexity: {texts: 1000000000}}", "measures.perplexity.texts.*less than or equal to 100000"),
    ("statistics: {tokens: 1000000000000, shard: 1000}", "statistics: .*more than 10,000 tasks; raise 'shard'")])
def test_numbers_are_numbers_of_a_size_that_makes_sense(load, written, told):
    with pytest.raises(InputError, match=f"study.yaml, line 5.*{told}"):
        load(GOOD + written + "\n")


def test_names_that_yaml_takes_for_odd_numbers_can_be_quoted(load):
    assert load(GOOD.replace("study", "'010'")).name == "010"


def test_files_that_would_take_for_ever_are_refused(load, tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]", *(f"{name}: &{name} [{', '.join(9 * [f'*{before}'])}]"
                                                    for before, name in pairwise("abcdefgh"))]
    with pytest.raises(InputError, match="more than 100,000 values"):
        load(GOOD + "\n".join(lines))
    with pytest.raises(InputError, match=r"has 5,000,0\d\d bytes, and a campaign at most 4,000,000"):
        load(GOOD + "#" * 5_000_000)
    with pytest.raises(InputError, match=r"not valid YAML: .*5001 digits"):
        load(GOOD + "chunk: 1" + "0" * 5000)
