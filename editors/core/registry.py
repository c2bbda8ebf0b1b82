"""Tables of what can be named: `name: "module:Class"`, so that naming a thing imports no other."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from editors.core.errors import unknown


def look_up(what: str, name: str, table: Mapping[str, str]) -> Any:
    """The class that stands under a name. Raises `InputError` with the nearest name for one that does not."""
    if name not in table:
        raise unknown(what, name, table)
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
