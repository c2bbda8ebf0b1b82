"""Models by hub name: what is fetched, at planning and for loading, and that all of it is of one commit."""

from __future__ import annotations

import hashlib
import shutil
from fnmatch import fnmatch

import pytest
from support.paper_stand_ins import COMMIT, cache_model

from editors.core.errors import InputError
from editors.core.models.loading import find_model, load_model

NAME = "some/model"


@pytest.fixture
def repository(tmp_path):
    return tmp_path / "repository"


@pytest.fixture
def asked(repository, tmp_path, monkeypatch):
    """The patterns of every fetch, from a folder in the place of the hub."""
    patterns = []

    def download(name, *, revision, allow_patterns):
        assert name == NAME and revision == (COMMIT if patterns else None)
        patterns.append(allow_patterns)
        snapshot = tmp_path / "snapshots" / COMMIT
        snapshot.mkdir(parents=True, exist_ok=True)
        for file in repository.iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, snapshot / file.name)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    return patterns


def fetched(tmp_path):
    return {file.name for file in (tmp_path / "snapshots" / COMMIT).iterdir()}


def test_planning_fetches_no_weights_and_loading_those_that_count(asked, repository, tiny_gptj, tmp_path):
    tiny_gptj.module.save_pretrained(repository, max_shard_size="100KB")
    tiny_gptj.tokenizer.save_pretrained(repository)
    for other in ("pytorch_model.bin", "flax_model.msgpack", "model.fp16.safetensors"):
        (repository / other).write_bytes(b"of no use")
    planned = find_model(NAME, weights=False)
    assert planned.checkpoint is None and not [name for name in fetched(tmp_path) if name.endswith(".safetensors")]
    del asked[:]
    loaded = load_model(NAME)
    assert {name for name in fetched(tmp_path) if not name.endswith(".json")} == {
        file.name for file in repository.glob("model-*.safetensors")}
    assert loaded.digest == planned.digest == hashlib.sha256(f"{NAME}@{COMMIT}".encode()).hexdigest()[:16]
    assert loaded.module.lm_head.weight.equal(tiny_gptj.module.lm_head.weight) and loaded.name == NAME


def test_an_old_repository_gives_its_pickles_and_its_sentencepiece(asked, repository, old_t5_folder, tiny_t5, tmp_path):
    shutil.copytree(old_t5_folder, repository)
    (repository / "tf_model.h5").write_bytes(b"of no use")
    loaded = load_model(NAME)
    assert "spiece.model" in fetched(tmp_path) and "tf_model.h5" not in fetched(tmp_path)
    assert loaded.module.shared.weight.equal(tiny_t5.module.shared.weight)


def test_a_repository_with_weights_of_other_libraries_is_refused(asked, repository, old_t5_folder):
    shutil.copytree(old_t5_folder, repository, ignore=shutil.ignore_patterns("pytorch*"))
    with pytest.raises(InputError, match=rf"cannot load model '{NAME}': it has no weights that can be read"):
        load_model(NAME)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


def test_what_is_in_the_cache_is_looked_at_without_a_network(offline, tiny_gptj, tmp_path):
    snapshot = cache_model(tmp_path / "hub", NAME, tiny_gptj.module.config.to_dict())
    assert find_model(NAME, weights=False).checkpoint is None
    with pytest.raises(InputError, match="it has no weights that can be read"):
        load_model(NAME)
    tiny_gptj.module.save_pretrained(tmp_path / "whole")
    blob = tmp_path / "hub" / "blob"
    shutil.copy(tmp_path / "whole" / "model.safetensors", blob)
    (snapshot / "model.safetensors").symlink_to(blob)
    assert load_model(NAME).module.lm_head.weight.equal(tiny_gptj.module.lm_head.weight)
    blob.write_bytes(blob.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"'model\.safetensors' is cut short or damaged; fetch it again"):
        find_model(NAME, weights=False)


def test_a_name_that_is_nowhere_is_told_with_the_cure(offline):
    for look in (find_model, load_model):
        with pytest.raises(InputError, match=r"cannot load model 'some/model': there is no such folder, and it is not "
                                             r"in the local hub cache .*`hf download some/model`"):
            look(NAME)
