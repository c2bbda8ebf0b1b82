"""A model's folder: which of its files are the model, and what identifies their content."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from safetensors import SafetensorError

from editors.core.errors import InputError
from editors.core.files import no_file
from editors.core.places import scrubbed

# The files that decide what a model says, beside those that its weights' index lists.
CONTENT = re.compile(r".*\.(safetensors|model)|(config|generation_config|tokenizer.*|vocab|merges|added_tokens"
                     r"|special_tokens_map)\.(json|txt)")
SAFE = ("model.safetensors", "model.safetensors.index.json")  # one file, or the index of several
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
UNREADABLE = (OSError, ValueError, SafetensorError)
OTHERS = re.compile(r".*\.(h5|msgpack|ot|gguf|pth?|ckpt.*|onnx|bin|safetensors)")  # weights, but not under these names


@dataclass(frozen=True)
class WeightFiles:
    """The files that weights are read from, relative to their folder; `listed` is what an index, where there is one,
    says of which weight is in which. They are safetensors or PyTorch's pickles."""

    names: tuple[str, ...]
    pickled: bool
    index: str | None = None
    listed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFolder:
    """Where a model (or `what` it is) is: the `name` that the user gave it, its folder, and of a hub's snapshot the
    `commit`."""

    name: str
    path: Path
    commit: str | None = None
    what: str = "model"

    def has(self, file: str) -> bool:
        return (self.path / file).exists()

    def refusal(self, problem: str) -> InputError:
        return InputError(f"cannot load {self.what} '{self.name}': {problem}")

    def damaged(self, file: str) -> InputError:
        return self.refusal(f"'{file}' is cut short or damaged; fetch it again")

    @contextmanager
    def reading(self, file: str | None = None,
                errors: type[Exception] | tuple[type[Exception], ...] = UNREADABLE) -> Iterator[None]:
        """Inside, what the library raises of a file that cannot be read is an `InputError`, which names the `file`. Of
        a configuration that nothing can be made of, it may raise anything: `Exception`."""
        try:
            yield
        except InputError:
            raise
        except errors as error:
            told = scrubbed(str(error)).strip() or type(error).__name__
            first, *more = map(str.strip, told.splitlines())
            words = f"{first} {more[0]}" if first.endswith(":") and more else first
            raise self.refusal(f"'{file}': {words}" if file else words) from error

    def refuse_what_is_no_file(self) -> None:
        """Raises `InputError` where a folder or a link that leads nowhere has the name of one of its files, one may not
        be read, or anything there is a pipe or the like: the library opens more than these, and would wait for ever."""
        with self.reading():
            found = sorted(self.path.iterdir())
        for path in found:
            if (kind := no_file(path)) and not path.is_dir():
                raise self.refusal(f"'{path.name}' is {kind}, and no file; remove it, or fetch the folder again")
            if CONTENT.fullmatch(path.name) or path.name in (*SAFE, *PICKLED):
                with self.reading(path.name):
                    if not path.is_file():
                        raise self.refusal(f"'{path.name}' is no file, or a link that leads to none; fetch it again")
                    path.open("rb").close()

    def weight_files(self) -> WeightFiles:
        """Those in safetensors where there are any; else pickles, as old checkpoints have. Raises `InputError` where
        there are neither, or an index cannot be followed."""
        for (single, index), pickled in ((SAFE, False), (PICKLED, True)):
            if self.has(single):
                return WeightFiles((single,), pickled)
            if self.has(index):
                listed = self._listed(index)
                return WeightFiles(tuple(sorted(set(listed.values()))), pickled, index, listed)
        there = sorted(file.name for file in self.path.iterdir() if OTHERS.fullmatch(file.name))
        raise self.refusal(f"it has no weights that can be read ({', '.join((*SAFE, *PICKLED))})" + (
            f"; what it has is {', '.join(there)}. Load those with the library that they are of, and `save_pretrained` "
            "the model" if there else ". Fetch the folder whole"))

    def _listed(self, index: str) -> Mapping[str, str]:
        try:
            said = json.loads((self.path / index).read_text(encoding="utf-8"))
            listed = said["weight_map"]
            files = {PurePosixPath(file) for file in listed.values()}
            if not isinstance(said.get("metadata", {}), dict):  # the library writes into it
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise self.damaged(index) from None
        # A link is followed wherever it leads: it is the user's own, or the hub cache's. An index comes from others.
        if outside := sorted(str(file) for file in files if file.is_absolute() or ".." in file.parts):
            raise self.refusal(f"'{index}' leads out of the folder, to '{outside[0]}'; put that file into the folder, "
                               "and its name into the index")
        found: Mapping[str, str] = listed
        return found

    def digest(self) -> str:
        """A digest of the weights, configuration and tokenizer; of hub name and commit where they are a hub's."""
        if self.commit is not None:
            return hashlib.sha256(f"{self.name}@{self.commit}".encode()).hexdigest()[:16]
        digest, weights = hashlib.sha256(), self.weight_files()
        names = {file.name for file in self.path.iterdir() if file.is_file() and CONTENT.fullmatch(file.name)}
        for name in sorted(names.union(weights.names, [weights.index] if weights.index else [])):
            digest.update(name.encode())
            with (self.path / name).open("rb") as stream:
                while block := stream.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest()[:16]
