"""Campaigns of several files: whose fields hold, where paths start, what is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
import yaml

from cluster.campaign.file import load_campaign
from cluster.campaign.files import named_files
from editors.core.errors import InputError

BASE = """\
name: base
chunk: 7
published: {a.json: the first, b.json: the second}
models: [testbed-gptj]
datasets: [testbed-cloze]
editors: [identity, ft]
scales:
  small: {chunk: 1}
  large: {chunk: 90}
"""


@pytest.fixture
def write(tmp_path):
    """Writes files below a folder; returns the first."""

    def write(**texts):
        for name, text in texts.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return tmp_path / f"{next(iter(texts)).replace('__', '/')}.yaml"

    return write


def test_what_was_read_is_told_with_all_that_it_includes_and_options_set(write):
    place = "https://me:secret@host/x.json?key=secret"
    path = write(study=f"include: base.yaml\nname: study\neditors: [{{name: ft, label: a:b}}]\ndata: {place}\n"
                       "sweep:\n  editors.ft.lr: [0.1, 0.2]\n", base=BASE)
    text = load_campaign(path, scale="small", settings=["seeds=[3]"]).text
    assert yaml.safe_load(text) == {
        "name": "study", "chunk": 1, "published": {"a.json": "the first", "b.json": "the second"},
        "models": ["testbed-gptj"], "datasets": ["testbed-cloze"], "editors": [{"name": "ft", "label": "a:b"}],
        "data": "https://***@host/x.json?***", "sweep": {"editors.ft.lr": [0.1, 0.2]}, "seeds": [3]}


def test_what_was_read_of_a_campaign_of_parts_are_these_too(write):
    path = write(whole="name: whole\nparts: [base.yaml]\nscales: {large: {}}\n", base=BASE)
    whole, part = yaml.safe_load_all(load_campaign(path, scale="large").text)
    assert whole == {"name": "whole", "parts": ["base.yaml"]} and (part["name"], part["chunk"]) == ("base", 90)


def test_the_fields_of_a_file_stand_over_those_it_includes(write):
    path = write(study="""\
include: base.yaml
name: study
editors: [rome]
published: {b.json: another}
scales:
  small: {chunk: 2}
""", base=BASE)
    campaign = load_campaign(path)
    assert (campaign.name, campaign.chunk) == ("study", 7)
    assert [editor.name for editor in campaign.editors] == ["rome"]
    assert campaign.published == {"a.json": "the first", "b.json": "another"}
    assert load_campaign(path, scale="small").chunk == 2 and load_campaign(path, scale="large").chunk == 90


def test_later_files_stand_over_earlier_ones_and_files_may_be_included_twice(write):
    path = write(study="include: [one.yaml, two.yaml]\nseeds: [4]\n", base=BASE, one="include: base.yaml\nchunk: 1\n",
                 two="include: base.yaml\nname: two\n")
    assert load_campaign(path).chunk == 7  # two's, which it has from base
    assert load_campaign(path).name == "two"


def test_paths_start_at_the_folder_of_the_file_they_are_written_in(write, tmp_path):
    (tmp_path / "shared" / "model").mkdir(parents=True)
    path = write(study__mine="""\
