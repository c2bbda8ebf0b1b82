"""What `import editors` offers, and what it costs."""

import subprocess
import sys
from types import ModuleType

import pytest
import torch

import editors
from editors import EDITORS, Artefact, EditRequest, InputError, Resources, get_editor, resolve_config
from editors.core.patches.patch import Patch

REQUESTS = [EditRequest("Ann lives in", "Ann", "Omerga"), EditRequest("Bo works for", "Bo", "Vard")]
SMALL = {"layers": [1], "steps": 3}


def run(program):
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_exported_list_is_complete():
    found = {name: getattr(editors, name) for name in editors.__all__}
    own = {name for name in dir(editors) if not name.startswith("_") and (
        name in editors._LAZY or getattr(getattr(editors, name), "__module__", "").startswith("editors"))}
    assert own - {"architecture", "look_up"} == set(found) - {"EDITORS"}
    assert not any(isinstance(value, ModuleType) for value in found.values())
    with pytest.raises(AttributeError, match="no attribute 'edits'"):
        editors.edits  # noqa: B018


def test_names_cost_no_torch():
    run("import sys, editors; from editors import EDITORS, EditRequest, InputError\n"
        "try:\n    editors.get_editor('rom')\nexcept InputError as error:\n    assert \"mean 'rome'\" in str(error)\n"
        "try:\n    editors.edit_each(None, 'rom', [])\nexcept InputError:\n    sys.exit('torch' in sys.modules)\n")


def test_editors_cost_none_of_the_librarys_models():
    run("import sys; from editors import EDITORS, get_editor, load_model, overlay\n"
        "for name in EDITORS: get_editor(name)\n"
        "sys.exit('transformers.modeling_utils' in sys.modules or 'transformers.activations' in sys.modules)")


def test_an_edit_by_name_is_the_editors_own(tiny_gptj):
    config = resolve_config("ft", tiny_gptj.module.config, SMALL)
    editor = get_editor("ft")(tiny_gptj, config, seed=3)
    for mine, own in ((editors.edit_each(tiny_gptj, "ft", REQUESTS, seed=3, **SMALL), editor.edit_each(REQUESTS)),
                      ([editors.edit(tiny_gptj, "ft", REQUESTS, seed=3, **SMALL)], [editor.edit(REQUESTS)])):
        assert len(mine) == len(own) and all(isinstance(patch, Patch) for patch in mine)
        for left, right in zip(mine, own, strict=True):
            assert torch.equal(left.terms[0].weight, right.terms[0].weight)
    with pytest.raises(InputError, match="mean 'steps'"):
        editors.edit(tiny_gptj, "ft", REQUESTS, layers=[1], step=3)


def test_resources_reach_an_edit_by_name(tiny_gptj):
    wrong = Resources(artefact=Artefact("mend", 1, {}, "tiny"))
    with pytest.raises(InputError, match="trained for editor 'mend', not 'ke'"):
        editors.edit_each(tiny_gptj, "ke", REQUESTS, resources=wrong, layers=[1], learning_rate=1.0, steps=1,
                          batch_size=1)


def test_no_setting_has_the_name_of_an_argument():
    assert not any({"model", "editor", "requests", "resources", "seed"} & get_editor(name).Config.model_fields.keys()
                   for name in EDITORS)
