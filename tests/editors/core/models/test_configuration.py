"""Files that are not what they should be: planning refuses them in one line that names folder, file and field, and code
that comes with a model never runs."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import time

import pytest
import torch

from editors.core.errors import InputError
from editors.core.methods.sides import SideConfig, check_sides
from editors.core.models.loading import find_model, load_config, load_model, load_reader

CONFIG, TOKENIZER, GENERATION = "config.json", "tokenizer_config.json", "generation_config.json"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def wholes(request, tmp_path_factory):
    found = {}
    for kind in ("tiny_gptj", "tiny_t5"):
        model, found[kind] = request.getfixturevalue(kind), tmp_path_factory.mktemp(kind)
        model.module.save_pretrained(found[kind], max_shard_size="60KB")
        model.tokenizer.save_pretrained(found[kind])
    return found


@pytest.fixture
def folder(wholes, tmp_path):
    """Makes a copy of a tiny model's."""
    return lambda kind="tiny_gptj": shutil.copytree(wholes[kind], tmp_path / kind)


def change(path, **fields):
    said = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({field: value for field, value in said.items() if value is not ...}))


def refused(folder, *told, look=lambda folder: find_model(folder, weights=False)):
    start = time.monotonic()
    with pytest.raises(InputError) as error:
        look(folder)
    assert time.monotonic() - start < 5
    message = str(error.value)
    assert str(folder) in message and "\n" not in message and all(each in message for each in told), message


# --- code of others

MARK = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nPath({!r}).touch()\nclass Mine: pass\n"
PROGRAM = """
import sys
from editors.core.errors import InputError
from editors.core.models.loading import find_model, load_model, load_reader
for folder in sys.argv[1:]:
    for look in (find_model, load_model):
        try:
            look(folder)
        except InputError as error:
            print(error)
"""


@pytest.fixture
def coded(folder, tmp_path):
    """Folders that name code, by what names it; and the file that it makes when it runs."""
    ran = tmp_path / "ran"
    names = {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine", "AutoTokenizer": ["mine.Mine"] * 2}
    folders = {}
    for what, file, fields in (
            ("own type", CONFIG, {"model_type": "mine", "auto_map": names}), ("type", CONFIG, {"auto_map": names}),
            ("model", CONFIG, {"auto_map": {"AutoModelForCausalLM": "some/repository--mine.Mine"}}),
            ("tokenizer", TOKENIZER, {"auto_map": names, "tokenizer_class": "Mine"}),
            ("old tokenizer", TOKENIZER, {"auto_map": ["mine.Mine", "mine.Mine"]})):
        made = folders[what] = folder().rename(tmp_path / what)
        change(made / file, **fields)
        (made / "mine.py").write_text(MARK.format(str(ran)))
    return folders, ran


def test_a_model_with_code_of_its_own_is_refused_and_nobody_is_asked(coded):
    folders, ran = coded
    terminal, end = pty.openpty()
    try:
        os.write(terminal, b"y\n" * 50)
        done = subprocess.run([sys.executable, "-c", PROGRAM, *map(str, folders.values())], stdin=end,
                              capture_output=True, text=True, timeout=120)
    finally:
        os.close(terminal)
        os.close(end)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert len(told) == 2 * len(folders)
    assert all("EditFleet runs none" in line and "auto_map" in line for line in told)
    assert "trust_remote_code" not in done.stdout + done.stderr and "[y/N]" not in done.stdout + done.stderr
    assert not ran.exists()


def test_models_that_settings_name_run_no_code_either(coded, tiny_gptj):
    folders, ran = coded
    for field in ("classifier", "side_model"):
        for folder in folders.values():
            refused(folder, "EditFleet runs none", look=lambda folder, field=field: check_sides(
                SideConfig(**{field: str(folder)}), tiny_gptj.module.config))
    assert not ran.exists()


def test_code_that_is_merely_there_does_not_run(folder, tmp_path):
    made = folder()
    (made / "custom_generate").mkdir()
    for file in ("custom_generate/generate.py", "modeling_gptj.py", "tokenization_gptj.py", "__init__.py", "gptj.py"):
        (made / file).write_text(MARK.format(str(tmp_path / "ran")))
    change(made / TOKENIZER, chat_template="{{ raise_exception('never') }}")
    load_model(made)
    assert not (tmp_path / "ran").exists() and not list(made.rglob("ran"))


def test_an_index_need_not_have_what_only_the_library_wants(folder, tiny_gptj):
    made = folder()
    change(made / INDEX, metadata=...)
    before = (made / INDEX).read_bytes()
    read = load_model(made).module.state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in tiny_gptj.module.state_dict().items())
    assert (made / INDEX).read_bytes() == before


# --- values

