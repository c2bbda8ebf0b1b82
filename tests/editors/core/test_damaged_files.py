"""Whatever was done to a file that EditFleet wrote: it is refused by name, or what is read is what was written."""

from __future__ import annotations

import json
import random
import struct
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from editors.core.artefacts import Artefact
from editors.core.errors import InputError
from editors.core.files import HEADER, read_tensors, write_tensors
from editors.core.headers import ArtefactHeader, MomentsHeader, PatchHeader
from editors.core.models.statistics import SecondMoment, load_moments, save_moments, sum_moments
from editors.core.patches.patch import Dense, LowRank, Neurons, Patch, Route
from evaluators.protocols.stream import Stream
from evaluators.testbed import MODELS

DRAW = torch.Generator().manual_seed(0)
draw = partial(torch.randn, generator=DRAW)
PATCH = Patch((LowRank("m.down", draw(3, 1), draw(2, 1)), Dense("m.up", draw(2, 3).half(), draw(2).half()),
               Neurons("m", draw(2, 3), draw(3, 2), "relu", draw(2), queries=draw(1, 3).half()),
               Route(side="51de", memory=(("Who?", "Ada"), ("Où?", "là")))), {"editor": "ft", "loss": 0.25})
ARTEFACT = Artefact("mend", 1, {"rank": 4, "layers": [1, 2]}, "abc", {
    "alpha": draw(3), "transforms.0.v": draw(4, 4).half(), "transforms.0.mean": draw(2, 2).bfloat16()}, {"steps": 7})
LOADERS = {"patch": Patch.load, "artefact": Artefact.load, "moments": load_moments, "stream": Stream.load}


def write(kind, path):
    match kind:
        case "patch":
            PATCH.save(path)
        case "artefact":
            ARTEFACT.save(path)
        case "moments":
            save_moments({"m.down": SecondMoment(5, torch.eye(3).double())}, path)
        case "stream":
            Stream(PATCH, newest={"c": {"reliability.token": 1.0}}).save(path)


def content(value):
    """All that was read, comparable."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.tolist()
    if isinstance(value, dict):
        return {key: content(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [content(inner) for inner in value]
    return (type(value).__name__, content(vars(value))) if hasattr(value, "__dict__") else value


@pytest.fixture(params=LOADERS)
def file(request, tmp_path):
    """The loader of a kind of file, and such a file."""
    write(request.param, path := tmp_path / "f.safetensors")
    return LOADERS[request.param], path


def refused(load, path, problem=None):
    with pytest.raises(InputError, match=problem) as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value).strip()


@pytest.mark.parametrize("kind", ["patch", "artefact"])
def test_a_flipped_bit_is_found_wherever_it_is(kind, tmp_path):
    """Every bit of the file, or it is read as it was: spaces, and the spelling of a number, say nothing."""
    write(kind, path := tmp_path / "f.safetensors")
    good, load, refusals = path.read_bytes(), LOADERS[kind], 0
    before, places = content(load(path)), range(8 * len(good))
    flipped = random.Random(kind).sample(places, min(5_000, len(places)))
    for place in flipped:
        bad = bytearray(good)
        bad[place // 8] ^= 1 << place % 8
        path.write_bytes(bad)
        try:
            assert content(load(path)) == before
        except InputError:
            refusals += 1
    assert len(flipped) == 5_000 and refusals > 0.95 * len(flipped)


def with_header(path, change):
    """Rewrites a file's JSON by `change`, as anything but EditFleet would: without a new checksum."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    outer = json.loads(data[8: 8 + size])
    outer["__metadata__"][HEADER] = change(outer["__metadata__"][HEADER])
    text = json.dumps(outer).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size:])


TEXTS = ["", "hello", "[]", "3", "null", '"patch"', "[" * 100_000, '{"kind": ' * 100_000, '{"kind": 3}',
         '{"kind": null}', '{"kind": "patch"}',
         '{"kind": "trained editor", "version": "1"}', '{"kind": "second moments", "counts": []}',
         '{"kind": "patch", "terms": 3, "info": {}}', '{"kind": "patch", "terms": [{}], "info": {}}',
         '{"kind": "patch", "terms": [{"kind": []}], "info": {}}', '{"kind": "patch", "terms": [[]], "info": {}}',
         '{"kind": "patch", "terms": [{"kind": "low-rank", "module": 3}], "info": {}}', '{"kind": "\\u0000"}',
         '{"kind": "patch", "terms": [], "info": {"a": ' + "9" * 5000 + "}}", '{"kind": "patch", "format": true}']


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_header_that_is_none_is_refused(file, text):
    load, path = file
    with_header(path, lambda _: text)
    refused(load, path)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner:
                    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6)


