"""Data, models, artefacts, patches and stores that cannot be used: commands say which file, and what is wrong."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.refusals import refused

from cluster.store.store import Store
from editors.core.patches.patch import LowRank, Patch

EDIT = {"prompt": "Ann lives in", "subject": "Ann", "target_new": "Omerga", "ground_truth": "Vard"}
CAMPAIGN = "name: s\nmodels: [testbed-gptj]\ndatasets: [{{name: mine, path: {}}}]\neditors: [identity]\n"
LINES = "\n".join(json.dumps({**EDIT, "case_id": number}) for number in range(3))


def _data(content, name="d.json"):
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    return pytest.param(content, name, id=f"{name} {str(content)[:24]}")


EXPORT = ["export", "testbed-gptj", "--out", "OUT", "--data", "testbed-cloze"]

DATA = [
    _data(b""), _data(b"\n \n"), _data(b"null"), _data(b"7"), _data(b'"text"'), _data([]), _data({}), _data([[]]),
    _data(b"[null, null]"), _data(b'["a", "b"]'), _data(b"[1, 2, 3]"), _data(b'[{"a": 1}]'), _data(b"[{}]"),
    _data(LINES.encode()[:-3]), _data(b"[" + LINES.encode().replace(b"\n", b",")), _data(b"\xff\xfe\xfd"),
    _data(b"\x00" * 1000), _data(b"\x89PNG\r\n\x1a\n"), _data(b"<html>not found</html>"), _data(b"[" * 100_000),
    _data(b"[" * 500 + b"]" * 500), _data(b'{"a": ' * 500 + b"1" + b"}" * 500), _data(b"1" * 10_000),
    _data(b"not JSON", "d.jsonl"), _data(b"[1]\n[2]", "d.jsonl"), _data(b"{}\n{}", "d.jsonl"), _data(b"", "d.jsonl"),
    _data(b"a,b\n1,2\n", "d.csv"), _data(b"", "d.csv"), _data(b'"open', "d.csv"), _data(b"x", "d.txt"),
    _data(b"x", "d"), _data(b"PAR1 and no more", "d.parquet"), _data(b"", "d.parquet"), _data(b"x", "d.arrow"),
    _data(b"not gzip", "d.json.gz"), _data(gzip.compress(LINES.encode(), mtime=0)[:-20], "d.json.gz"),
    _data(gzip.compress(b"", mtime=0), "d.json.gz"), _data(b"not a zip", "d.json.zip"),
    _data(b"PK\x03\x04", "d.json.zip"),
    _data([{**EDIT, "case_id": 1, "target_new": ""}]), _data([{**EDIT, "case_id": 1, "subject": "Bo"}]),
    _data([{**EDIT, "case_id": 1, "prompt": 7}]), _data([{**EDIT, "case_id": 1, "target_new": None}] * 3),
    _data([{**EDIT, "case_id": 1, "target_new": EDIT["ground_truth"]}]),
]


@pytest.mark.parametrize(("content", "name"), DATA)
@pytest.mark.parametrize("command", ["plan", "audit"])
def test_data_that_has_no_case_is_refused(tmp_path, content, name, command):
    (tmp_path / name).write_bytes(content)
    campaign = tmp_path / "study.yaml"
    campaign.write_text(CAMPAIGN.format(name))
    if command == "plan":
        refused(["plan", campaign], ["study.yaml, line 3, datasets[0]"])
    else:
        refused(["audit", tmp_path / name], [name])


@pytest.mark.parametrize(("arguments", "parts"), [
    (["audit", "nowhere.json"], ["nowhere.json"]),
    (["audit", "testbed-clozes"], ["Did you mean 'testbed-cloze'"]),
    (["audit", "testbed-cloze", "--format", "zsr"], ["zsr", "Did you mean 'zsre'"]),
    (["audit", "testbed-cloze", "--target", "alts"], ["alts"]),
    (["audit", "testbed-cloze", "--model", "testbed-gpt"], ["Did you mean 'testbed-gptj'"]),
    (["audit", "testbed-cloze", "--json", "/nowhere/x.json"], ["/nowhere/x.json"]),
    (["audit", "testbed-cloze", "--train", "/nowhere.json"], ["/nowhere.json"]),
    (["audit", "ftp://127.0.0.1:1/x.json"], ["ftp://127.0.0.1:1/x.json"]),
    (["audit", "https://127.0.0.1:1/x.json"], ["https://127.0.0.1:1/x.json"]),
    (["audit", "x://y/z.json"], ["x://y/z.json"]),
    (["audit", "."], ["."]),
    (["audit", ""], []),
    (["export", "testbed-gptj", "--out", "/dev/null/x", "--editor", "ft", "--data", "testbed-cloze"], ["/dev/null/x"]),
    (["export", "testbed-gptj", "--out", "OUT"], ["--data", "--prompt"]),
    (["export", "testbed-gptj", "--out", "OUT", "--editor", "ft"], ["--data", "--prompt"]),
    (["export", "testbed-gptj", "--out", "OUT", "--editor", "ft", "--prompt", "A b", "--subject", "c", "--target", "d"],
     ["'c'"]),
    ([*EXPORT, "--editor", "ft", "--set", "steps"], ["steps"]),
    ([*EXPORT, "--editor", "ft", "--set", "step=1"], ["Did you mean 'steps'"]),
    ([*EXPORT, "--editor", "ft", "--device", "tpu"], ["tpu"]),
    ([*EXPORT, "--editor", "mend", "--artefact", "x"], ["x"]),
    (["export", "testbed-gptj", "--out", "OUT", "--patch", "none.safetensors"], ["none.safetensors"]),
    (["harness", "testbed-gptj", "--tasks", "none", "--out", "/nowhere/x.json"], ["/nowhere/x.json"]),
    (["portability", "build", "testbed-cloze", "--out", "OUT", "--endpoint", "host", "--model", "m",
      "--subject-models", "testbed-gptj"], ["host"]),
    (["portability", "export", "/nowhere"], ["/nowhere"]),
    (["portability", "import", "/nowhere"], ["/nowhere"]),
    (["report", "/nowhere"], ["/nowhere"]),
    (["report", "."], ["."]),
    (["report", ""], ["no place for a store"]),
    (["report", "zip://x"], ["no place for a store"]),
    (["status", "/nowhere"], ["/nowhere"]),
    (["status", "s3x://a/b"], ["s3x://a/b"]),
])
def test_names_of_nothing_are_refused(tmp_path, monkeypatch, arguments, parts):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    refused([tmp_path / "out" if argument == "OUT" else argument for argument in arguments], parts)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


# --- models


def _write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def _drop(name):
    return lambda folder: (folder / name).unlink()


MODELS = {
    "no configuration": _drop("config.json"), "no weights": _drop("model.safetensors"),
    "no tokenizer": lambda folder: [file.unlink() for file in folder.glob("*token*")],
    "empty configuration": _write("config.json", b""), "configuration no object": _write("config.json", b"[]"),
    "configuration no JSON": _write("config.json", b"{"), "configuration of nothing": _write("config.json", b"{}"),
    "unknown type": _write("config.json", b'{"model_type": "nothing"}'),
    "type of another kind": _write("config.json", b'{"model_type": "vit"}'),
    "empty weights": _write("model.safetensors", b""), "weights no weights": _write("model.safetensors", b"x" * 1000),
    "weights cut short": lambda folder: (folder / "model.safetensors").write_bytes(
        (folder / "model.safetensors").read_bytes()[:-100]),
    "weights of nothing": lambda folder: save_file({}, folder / "model.safetensors"),
    "weights of another": lambda folder: save_file({"w": torch.zeros(2)}, folder / "model.safetensors"),
    "tokenizer no JSON": _write("tokenizer.json", b"{"), "tokenizer empty": _write("tokenizer.json", b""),
    "tokenizer of nothing": _write("tokenizer.json", b"{}"),
    "adapter beside": _write("adapter_config.json", b'{"peft_type": "LORA"}'),
}


@pytest.mark.parametrize("damage", MODELS.values(), ids=MODELS)
def test_a_damaged_model_is_refused(tiny_folder, tmp_path, write_campaign, damage):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    damage(folder)
    refused(["plan", write_campaign(models=[{"name": "mine", "path": str(folder)}])], [str(folder)])


def test_a_file_is_no_model(tmp_path, write_campaign):
    (tmp_path / "model").write_text("x")
    campaign = write_campaign(models=[{"name": "mine", "path": str(tmp_path / "model")}])
    refused(["plan", campaign], [str(tmp_path / "model")])


# --- what EditFleet wrote


def _safetensors(header, tensors=None):
    return lambda path: save_file(tensors or {"a": torch.zeros(1)}, path, metadata=header)


FILES = {
    "empty": lambda path: path.write_bytes(b""), "text": lambda path: path.write_text("x" * 100),
    "a folder": lambda path: path.mkdir(), "of no header": _safetensors(None),
    "no JSON": _safetensors({"editfleet": "{"}),
    "of another program": _safetensors({"format": "pt"}), "a list": _safetensors({"editfleet": "[]"}),
    "null": _safetensors({"editfleet": "null"}), "of another kind": _safetensors({"editfleet": '{"kind": "x"}'}),
    "header cut short": lambda path: path.write_bytes(b"\xff" * 8 + b"{}"),
    "zip": lambda path: zipfile.ZipFile(path, "w").writestr("a", "b"),
}


@pytest.mark.parametrize("write", FILES.values(), ids=FILES)
def test_a_file_that_is_no_artefact_is_refused(tmp_path, write_campaign, write):
    path = tmp_path / "mine.safetensors"
    write(path)
    editors = [{"name": "mend", "artefact": str(path)}]
    refused(["plan", write_campaign(models=["testbed-gptj"], editors=editors)], [str(path)])


@pytest.mark.parametrize("write", FILES.values(), ids=FILES)
def test_a_file_that_is_no_patch_is_refused(tmp_path, write):
    path = tmp_path / "mine.safetensors"
    write(path)
    refused(["export", "testbed-gptj", "--out", tmp_path / "out", "--patch", path], [str(path)])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("module", "left", "right"), [
    ("transformer.h.9.mlp.fc_out", (512, 1), (2048, 1)), ("nothing", (512, 1), (2048, 1)),
    ("transformer.h.1.mlp.fc_out", (512, 1), (4, 1)), ("transformer.h.1.mlp.fc_out", (1, 1), (2048, 1)),
])
def test_a_patch_of_another_model_is_refused(tmp_path, module, left, right):
    Patch((LowRank(module, torch.zeros(left), torch.zeros(right)),)).save(tmp_path / "mine.safetensors")
    refused(["export", "testbed-gptj", "--out", tmp_path / "out", "--patch", tmp_path / "mine.safetensors"], [module])


# --- stores


@pytest.mark.parametrize("marker", [b"", b"{", b"[]", b"null", b"7", b'{"format": 4}', b'{"format": "5"}', b"\xff\xfe",
                                    b'{"form": 5}', b'{"format": 99}'])
@pytest.mark.parametrize("command", ["report", "status"])
def test_a_folder_that_is_no_store_of_this_format_is_refused(tmp_path, marker, command):
    (tmp_path / "store.json").write_bytes(marker)
    refused([command, tmp_path], [str(tmp_path)])


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b"null", b"{}", b'{"name": 3}', b"\xff\xfe"])
def test_a_record_that_cannot_be_read_is_named(tmp_path, record):
    store = Store.create(tmp_path / "store")
    (Path(store.root) / "campaigns" / "0123.json").write_bytes(record)
    refused(["report", store.root], ["0123.json", "running its campaign again"])


def test_an_empty_store_has_nothing_to_report(tmp_path):
    refused(["report", Store.create(tmp_path / "store").root], [str(tmp_path / "store")])
