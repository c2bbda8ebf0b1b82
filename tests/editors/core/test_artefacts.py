"""Artefacts of training on disk."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from editors.core.artefacts import Artefact
from editors.core.errors import InputError
from editors.core.files import read_tensor, read_tensors, write_tensors
from editors.core.headers import MomentsHeader
from editors.core.patches.patch import LowRank, Patch

ARTEFACT = Artefact("mend", 1, {"rank": 4}, "abc", {"net": torch.arange(6.0).reshape(2, 3), "at": torch.tensor(3)},
                    {"steps": 7})


def test_an_artefact_comes_back_whole(tmp_path):
    ARTEFACT.save(tmp_path / "a.safetensors")
    loaded = Artefact.load(tmp_path / "a.safetensors")
    assert (loaded.editor, loaded.version, loaded.config, loaded.model, loaded.report) == (
        "mend", 1, {"rank": 4}, "abc", {"steps": 7})
    assert loaded.tensors.keys() == ARTEFACT.tensors.keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in ARTEFACT.tensors.items())
    assert loaded.digest == ARTEFACT.digest
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_digest_is_that_of_the_content(tmp_path):
    other = Artefact("mend", 1, {"rank": 4}, "abc", {**ARTEFACT.tensors, "net": torch.zeros(2, 3)})
    assert other.digest != ARTEFACT.digest
    assert Artefact("mend", 1, {"rank": 5}, "abc", ARTEFACT.tensors).digest != ARTEFACT.digest
    assert Artefact("mend", 1, {"rank": 4}, "abc", ARTEFACT.tensors, {"seconds": 1}).digest == ARTEFACT.digest


@pytest.mark.parametrize(("wanted", "message"), [
    (("ke", 1, "abc"), "trained for editor 'mend', not 'ke'"), (("mend", 2, "abc"), "for version '1', not '2'"),
    (("mend", 1, "xyz"), "for model 'abc', not 'xyz'")])
def test_an_artefact_for_something_else_is_refused(wanted, message):
    ARTEFACT.check("mend", 1, "abc")
    with pytest.raises(InputError, match=message):
        ARTEFACT.check(*wanted)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no trained editor file"):
        Artefact.load(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="not a safetensors file"):
        Artefact.load(tmp_path / "text")
    save_file({"x": torch.ones(1)}, tmp_path / "x")
    with pytest.raises(InputError, match="is no trained editor file"):
        Artefact.load(tmp_path / "x")


def test_the_same_content_is_the_same_bytes(tmp_path):
    for number in range(8):  # the library shuffles what a header's fields are
        Patch((LowRank("m", torch.ones(2, 1), torch.ones(3, 1)),), {"editor": "rome", "loss": 0.5}).save(
            tmp_path / f"{number}.safetensors")
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


def test_tensors_that_share_memory_are_saved_each_as_it_is(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"a": whole, "b": whole, "row": whole[1], "turned": whole.T, "same": whole.view(4, 3)}
    write_tensors(tmp_path / "t.safetensors", MomentsHeader(counts={}), tensors)
    _, loaded = read_tensors(tmp_path / "t.safetensors", MomentsHeader)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)
        assert torch.equal(read_tensor(tmp_path / "t.safetensors", MomentsHeader, name), tensor)
