"""How a model's tokenizer reads prompts and targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from editors.core.errors import CaseError, quoted
from editors.core.models.batches import Encoded
from editors.core.models.text import lost_characters, mostly_lost
from editors.core.requests import EditRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BLANK = "\u2581"  # SentencePiece's
TEXTS = 2**16  # of each tokenizer, at most, whose tokens are remembered
#: Texts' tokens by tokenizer: the same questions are asked of many edits, and reading them takes a tenth of that.
_READ: WeakKeyDictionary[PreTrainedTokenizerFast, dict[str, tuple[int, ...]]] = WeakKeyDictionary()


class Reader(ABC):
    """Text to tokens, for the model `name`, which is one."""

    tokenizer: PreTrainedTokenizerFast
    name: str

    @property
    @abstractmethod
    def max_length(self) -> int | None:
        """Most tokens the model can read at once; None where there is no limit."""

    @property
    @abstractmethod
    def embeddings(self) -> int:
        """Tokens that it has embeddings for."""

    def encode(self, prompt: str, target: str = "", *, end: bool = False) -> Encoded:
        """Tokenises prompt and target separately, so that no token straddles the boundary: the prompt as a text of its
        own, which begins as the tokenizer has texts begin (`start`), and the target as what follows it.

        `end` closes the target with the end token where the architecture has one: to train on, not to score.
        Raises `CaseError` for an empty prompt, for a text longer than the model's positions, and like `tokenise`.
        """
        prompt_ids = self.tokenise(prompt.rstrip())
        if not prompt_ids:
            raise CaseError("the prompt is empty")
        target_ids = self.tokenise_next(target.strip()) if target.strip() else ()
        encoded = self._close(self.start + prompt_ids, target_ids, end)
        if self.max_length is not None and len(encoded) > self.max_length:
            raise CaseError(f"{len(encoded)} tokens, but '{self.name}' reads at most {self.max_length}: "
                            f"'{prompt[:60]}...'")
        return encoded

    def tokenise(self, text: str) -> tuple[int, ...]:
        """A text's token ids, without special tokens. Raises `CaseError` for a text that is no Unicode, and for a token
        without an embedding."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise CaseError(f"{quoted(ascii(text))} has half a character, which is no Unicode") from error
        ids = self._ids(text)
        if (highest := max(ids, default=0)) >= self.embeddings:
            raise CaseError(f"token '{self.tokenizer.convert_ids_to_tokens(highest)}' of {quoted(text)} has the id "
                            f"{highest}, but '{self.name}' has embeddings for {self.embeddings} tokens")
        return ids

    def _ids(self, text: str) -> tuple[int, ...]:
        known = _READ.setdefault(self.tokenizer, {})
        if text not in known:
            if len(known) >= TEXTS:
                known.clear()
            known[text] = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        return known[text]

    def tokenise_next(self, text: str) -> tuple[int, ...]:
        """The token ids of a text behind a space, in the middle of another. Raises like `tokenise`."""
        return self.tokenise(text.lstrip() if self._opens_words else f" {text}")

    @cached_property
    def start(self) -> tuple[int, ...]:
        """What the tokenizer puts before a text by itself, a BOS or nothing: prompts begin with it."""
        plain = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = self.tokenizer("a")["input_ids"]
        return tuple(next((whole[:at] for at in range(len(whole)) if whole[at: at + len(plain)] == plain), ()))

    @cached_property
    def _opens_words(self) -> bool:
        """Whether the tokenizer has every text begin with a word, and so a blank of its own (SentencePiece): one more
        would be a token by itself."""
        tokens = self.tokenizer.convert_ids_to_tokens(self.tokenizer("a", add_special_tokens=False)["input_ids"])
        return bool(tokens) and str(tokens[0]).startswith(BLANK)

    def text_of(self, prompt: Sequence[int]) -> str:
        """The text of an encoded prompt."""
        return str(self.tokenizer.decode(list(prompt[len(self.start):])))

    def lost(self, text: str) -> str:
        """Those of a text's characters that the tokenizer has no token for; empty where the text can be read whole."""
        return lost_characters(self.tokenizer, text)

    def mostly_lost(self, *texts: str) -> str:
        """Those characters where they are most of the letters of texts, else "": then nothing is read in them."""
        return mostly_lost(self.tokenizer, texts)

    def _close(self, prompt: tuple[int, ...], target: tuple[int, ...], end: bool) -> Encoded:
        return Encoded(prompt, target)

    def subject_index(self, request: EditRequest) -> int:
        """Position of the subject's last token among the prompt's tokens."""
        spans = self.tokenizer(request.prompt.rstrip(), add_special_tokens=False, return_offsets_mapping=True)
        inside = [i for i, (start, _) in enumerate(spans["offset_mapping"]) if start < request.subject_end]
        return len(self.start) + inside[-1]
