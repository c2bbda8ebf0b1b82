"""GGUF files, in which models come for laptops: unpacked once, as a folder with whole weights in the user's cache."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import os
from pathlib import Path

from filelock import FileLock

from editors.core.errors import InputError
from editors.core.files import atomic_folder
from editors.core.models.conversion import cache_folder
from editors.core.models.hugging_face import quiet, save_folder

NEEDED = ("gguf", "accelerate")  # by the library, to read them


def unpacked(file: Path) -> Path:
    """The folder of a GGUF file's model: its weights in float32, its configuration and its tokenizer. Takes half a
    minute for 135 million parameters, unless it is there already.

    What a quantised file had rounded off stays lost: edits are made to the weights as they are. Processes of one
    machine wait for each other. Raises `InputError` where the file cannot be read, or the cache cannot be written.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise InputError(f"cannot load model '{file}': reading a GGUF file needs {' and '.join(missing)}; pip install "
                         "'editfleet[gguf]'")
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
        folder = cache_folder() / f"gguf-{digest}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.{os.uname().nodename}.lock"):
            if not folder.exists():
                with atomic_folder(folder) as partial:
                    _unpack(file, partial)
    except OSError as error:
        raise InputError(f"cannot load model '{file}': {error.strerror or error}; it is unpacked into the folder that "
                         "EDITFLEET_CACHE names, which needs room for four bytes a parameter") from error
    return folder


def _unpack(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet():
        try:
            source = {"gguf_file": file.name, "trust_remote_code": False}
            packed = AutoModelForCausalLM.from_pretrained(file.parent, **source)
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
        except Exception as error:  # whatever a damaged file, or one of another kind, makes the readers raise
            raise InputError(f"cannot load model '{file}': it is no GGUF file of a language model that transformers "
                             f"can read, or it is damaged ({type(error).__name__})") from error
        config = copy.deepcopy(packed.config)
        del config.quantization_config  # the weights are whole now; with it, the library would refuse to save them
        whole = type(packed)(config)
        whole.load_state_dict(packed.state_dict())
        save_folder(folder, whole, tokenizer)
