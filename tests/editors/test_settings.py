"""Every setting of every editor says what it is and where its value is from."""

import re

import pytest

from editors import EDITORS, get_editor

SOURCE = re.compile(r"et al\. \d{4}|[Pp]ublished|EasyEdit|\b[Oo]urs\b")


@pytest.mark.parametrize("name", sorted(EDITORS))
def test_every_setting_has_a_description_of_its_own_with_a_source(name):
    said = {field: info.description or "" for field, info in get_editor(name).Config.model_fields.items()}
    assert [field for field, text in said.items() if not SOURCE.search(text)] == []
    assert len(set(said.values())) == len(said)