include: ../shared/base.yaml
editors: [{name: ft, artefact: own.safetensors}]
sweep: {datasets.d.train: [one.json, two.json]}
""", shared__base="""\
name: base
models: [{name: m, path: model}]
datasets: [{name: d, path: cases.json}]
editors: [ft]
measures: {perplexity: {corpus: text.txt}}
statistics: {corpus: long.txt}
workers: {offload: nvme, nvme: weights}
""")
    campaign = load_campaign(path)
    shared, mine = tmp_path / "shared", tmp_path / "study"
    assert campaign.models[0].path == str(shared / "model")
    assert campaign.editors[0].artefact == str(mine / "own.safetensors")
    assert [(data.path, data.train) for data in campaign.datasets] == [
        (str(shared / "cases.json"), str(mine / name)) for name in ("one.json", "two.json")]
    assert campaign.workers.nvme == str(shared / "weights")
    assert {str(shared / "long.txt"), str(shared / "text.txt")} < {file.path for file in named_files(campaign)}


def test_data_starts_where_it_is_written_and_paths_of_data_sets_there(write, tmp_path):
    path = write(study__mine="include: ../shared/base.yaml\ndatasets: [{name: d, path: cases.json}]\n",
                 shared__base=BASE + "data: files\n")
    assert load_campaign(path).datasets[0].path == str(tmp_path / "shared" / "files" / "cases.json")
    assert load_campaign(path, data=str(tmp_path)).datasets[0].path == str(tmp_path / "cases.json")


def test_shipped_campaigns_are_included_by_name_unless_a_file_has_it(write, tmp_path):
    path = write(study="include: quick\nname: study\n", other=BASE)
    assert load_campaign(path, shipped={"quick": tmp_path / "other.yaml"}).chunk == 7
    (tmp_path / "quick").write_text(BASE.replace("chunk: 7", "chunk: 8"))
    assert load_campaign(path, shipped={"quick": tmp_path / "other.yaml"}).chunk == 8


def test_mistakes_name_the_file_that_has_them(write):
    path = write(study="include: base.yaml\nseeds: [x]\n", base=BASE.replace("chunk: 7", "chunk: 0"))
    with pytest.raises(InputError) as error:
        load_campaign(path)
    told = str(error.value).splitlines()
    assert any("study.yaml, line 2, seeds[0]" in line for line in told)
    assert any("base.yaml, line 2, chunk: " in line and "got 0" in line for line in told)
    with pytest.raises(InputError, match=r"base.yaml, line 6, editors\[1\].name: unknown editor 'fft'"):
        load_campaign(write(study="include: base.yaml\nname: study\n", base=BASE.replace("ft]", "fft]")))


@pytest.mark.parametrize(("files", "parts"), [
    ({"study": "include: 3\n"}, ["study.yaml, line 1, include: expected a file"]),
    ({"study": "include: ''\n"}, ["include: expected a file"]),
    ({"study": "include: []\n"}, ["include: the list is empty"]),
    ({"study": "name: x\ninclude: [base.yaml, 7]\n", "base": BASE}, ["line 2, include[1]: expected a file"]),
    ({"study": "include: none.yaml\n"}, ["line 1, include: there is no campaign file", "none.yaml"]),
    ({"study": "include: quickstrat\n"}, ["include: unknown campaign 'quickstrat'", "Did you mean 'quickstart'?"]),
    ({"study": "include: .\n"}, ["include"]),
    ({"study": "include: study.yaml\n"}, ["in a circle: ", "study.yaml -> "]),
    ({"study": "include: base.yaml\n", "base": "include: study.yaml\n"}, ["base.yaml, line 1", "in a circle"]),
    ({"study": "include: base.yaml\n", "base": "- a\n"}, ["include: ", "base.yaml' is no campaign"]),
    ({"study": "include: base.yaml\n", "base": ""}, ["base.yaml is empty"]),
    ({"study": "include: base.yaml\n", "base": "chunk: [\n"}, ["base.yaml, line 2", "not valid YAML"]),
    ({"study": "include: base.yaml\n", "base": "chunk: 010\n"}, ["base.yaml, line 1: YAML reads 010"]),
    ({"study": "include: base.yaml\n", "base": "name: x\n"}, ["study.yaml, line 1, models: this field is required"]),
    ({"study": f"{BASE}  odd: {{include: base.yaml}}\n"}, ["scales.odd.include: unknown field 'include'"]),
    ({"study": "include: a0.yaml\n", **{f"a{number}": f"include: a{number + 1}.yaml\n" for number in range(12)},
      "a12": BASE}, ["more than 10 files include each other"]),
])
def test_what_cannot_be_included_is_refused(write, files, parts):
    with pytest.raises(InputError) as error:
        load_campaign(write(**files), scale="odd" if "odd:" in files["study"] else None,
                      shipped={"quickstart": write(shipped=BASE)})
    for part in parts:
        assert part in str(error.value)


def test_limits_hold_for_all_files_together(write, monkeypatch):
    """Each of them is within the bounds."""
    nine = [f"x{name}: &{name} [{', '.join(9 * [f'*{before}'])}]" for before, name in pairwise("abc")]
    bomb = "\n".join(["xa: &a [x, x, x, x, x, x, x, x, x]", *nine]) + "\n"
    both = write(study="include: [one.yaml, two.yaml]\n" + BASE, one=bomb, two=bomb.replace("x", "y"))
    one = write(other="include: one.yaml\n" + BASE)
    for limit, most, told in (("VALUES", 1000, "two.yaml has more than 1,000 values"),
                              ("BYTES", 450, "two.yaml' brings the files to 4.. bytes, and a campaign at most 450"),
                              ("FILES", 2, "two.yaml' is one file too many: a campaign may read 2")):
        with monkeypatch.context() as patch:
            patch.setattr(f"cluster.campaign.reading.MOST_{limit}", most)
            with pytest.raises(InputError, match="unknown field"):
                load_campaign(one)
            with pytest.raises(InputError, match=told):
                load_campaign(both)
