"""Editors by name, and their configurations."""

import re
from types import SimpleNamespace

import pytest

from editors import EDITORS, get_editor, preset, resolve_config
from editors.core.errors import InputError

GPTJ_6B = SimpleNamespace(model_type="gptj", num_hidden_layers=28, hidden_size=4096)


@pytest.mark.parametrize("name", sorted(EDITORS))
def test_registered_names_are_the_editors_own(name):
    assert get_editor(name).name == name and get_editor(name).version >= 1


def test_unknown_editor_says_what_was_meant():
    with pytest.raises(InputError, match=r"unknown editor 'rom'. Did you mean 'rome'. Available: .*ft, .*rome"):
        get_editor("rom")


def test_presets_follow_the_models_shape():
    assert resolve_config("rome", GPTJ_6B).layer == 5
    assert resolve_config("ft", GPTJ_6B).layers == (21,)
    assert resolve_config("rome", GPTJ_6B, {"layer": 7, "lr": 0.1}).lr == 0.1
    assert preset("rome", SimpleNamespace(model_type="gptj", num_hidden_layers=2, hidden_size=8)) == {}


@pytest.mark.parametrize(("overrides", "complaint"), [
    ({"layr": 3}, "unknown field 'layr'. Did you mean 'layer'"),
    ({"steps": 0}, "steps: .* greater than 0"),
    ({"key": "both"}, "key: .*'consistent' or 'original'"),
    ({"layer": "five"}, "layer: .*'five'"),
    ({"clamp": float("inf")}, "clamp: .*finite"),
    ({"contexts": [[5, 0]]}, r"contexts.*greater than 0"),
    ({"layer": 28}, "layer 28 does not exist; the model has layers 0 to 27"),
])
def test_bad_settings_name_the_field(overrides, complaint):
    with pytest.raises(InputError, match=complaint):
        resolve_config("rome", GPTJ_6B, overrides)


def test_a_model_without_preset_needs_its_required_fields():
    other = SimpleNamespace(model_type="gptj", num_hidden_layers=2, hidden_size=8)
    with pytest.raises(InputError, match="layer: required, because there is no preset for this model"):
        resolve_config("rome", other)
    assert resolve_config("rome", other, {"layer": 1}).layer == 1


@pytest.mark.parametrize("name", sorted(EDITORS))
def test_every_setting_says_what_it_is_and_where_its_value_is_from(name):
    for field, info in get_editor(name).Config.model_fields.items():
        assert re.search(r"et al\. |[Pp]ublished|Ours|EasyEdit", info.description or ""), field
