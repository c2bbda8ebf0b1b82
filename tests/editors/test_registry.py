"""Editors by name, and their configurations."""

import re
from types import SimpleNamespace

import pytest
from transformers import T5Config

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
    ({"layer": 28}, "layer 28 does not exist; the model's decoder has layers 0 to 27"),
])
def test_bad_settings_name_the_field(overrides, complaint):
    with pytest.raises(InputError, match=complaint):
        resolve_config("rome", GPTJ_6B, overrides)


def test_a_model_without_preset_needs_its_required_fields():
    other = SimpleNamespace(model_type="gptj", num_hidden_layers=2, hidden_size=8)
    with pytest.raises(InputError, match="layer: required, because there is no preset for this model"):
        resolve_config("rome", other)
    assert resolve_config("rome", other, {"layer": 1}).layer == 1


def test_layers_are_those_of_their_stack():
    config, rest = T5Config(num_layers=2, num_decoder_layers=4), {"steps": 1, "batch_size": 1, "learning_rate": 1}
    assert resolve_config("ke", config, {"layers": [3], "encoder_layers": [1], **rest}).encoder_layers == (1,)
    for wrong, told in (({"layers": [4]}, "layer 4 does not exist; the model's decoder has layers 0 to 3"),
                        ({"layers": [3], "encoder_layers": [2]}, "layer 2 .* model's encoder has layers 0 to 1")):
        with pytest.raises(InputError, match=told):
            resolve_config("ke", config, {**wrong, **rest})
    with pytest.raises(InputError, match="layer 0 does not exist; the model has no encoder"):
        resolve_config("ke", GPTJ_6B, {"layers": [3], "encoder_layers": [0]})


def test_presets_are_for_models_whose_stacks_are_both_as_deep():
    size = {"num_layers": 24, "d_model": 2048}
    assert preset("ft", T5Config(**size)) and not preset("ft", T5Config(**size, num_decoder_layers=6))


@pytest.mark.parametrize("name", sorted(EDITORS))
def test_every_setting_says_what_it_is_and_where_its_value_is_from(name):
    for field, info in get_editor(name).Config.model_fields.items():
        assert re.search(r"et al\. |[Pp]ublished|Ours|EasyEdit", info.description or ""), field