WRONG = [  # model, file, field, value, and what else is told
    ("tiny_gptj", CONFIG, "n_layer", 10**6, "10"), ("tiny_gptj", CONFIG, "n_layer", 10**20, ""),
    ("tiny_gptj", CONFIG, "n_embd", 10**20, ""), ("tiny_gptj", CONFIG, "n_positions", 0, "from 1"),
    ("tiny_gptj", CONFIG, "n_head", True, ""), ("tiny_gptj", CONFIG, "vocab_size", "abc", "int"),
    ("tiny_gptj", CONFIG, "rotary_dim", 10**6, "1 to 16"), ("tiny_gptj", CONFIG, "rotary_dim", ..., "1 to 16"),
    ("tiny_gptj", CONFIG, "layer_norm_epsilon", -1.0, "less than 0"), ("tiny_gptj", CONFIG, "id2label", [1], ""),
    ("tiny_gptj", CONFIG, "transformers_weights", 3, "take it out"), ("tiny_gptj", CONFIG, "num_labels", 10**20, ""),
    ("tiny_gptj", CONFIG, "attribute_map", {}, "take it out"), ("tiny_gptj", CONFIG, "pad_token_id", -3, "from 0"),
    ("tiny_t5", CONFIG, "decoder_start_token_id", -1, "-1"), ("tiny_t5", CONFIG, "eos_token_id", [1], "from 0 to"),
    ("tiny_t5", CONFIG, "eos_token_id", 10**6, "from 0 to"), ("tiny_t5", CONFIG, "num_layers", 10**6, "of 3"),
    ("tiny_t5", CONFIG, "num_decoder_layers", 10**6, "of 3"), ("tiny_t5", CONFIG, "feed_forward_proj", [1], ""),
    ("tiny_t5", CONFIG, "max_position_embeddings", "abc", "from 1"), ("tiny_t5", CONFIG, "d_kv", 1.5, "int"),
    ("tiny_gptj", GENERATION, "compile_config", [1], ""), ("tiny_gptj", INDEX, "metadata", None, ""),
]


@pytest.mark.parametrize(("kind", "file", "field", "value", "told"), WRONG, ids=lambda value: str(value)[:20])
def test_a_wrong_value_is_told_with_its_file_and_field(folder, kind, file, field, value, told):
    made = folder(kind)
    change(made / file, **{field: value})
    named = "layer" if field == "n_layer" else "" if file == INDEX else field
    refused(made, file, named, told)
    refused(made, file, named, look=load_model)


@pytest.mark.parametrize("value", ["abc", [1], {"a": 1}])
def test_a_tokenizers_wrong_length_is_refused(folder, value):
    made = folder()
    change(made / TOKENIZER, model_max_length=value)
    refused(made, "its tokenizer cannot be read", TOKENIZER)


@pytest.mark.parametrize("value", ["abc", 1.5, {"a": 1}, True])
def test_what_does_not_matter_works(folder, value):
    made = folder()
    change(made / CONFIG, output_hidden_states=value)
    model = load_model(made)
    assert model.states(model.collate([model.encode("Ann is")])).isfinite().all()


def test_a_t5_needs_no_padding(folder):
    made = folder("tiny_t5")
    change(made / CONFIG, pad_token_id=...)
    assert load_model(made).depth == 3


def test_a_reader_of_an_absurd_depth_is_made_in_no_time(folder):
    made = folder()
    change(made / CONFIG, n_layer=10**6)
    assert load_reader(made).encode("Ann is").prompt
    assert load_config(made).n_layer == 10**6


def test_a_tokenizer_that_does_not_tell_places_is_refused(folder):
    made = folder("tiny_t5")
    for file in made.glob("tokenizer*"):
        file.unlink()
    (made / TOKENIZER).write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    refused(made, "ByT5Tokenizer", "where in a text")


# --- files

CONTENTS = {"a list": b"[]", "null": b"null", "no JSON": b"{a", "nothing": b"", "NaN": b'{"a": NaN}',
            "Latin-1": '{"a": "é"}'.encode("latin-1"), "UTF-16": "{}".encode("utf-16"), "a mark": b"\xef\xbb\xbf{}",
            "deep": b"[" * 100_000}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("file", [CONFIG, TOKENIZER, GENERATION, INDEX, "tokenizer.json", "special_tokens_map.json"])
def test_a_file_that_is_no_object_is_refused_by_name(folder, file, content):
    made = folder()
    (made / file).write_bytes(CONTENTS[content])
    refused(made, file)


def a_folder(path):
    path.mkdir()


def a_loop(path):
    path.symlink_to(path)


def a_pipe(path):
    os.mkfifo(path)


@pytest.mark.parametrize("put", [a_folder, a_loop, a_pipe], ids=lambda put: put.__name__)
@pytest.mark.parametrize("file", [CONFIG, TOKENIZER, GENERATION, INDEX, "tokenizer.json", "merges.txt"])
def test_what_is_no_file_is_refused_and_not_waited_for(folder, file, put):
    made = folder()
    (made / file).unlink(missing_ok=True)
    put(made / file)
    told = f"'{file}' is a pipe, and no file" if put is a_pipe else f"'{file}' is no file"
    refused(made, told)
    if file != INDEX:
        refused(made, told, look=load_reader)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_refused(folder):
    made = folder()
    (made / CONFIG).chmod(0)
    refused(made, CONFIG, "Permission denied")


def test_a_t5_that_does_not_say_where_answers_start_begins_with_its_padding(tiny_t5, tmp_path):
    tiny_t5.module.save_pretrained(tmp_path)
    tiny_t5.tokenizer.save_pretrained(tmp_path)
    said = json.loads((tmp_path / CONFIG).read_text())
    del said["decoder_start_token_id"]
    (tmp_path / CONFIG).write_text(json.dumps(said))
    model = load_model(tmp_path)
    batch, expected = (each.collate([each.encode("It was", "so")]) for each in (model, tiny_t5))
    assert batch.input_ids.equal(expected.input_ids) and int(batch.input_ids[0, 0]) == 0
