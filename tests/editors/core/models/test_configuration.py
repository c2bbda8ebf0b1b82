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

from editors.core.errors import InputError
from editors.core.methods.sides import SideConfig, check_sides
from editors.core.models.loading import find_model, load_model

CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"


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
