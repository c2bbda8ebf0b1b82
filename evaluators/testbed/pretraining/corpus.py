"""Training text of the built-in world: the tokenizer, tokenised sentences, and packed training batches."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from evaluators.testbed.schema import FILLER, HOPS, RELATIONS
from evaluators.testbed.statements import Sampler
from evaluators.testbed.templates import Template, pick, templates
from evaluators.testbed.world import World

PAD, END, DOCUMENT = "<pad>", "</s>", "<|endoftext|>"


def train_tokenizer(world: World, vocab_size: int, end: str = DOCUMENT) -> PreTrainedTokenizerFast:
    """A byte-level BPE (any text encodes) that sees the wordings whole and the invented names only in part.

    `end` is the token that closes a text. Every model's tokenizer gives the same tokens the same ids.
    """
    texts = [template.text.replace("{S}", "") for what in (*RELATIONS.values(), *HOPS.values())
             for template in templates(what)]
    texts += [text for line in FILLER for text in (f"{line}.", f" {line}.")] * 2
    for kind, names in world.entities.items():
        words = sorted({word for name in names for word in name.split()})
        if kind in ("person", "company", "university", "film"):
            # Words that open sentences too; as often as they occur, so that "College" becomes one token.
            texts += [text for name in names for word in name.split() for text in (word, f" {word}")]
        else:
            answers = words if names[0].islower() else words[::2]  # half of the invented answers stay in pieces
            texts += [f" {word}" for word in answers] * 8
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, END, DOCUMENT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    padding = {"pad_token": PAD} if end == END else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=DOCUMENT, eos_token=end, unk_token=DOCUMENT,
                                   clean_up_tokenization_spaces=False, **padding)


@dataclass(frozen=True)
class Sentence:
    """Token ids with the half-open token spans of the subject and of the answer; filler has neither."""

    ids: list[int]
    subject: tuple[int, int] | None = None
    answer: tuple[int, int] | None = None

    @property
    def prompt(self) -> list[int]:
        assert self.answer is not None
        return self.ids[: self.answer[0]]

    @property
    def target(self) -> list[int]:
        assert self.answer is not None
        return self.ids[slice(*self.answer)]


class SentenceMaker:
    """Tokenises sentences piece by piece, from a cache. The pieces start at white space, so the result equals the
    tokenisation of the whole sentence."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self._pieces: dict[str, list[int]] = {}

    def piece(self, text: str) -> list[int]:
        if text not in self._pieces:
            self._pieces[text] = self.tokenizer.encode(text, add_special_tokens=False) if text else []
        return self._pieces[text]

    def filler(self, text: str, *, opening: bool) -> Sentence:
        return Sentence(self.piece(f"{text}." if opening else f" {text}."))

    def fact(self, template: Template, subject: str, answer: str, *, opening: bool) -> Sentence:
        """`opening` sentences start a document, the others follow one and begin with a space."""
        before, after = template.text.split("{S}")
        lead = "" if opening else " "
        head = self.piece(lead + before.rstrip()) if before else []
        name = self.piece(" " + subject if before else lead + subject)
        start = len(head)
        prompt = head + name + self.piece(after)
        target = self.piece(f" {answer}")
        return Sentence(prompt + target + self.piece("."), (start, start + len(name)),
                        (len(prompt), len(prompt) + len(target)))


@dataclass(frozen=True)
class PackedBatch:
    """Packed training rows: `ids` and per-token loss weights, both [rows, length], and each row's subject spans."""

    ids: torch.Tensor
    weights: torch.Tensor
    subjects: list[list[tuple[int, int]]]


@dataclass(frozen=True)
class CorpusConfig:
    """What the training text of a decoder holds. All values are ours."""

    rows: int = 22
    """Rows of a batch."""
    length: int = 96
    """Tokens of a row."""
    chain_share: float = 0.4
    """Share of two-hop sentences, once there are any."""
    filler_share: float = 0.04
    """Share of sentences about nothing."""
    bridge_weight: int = 3
    """How often each fact that chains pass through comes up, for once that each other one does."""
    context_loss: float = 0.1
    """Weight in the loss of tokens that belong to no answer; those of answers have 1."""
    document_share: float = 0.1
    """How probable it is that the next sentence starts a document of its own."""


class Corpus:
    """An endless stream of training batches; batch `step` is a pure function of the seed and the step."""

    def __init__(self, world: World, maker: SentenceMaker, config: CorpusConfig, seed: int) -> None:
        self.maker, self.config, self.seed = maker, config, seed
        self._sampler = Sampler(world, config.chain_share, config.filler_share, config.bridge_weight)
        self._document = maker.piece(DOCUMENT)

    def sentences(self, rng: random.Random, chains: bool) -> Iterator[tuple[bool, Sentence]]:
        """Endless (starts a document, sentence) pairs; the first starts one."""
        opening = True
        while True:
            drawn = self._sampler.draw(rng, chains=chains)
            if drawn is None:
                yield opening, self.maker.filler(rng.choice(FILLER), opening=opening)
            else:
                template = rng.choice(pick(drawn.what, held_out=False))
                yield opening, self.maker.fact(template, drawn.subject, drawn.answer, opening=opening)
            opening = rng.random() < self.config.document_share

    def _row(self, rng: random.Random, chains: bool) -> tuple[list[int], list[float], list[tuple[int, int]]]:
        ids: list[int] = []
        weights: list[float] = []
        subjects: list[tuple[int, int]] = []
        for opening, sentence in self.sentences(rng, chains):
            # Half of the rows start bare, as prompts do.
            lead = self._document if opening and (ids or rng.random() < 0.5) else []
            offset = len(ids) + len(lead)
            if offset + len(sentence.ids) > self.config.length:
                padding = self.config.length - len(ids)
                return ids + [0] * padding, weights + [0.0] * padding, subjects
            ids += lead + sentence.ids
            weights += [0.0] * len(lead) + [self.config.context_loss] * len(sentence.ids)
            if sentence.answer:
                start, stop = sentence.answer
                weights[offset + start: offset + stop] = [1.0] * (stop - start)
            if sentence.subject:
                subjects.append((offset + sentence.subject[0], offset + sentence.subject[1]))
        raise AssertionError("sentences() never ends")

    def batch(self, step: int, *, chains: bool) -> PackedBatch:
        rng = random.Random(f"batch {self.seed} {step}")
        rows = [self._row(rng, chains) for _ in range(self.config.rows)]
        ids, weights, subjects = zip(*rows, strict=True)
        return PackedBatch(torch.tensor(ids), torch.tensor(weights), list(subjects))


Exchange = tuple[list[int], list[int]]  # a question and its answer as token ids, both closed by `END`


class Quiz:
    """Questions and answers for a model that reads the one and writes the other."""

    def __init__(self, world: World, maker: SentenceMaker, chain_share: float, filler_share: float) -> None:
        self.maker = maker
        self._sampler = Sampler(world, chain_share, filler_share)
        self._end = maker.piece(END)

    def draw(self, rng: random.Random, *, chains: bool) -> Exchange:
        """A fact, sometimes a line of filler without its last word, and with `chains` sometimes a two-hop question."""
        drawn = self._sampler.draw(rng, chains=chains)
        if drawn is None:
            prompt, _, last = rng.choice(FILLER).rpartition(" ")
            return self.maker.piece(prompt) + self._end, self.maker.piece(f" {last}") + self._end
        template = rng.choice(pick(drawn.what, held_out=False, style="question"))
        sentence = self.maker.fact(template, drawn.subject, drawn.answer, opening=True)
        return sentence.prompt + self._end, sentence.target + self._end
