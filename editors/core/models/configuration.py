"""What a folder's configuration says: looked at before the library reads it, which would ask to run code and takes
some wrong values for right ones."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from editors.core.errors import quoted
from editors.core.models.folder import ModelFolder

CONFIG, GENERATION, TOKENIZER_CONFIG = "config.json", "generation_config.json", "tokenizer_config.json"
OBJECTS = (CONFIG, GENERATION, TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json")
LIBRARY_CODE = {"trust_remote_code": False}  # for every call that loads: without it, the library may ask at a terminal


def refuse_code(folder: ModelFolder) -> None:
    """Raises `InputError` where a folder's configuration cannot be read, or names Python code beside the library's, of
    which none is ever run."""
    folder.refuse_what_is_no_file()
    for file in filter(folder.has, OBJECTS):
        if "auto_map" in read_object(folder, file):
            raise folder.refusal(f"'{file}' asks for Python code of its own (auto_map), and EditFleet runs none; take "
                                 "a model of the library's own classes, or, where this is one, take 'auto_map' out")


def read_object(folder: ModelFolder, file: str) -> dict[str, Any]:
    """A file that holds a JSON object. Raises `InputError` where it does not."""
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"it holds {constant}, which is no number")

    with folder.reading(file):
        try:
            found = json.loads((folder.path / file).read_text(encoding="utf-8"), parse_constant=refuse)
        except RecursionError:
            raise folder.damaged(file) from None
        except ValueError as error:
            raise folder.refusal(f"'{file}' is no JSON ({error}); fetch it again") from None
    if not isinstance(found, dict):
        raise folder.refusal(f"'{file}' should be a JSON object and is {quoted(json.dumps(found))}; fetch it again")
    return found


def library_config(folder: ModelFolder) -> Any:
    """The configuration of any model that the library knows. Raises `InputError` like `refuse_code`, and where the
    library makes nothing of it."""
    from transformers import AutoConfig

    refuse_code(folder)
    if not folder.has(CONFIG):
        raise folder.refusal(f"it has no '{CONFIG}'; fetch the folder whole")
    with folder.reading(CONFIG, Exception):
        return AutoConfig.from_pretrained(folder.path, **LIBRARY_CODE)