@pytest.mark.parametrize("sealed", [True, False], ids=["with its checksum", "of format 1, which had none"])
@pytest.mark.parametrize("kind", LOADERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_a_header_is_refused_or_changes_nothing_but_what_it_says(kind, sealed, tmp_path, data):
    """A field that is set, taken away or added, of whatever type."""
    write(kind, path := tmp_path / "f.safetensors")
    before = content(LOADERS[kind](path))

    def change(text):
        fields = json.loads(text)
        if not sealed:
            fields = {name: value for name, value in fields.items() if name not in ("format", "sha256", "tensors")}
        place = fields
        while (name := data.draw(st.sampled_from([*place, "more"]))) in place and isinstance(place[name], dict) and (
                place[name] and data.draw(st.booleans())):
            place = place[name]
        if name in place and data.draw(st.booleans()):
            del place[name]
        else:
            place[name] = data.draw(JSON)
        return json.dumps(fields)

    with_header(path, change)
    try:
        after = content(LOADERS[kind](path))
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert not sealed or after == before


def without(tensors):
    tensors.popitem()


def renamed(tensors):
    name, tensor = tensors.popitem()
    tensors[f"{name}x"] = tensor


def one_more(tensors):
    tensors["9.more"] = torch.ones(1)


def reshaped(tensors):
    name, tensor = tensors.popitem()
    tensors[name] = tensor.reshape(-1, 1, 1)


def retyped(tensors):
    name, tensor = tensors.popitem()
    tensors[name] = tensor.to(torch.int8)


def nan(tensors):
    name, tensor = tensors.popitem()
    tensors[name] = tensor * torch.nan


@pytest.mark.parametrize("harm", [without, renamed, one_more, reshaped, retyped, nan])
def test_tensors_that_are_not_those_that_were_written_are_named(file, harm):
    load, path = file
    tensors, data = load_file(path), path.read_bytes()
    header = json.loads(data[8: 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]
    harm(tensors)
    save_file(tensors, path, header)
    refused(load, path, r"is damaged: tensor '")


HARMS = {"emptied": lambda data: b"", "cut by a byte": lambda data: data[:-1], "cut in half": lambda data:
         data[: len(data) // 2], "longer by a byte": lambda data: data + b"\0", "a huge header": lambda data:
         b"\xff" * 8 + data[8:], "a text": lambda data: b"hello"}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_file_that_is_cut_is_refused(file, harm):
    load, path = file
    path.write_bytes(harm(path.read_bytes()))
    refused(load, path, "is not a safetensors file, or is damaged")


def test_a_folder_another_kind_and_a_later_format_are_refused(file, tmp_path):
    load, path = file
    (tmp_path / "folder").mkdir()
    refused(load, tmp_path / "folder", "it is a folder")
    write_tensors(tmp_path / "other", MomentsHeader(counts={}), {})
    if load is not load_moments:
        refused(load, tmp_path / "other", "it holds a second moments")
    with_header(path, lambda text: json.dumps({**json.loads(text), "format": 3, "news": 1}))
    refused(load, path, "is of format 3, and this version of EditFleet reads .* up to format 2")


def test_a_patch_that_is_no_stream_is_refused(tmp_path):
    PATCH.save(tmp_path / "p")
    refused(Stream.load, tmp_path / "p", "no stream of edits")


def test_files_of_format_1_are_read(tmp_path):
    path = tmp_path / "p"
    for patch in (PATCH, Patch()):
        patch.save(path)
        with_header(path, lambda text: json.dumps({name: value for name, value in json.loads(text).items()
                                                   if name not in ("format", "sha256", "tensors")}))
        assert content(Patch.load(path)) == content(patch)


def test_the_artefacts_that_come_with_editfleet_are_read_as_they_are():
    shipped = sorted(MODELS["testbed-gptj"].parents[1].glob("artefacts/*.safetensors"))
    assert len(shipped) >= 6
    for path in shipped:
        header, tensors = read_tensors(path, ArtefactHeader)
        assert header.format == 1 and header.editor in ("ke", "mend", "serac")
        assert all(torch.equal(tensors[name], tensor) for name, tensor in load_file(path).items())


def test_numbers_of_any_dtype_come_back(tmp_path):
    dtypes = (torch.float64, torch.bfloat16, torch.int8, torch.bool, torch.float8_e4m3fn, torch.complex64)
    tensors = {str(dtype): torch.ones(2, 3).to(dtype) for dtype in dtypes} | {"none": torch.empty(0, 3),
                                                                              "one": torch.tensor(2.0)}
    write_tensors(tmp_path / "t", PatchHeader(info={"loss": float("inf")}, terms=()), tensors)
    header, found = read_tensors(tmp_path / "t", PatchHeader)
    assert header.info == {"loss": float("inf")} and found.keys() == tensors.keys()
    assert all(found[name].dtype == tensor.dtype and torch.equal(found[name].cfloat(), tensor.cfloat())
               for name, tensor in tensors.items())


@pytest.mark.parametrize(("term", "problem"), [
    (LowRank("m", draw(3, 1), draw(2, 2)), r"b \[2, 2\], which should be \[in, 1\]|b \[2, 2\]"),
    (Dense("m", draw(3, 2), draw(1)), r"bias \[1\], which should be \[3\]"),
    (Neurons("m", draw(4, 2), draw(2, 4), "relu", bias=draw(1)), r"bias \[1\], which should be \[4\]"),
    (Neurons("m", draw(4, 2), draw(2, 4), "relu", gate=draw(4, 1)), r"gate \[4, 1\], which should be \[4, 2\]"),
    (Dense("m", torch.ones(2, 2).long()), r"torch\.int64"), (Dense("m", draw(2, 2), draw(2).half()), "beside others"),
    (LowRank("m", draw(1), draw(2, 1)), r"a \[1\]")])
def test_a_term_whose_tensors_do_not_go_together_is_refused(tmp_path, term, problem):
    Patch((term,)).save(tmp_path / "p")
    refused(Patch.load, tmp_path / "p", problem)


@pytest.mark.parametrize("total", [torch.eye(1).double(), torch.ones(3).double(), torch.eye(3),
                                   torch.ones(3, 1).double()])
def test_moments_of_another_shape_do_not_add_in_silence(tmp_path, total):
    save_moments({"m": SecondMoment(5, torch.eye(3).double())}, tmp_path / "a")
    save_moments({"m": SecondMoment(5, total)}, tmp_path / "b")
    with pytest.raises(InputError, match=r"'m' .*other modules|tensor 'm' is"):
        sum_moments([tmp_path / "a", tmp_path / "b"])
