"""Campaigns that cannot be run, as `plan` refuses them: each with what is wrong and where."""

from __future__ import annotations

import pytest
from support.refusals import refused

MODELS = "models: [testbed-gptj]"
DATASETS = "datasets: [{name: testbed-cloze, limit: 2}]"
EDITORS = "editors: [identity, ft]"
GOOD = f"name: study\n{MODELS}\n{DATASETS}\n{EDITORS}\n"

# What stands in place of something in GOOD, or after it; and what the message has to name.
CHANGED = [
    (MODELS, "", ["models", "required"]),
    (DATASETS, "", ["datasets", "required"]),
    (EDITORS, "", ["editors", "required"]),
    ("name: study", "name: !!binary aGVsbG8=", ["line 1", "name", "!!binary"]),
    (MODELS, "models: !!set {testbed-gptj}", ["line 2", "models", "!!set"]),
    (MODELS, "models: []", ["line 2", "models", "at least 1"]),
    (MODELS, "models: testbed-gptj", ["line 2", "models"]),
    (MODELS, "models: {a: b}", ["line 2", "models"]),
    (MODELS, "models: null", ["line 2", "models"]),
    (MODELS, "models: [testbed-gpt]", ["line 2", "testbed-gpt", "Did you mean 'testbed-gptj'"]),
    (MODELS, "models: [testbed-gptj, testbed-gptj]", ["line 2", "testbed-gptj", "twice"]),
    (MODELS, "models: [{path: x}]", ["line 2", "models[0].name", "required"]),
    (MODELS, "models: [{name: m, path: nowhere/at/all}]", ["nowhere/at/all"]),
    (MODELS, "models: [{name: m, path: ''}]", ["models[0].path"]),
    (MODELS, "models: [{name: m, path: 3}]", ["models[0].path"]),
    (MODELS, "models: [{name: testbed-gptj, dtype: float8}]", ["models[0].dtype", "float8"]),
    (MODELS, "models: [{name: testbed-gptj, dtype: [float32]}]", ["models[0].dtype"]),
    (MODELS, "models: [{name: testbed-gptj, device: tpu}]", ["models[0]", "device"]),
    (MODELS, "models: [[testbed-gptj]]", ["models[0]"]),
    (MODELS, "models: [7]", ["models[0]"]),
    (DATASETS, "datasets: [testbed-clozes]", ["line 3", "testbed-clozes", "Did you mean 'testbed-cloze'"]),
    (DATASETS, "datasets: [{name: testbed-cloze, limit: 0}]", ["datasets[0].limit", "0"]),
    (DATASETS, "datasets: [{name: testbed-cloze, limit: -3}]", ["datasets[0].limit", "-3"]),
    (DATASETS, "datasets: [{name: testbed-cloze, limit: 1.5}]", ["datasets[0].limit", "1.5"]),
    (DATASETS, "datasets: [{name: testbed-cloze, limit: .nan}]", ["datasets[0].limit"]),
    (DATASETS, "datasets: [{name: testbed-cloze, limits: 2}]", ["datasets[0].limits", "Did you mean 'limit'"]),
    (DATASETS, "datasets: [{name: d, path: none.json}]", ["none.json"]),
    (DATASETS, "datasets: [{name: d, path: .}]", ["datasets[0]"]),
    (DATASETS, "datasets: [{name: d, path: none.json, format: zsr}]", ["zsr"]),
    (DATASETS, "datasets: [{name: d, path: 's3x://bucket/x.json'}]", ["s3x"]),
    (DATASETS, "datasets: [{name: testbed-cloze, models: [m]}]", ["models", "m"]),
    (DATASETS, "datasets: [{name: testbed-cloze}, {name: testbed-cloze}]", ["testbed-cloze", "twice"]),
    (EDITORS, "editors: [rom]", ["line 4", "rom", "Did you mean 'rome'"]),
    (EDITORS, "editors: [ft, ft]", ["ft", "twice"]),
    (EDITORS, "editors: [{name: ft, config: {lr: fast}}]", ["lr", "fast"]),
    (EDITORS, "editors: [{name: ft, config: {lr: -1}}]", ["lr", "-1"]),
    (EDITORS, "editors: [{name: ft, config: {lr: .inf}}]", ["lr"]),
    (EDITORS, "editors: [{name: ft, config: {step: 3}}]", ["step", "Did you mean 'steps'"]),
    (EDITORS, "editors: [{name: ft, config: {layers: [99]}}]", ["layer 99", "0 to 7"]),
    (EDITORS, "editors: [{name: ft, config: {layers: [-1]}}]", ["layer"]),
    (EDITORS, "editors: [{name: ft, config: {layers: []}}]", ["layers"]),
    (EDITORS, "editors: [{name: ft, config: {layers: [1, 1]}}]", ["a layer", "twice"]),
    (EDITORS, "editors: [{name: ft, config: [steps]}]", ["editors[0].config"]),
    (EDITORS, "editors: [{name: ft, protocols: [batch]}]", ["protocols", "batch"]),
    (EDITORS, "editors: [{name: ft, models: [other]}]", ["models", "other"]),
    (EDITORS, "editors: [{name: mend, artefact: none.safetensors}]", ["none.safetensors"]),
    (EDITORS, "editors: [{name: ft, artefact: none.safetensors}]", ["artefact"]),
    (EDITORS, "editors: [{name: ft, label: ''}, ft]", ["ft", "twice"]),
    (EDITORS, "editors: [{nme: ft}]", ["editors[0]", "nme"]),
    ("", "name: again\n", ["name", "twice"]),
    ("", "chunk: 0\n", ["line 5", "chunk", "0"]),
    ("", "chunk: many\n", ["line 5", "chunk", "many"]),
    ("", "chunk: []\n", ["line 5", "chunk"]),
    ("", "chunks: 3\n", ["line 5", "chunks", "Did you mean 'chunk'"]),
    ("", "seeds: 3\n", ["line 5", "seeds"]),
    ("", "seeds: [a]\n", ["seeds[0]"]),
    ("", "orders: [0, 0]\n", ["orders", "twice"]),
    ("", "protocols: [singel]\n", ["singel", "Did you mean 'single'"]),
    ("", "protocols: [batch]\n", ["batch", "sizes"]),
    ("", "protocols: [{name: batch, sizes: [0]}]\n", ["sizes", "0"]),
    ("", "protocols: [{name: batch, sizes: [5]}]\n", ["batch", "5"]),
    ("", "protocols: [{name: sequential, lengths: [3]}]\n", ["sequential", "3"]),
    ("", "protocols: [{name: sequential, lengths: 3}]\n", ["lengths"]),
    ("", "measures: [kl]\n", ["line 5", "measures"]),
    ("", "measures: {kl: maybe}\n", ["measures.kl", "maybe"]),
    ("", "measures: {perplexity: {corpus: none.txt}}\n", ["none.txt"]),
    ("", "statistics: {tokens: 0}\n", ["statistics.tokens", "0"]),
    ("", "statistics: {corpus: none.txt}\neditors: [rome]\n", ["editors", "twice"]),
    ("", "workers: 2\n", ["line 5", "workers"]),
    ("", "workers: {count: 0}\n", ["workers.count", "0"]),
    ("", "workers: {devices: 2, threads: 0}\n", ["workers.threads", "0"]),
    ("", "workers: {offload: gpu}\n", ["workers.offload", "gpu"]),
    ("", "workers: {offload: nvme}\n", ["nvme"]),
    ("", "retries: {no_worker_timeout: 0}\n", ["retries.no_worker_timeout", "0"]),
    ("", "contradictions: maybe\n", ["contradictions", "maybe"]),
    ("", "data: 7\n", ["data"]),
    ("", "training: {limit: 0}\n", ["training.limit", "0"]),
    ("", "scales: []\n", ["scales"]),
    ("", "? [a]\n: b\n", ["line 5"]),
    ("", "chunk: !!python/object/apply:os.system [ls]\n", ["line 5"]),
    ("", "chunk: &a {x: *a}\n", ["YAML"]),
    ("name: study", "name: ''", ["name"]),
    ("name: study", "name: [a]", ["line 1", "name"]),
    ("name: study", "\tname: study", ["YAML"]),
    ("name: study", "name: study: more", ["YAML"]),
]


