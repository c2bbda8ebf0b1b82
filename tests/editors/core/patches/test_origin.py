"""Patches say which model they are for, and which edits they are."""

from __future__ import annotations

import copy

import pytest
import torch

import editors
from editors import EDITORS, EditRequest, overlay
from editors.core.errors import InputError
from editors.core.headers import PatchHeader
from editors.core.patches.fitting import refuse_misfits
from editors.core.patches.origin import Base, Fact, Making, Origin, Part
from editors.core.patches.patch import Dense, LowRank, Patch

ANN, BO = EditRequest("Ann lives in", "Ann", "Omerga", id="a"), EditRequest("Bo works for", "Bo", "Vard")
DOWN = "transformer.h.1.mlp.fc_out"


def low(rank=1, module=DOWN):
    return LowRank(module, torch.ones(32, rank), torch.ones(64, rank))


def noted(*facts, digest="tiny", terms=1, editor="rome"):
    part = Part(terms=terms, facts=tuple(Fact(id="", prompt=f"{fact} is", subject=fact, target="x") for fact in facts))
    return Patch((low(),) * terms, origin=Origin(model=Base(name="m", digest=digest, dtype="float32"),
                                                 makings=(Making(editor=editor, parts=(part,)),)))


def test_an_edit_says_what_it_is_and_a_file_keeps_it(tiny_gptj, tmp_path):
    patch = editors.edit(tiny_gptj, "ft", [ANN, BO], seed=3, layers=[1], steps=2)
    patch.save(tmp_path / "p")
    origin = Patch.load(tmp_path / "p").origin
    assert origin == patch.origin and origin.model == Base(name="tiny-gptj", digest="tiny", dtype="float32")
    [making] = origin.makings
    assert (making.editor, making.seed, making.settings["layers"]) == ("ft", 3, [1]) and "torch" in making.versions
    assert [(fact.id, fact.target) for fact in origin.facts] == [("a", "Omerga"), ("", "Vard")]
    assert [part.terms for part in origin.parts] == [len(patch.terms)]
    first, second = editors.edit_each(tiny_gptj, "ft", [ANN, BO], layers=[1], steps=2)
    assert [fact.subject for each in (first, second) for fact in each.origin.facts] == ["Ann", "Bo"]
    assert origin.facts_digest != first.origin.facts_digest


def test_a_patch_is_refused_on_another_model(tiny_gptj):
    other = copy.copy(tiny_gptj)
    other.digest = "another"
    patch = editors.edit(tiny_gptj, "ft", [ANN], layers=[1], steps=1)
    refuse_misfits(tiny_gptj, [patch])
    with pytest.raises(InputError, match=r"'tiny-gptj' \(digest tiny\).*not for 'tiny-gptj' \(digest another\)"), \
            overlay(other, patch):
        pass


def test_sums_know_the_parts_of_both_and_whose_they_are():
    together = noted("Ann", terms=2) + Patch() + noted("Bo") + noted("Cy", editor="ft") + Patch((low(),))
    assert [making.editor for making in together.origin.makings] == ["rome", "ft", None]
    assert [part.terms for part in together.origin.parts] == [2, 1, 1, 1]
    assert (Patch((low(),)) + noted("Ann")).origin.parts[0] == Part(terms=1)
    assert sum([noted("Ann"), noted("Bo")], Patch()).origin.apart and (Patch() + Patch()).origin is None
    with pytest.raises(InputError, match=r"made for model .m. \(digest another\).*added to .*\(digest tiny\)"):
        noted("Ann") + noted("Bo", digest="another")


def test_merged_terms_are_no_parts_any_more():
    alone = noted("Ann", terms=2).compact()
    assert len(alone.terms) == 1 and [part.terms for part in alone.origin.parts] == [1]
    two = (noted("Ann") + noted("Bo")).compact()
    assert len(two.terms) == 1 and not two.origin.apart and len(two.origin.facts) == 2
    assert not (two + noted("Cy")).origin.apart
    kept = (noted("Ann") + Patch((Dense(DOWN, torch.ones(32, 64)),))).compact()
    assert kept.origin.apart


def test_a_file_whose_origin_tells_of_other_terms_is_refused(tmp_path):
    Patch((low(), low()), origin=noted("Ann").origin).save(tmp_path / "p")
    with pytest.raises(InputError, match="is damaged: its origin tells of 1 terms, and it has 2"):
        Patch.load(tmp_path / "p")


def test_files_of_old_have_none(tmp_path):
    assert "origin" not in PatchHeader.model_validate_json('{"info": {}, "terms": []}').model_fields_set
    Patch((low(),)).save(tmp_path / "p")
    assert Patch.load(tmp_path / "p").origin is None


def test_no_secret_is_noted(tiny_gptj):
    secret = copy.copy(tiny_gptj)
    secret.name = "https://user:word@host/model"
    patch = editors.edit(secret, "ft", [ANN], layers=[1], steps=1)
    assert patch.origin.model.name == "https://***@host/model"
    assert set(EDITORS) >= {making.editor for making in patch.origin.makings}