def _title(value):
    return str(value).split("\n")[0][:40] or "after" if isinstance(value, str) else ""


@pytest.mark.parametrize(("old", "new", "parts"), CHANGED, ids=_title)
def test_a_campaign_that_cannot_be_run_is_refused(tmp_path, old, new, parts):
    (tmp_path / "study.yaml").write_text(GOOD.replace(old, new) if old else GOOD + new, encoding="utf-8")
    refused(["plan", tmp_path / "study.yaml"], parts)


def test_the_campaign_before_the_changes_is_none_of_these(tmp_path):
    (tmp_path / "study.yaml").write_text(GOOD)
    with pytest.raises(AssertionError, match=r"^None"):
        refused(["plan", tmp_path / "study.yaml"], [])


@pytest.mark.parametrize(("content", "part"), [
    (b"", "is empty"), (b"\xff\xfe\x00\x00", "cannot read"), (b"\x00\x01", "YAML"), (b"- a", "mapping"),
    (b"7", "mapping"), (b"%PDF-1.4", "YAML"), (b"a" * 5_000_000, "bytes"), (b"[" * 20_000, "YAML"),
    (b"{" * 3000 + b"}" * 3000, "YAML"), (b"name: \xe9", "cannot read"), (b"PK\x03\x04", "YAML")])
def test_a_file_that_is_no_campaign_is_refused(tmp_path, content, part):
    (tmp_path / "study.yaml").write_bytes(content)
    refused(["plan", tmp_path / "study.yaml"], [part, "study.yaml"])


@pytest.mark.parametrize("name", ["none.yaml", "quickstrat", "", ".", "a" * 5000, "a\0b"])
def test_a_campaign_that_is_not_there_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    refused(["plan", name], ["campaign"] if name != "." else [])


@pytest.mark.parametrize(("arguments", "parts"), [
    (["plan", "quickstart", "--scale", "small"], ["small"]),
    (["plan", "quickstart", "--workers", "0"], ["--workers"]),
    (["plan", "quickstart", "--workers", "many"], ["--workers"]),
    (["plan", "quickstart", "--out", ""], ["no place for a store"]),
    (["plan", "quickstart", "--out", "zip://x"], ["no place for a store"]),
    (["run", "quickstart", "--out", "/dev/null"], ["/dev/null"]),
    (["run", "quickstart", "--log", "/nowhere/log"], ["/nowhere/log"]),
    (["plan", "table2", "--data", "/nowhere"], ["/nowhere"]),
    (["train", "quickstart", "--out", "/dev/null/x"], ["/dev/null/x"]),
    (["pretrain", "gpt2", "--out", "x"], ["gpt2"]),
    (["plan"], ["campaign"]),
    (["plann", "quickstart"], ["plann"]),
    (["plan", "quickstart", "--ouput", "x"], ["--ouput"]),
])
def test_options_that_make_no_sense_are_refused(arguments, parts):
    refused(arguments, parts)
