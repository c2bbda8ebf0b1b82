"""What a built-in model knows, and where: recall per kind of question, and causal patching at the subject."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from transformers import GPTJForCausalLM, PreTrainedModel, T5ForConditionalGeneration

from evaluators.testbed.pretraining.corpus import Sentence, SentenceMaker
from evaluators.testbed.pretraining.t5 import collate
from evaluators.testbed.schema import RELATIONS
from evaluators.testbed.statements import Statement, chains, facts
from evaluators.testbed.templates import Style, pick
from evaluators.testbed.world import World


def exact_match(model: PreTrainedModel, sentences: Sequence[Sentence], batch_size: int = 128) -> float:
    """Share of sentences whose answer tokens are all the argmax, given the prompt and the answer so far."""
    guess = _guess_t5 if isinstance(model, T5ForConditionalGeneration) else _guess_gptj
    ordered = sorted(sentences, key=lambda sentence: len(sentence.ids))
    correct = 0
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start: start + batch_size]
        correct += sum(answer == sentence.target for answer, sentence in zip(guess(model, batch), batch, strict=True))
    return correct / len(sentences)


@torch.no_grad()
def _guess_gptj(model: PreTrainedModel, sentences: Sequence[Sentence]) -> list[list[int]]:
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(s.ids) for s in sentences], batch_first=True)
    guesses = model(input_ids=ids).logits.argmax(-1)
    spans = [(len(s.prompt) - 1, len(s.prompt) + len(s.target) - 1) for s in sentences]
    return [row[begin:end].tolist() for row, (begin, end) in zip(guesses, spans, strict=True)]


@torch.no_grad()
def _guess_t5(model: PreTrainedModel, sentences: Sequence[Sentence]) -> list[list[int]]:
    end = [int(model.config.eos_token_id)]
    ids, mask, labels = collate([(s.prompt + end, s.target + end) for s in sentences])
    guesses = model(input_ids=ids, attention_mask=mask, labels=labels).logits.argmax(-1)
    return [row[: len(s.target)].tolist() for row, s in zip(guesses, sentences, strict=True)]


def examine(model: PreTrainedModel, world: World, maker: SentenceMaker, limit: int = 3000,
            seed: int = 0) -> dict[str, float]:
    """Exact match per kind of question, each over at most `limit` sampled facts; a T5 knows questions alone."""
    questions_only = isinstance(model, T5ForConditionalGeneration)
    single, seen, unseen = facts(world), chains(world), chains(world, in_training=False)
    kinds: dict[str, tuple[list[Statement], bool, Style | None]] = {
        "facts": (single, False, "question" if questions_only else None),
        "held-out questions": (single, True, "question"),
        **({} if questions_only else {"held-out cloze": (single, True, "cloze")}),
        "two-hop, subjects in training": (seen, False, "question"),
        "two-hop, subjects held out": (unseen, False, "question"),
        "two-hop, subjects and wording held out": (unseen, True, "question"),
    }
    exact = {}
    for name, (statements, held_out, style) in kinds.items():
        rng = random.Random(f"examination {seed}")
        chosen = rng.sample(statements, min(limit, len(statements)))
        exact[name] = exact_match(model, [
            maker.fact(rng.choice(wordings), subject, answer, opening=True) for what, subject, answer in chosen
            if (wordings := pick(what, held_out=held_out, style=style))])
    return exact


@torch.no_grad()
def causal_patching(model: GPTJForCausalLM, world: World, maker: SentenceMaker, facts: int = 50,
                    seed: int = 0) -> list[float]:
    """Share of facts restored by copying one state at the subject's last token, per depth (Meng et al. 2022, sec. 2).

    Each prompt is run with another subject of the same length in place of its own, so that the answer is lost; then
    the state of the true run at the subject's last token is put back at one depth. Depth 0 is the embedding, depth
    l+1 the output of block l. A fact counts as restored when the whole true answer is the argmax again.
    """
    rng = random.Random(f"patching {seed}")
    people = [((subject, name), answer) for (subject, name), answer in world.facts.items()
              if RELATIONS[name].subject == "person"]
    depths = [model.transformer.drop, *model.transformer.h]
    restored = [0] * len(depths)
    measured = 0
    while measured < facts:
        (subject, name), answer = rng.choice(people)
        template = rng.choice(pick(RELATIONS[name], held_out=False, style="cloze"))
        true = maker.fact(template, subject, answer, opening=True)
        other = rng.choice(world.entities["person"])
        false = maker.fact(template, other, answer, opening=True)
        if world.facts[other, name] == answer or false.subject != true.subject or exact_match(model, [true]) == 0:
            continue
        measured += 1
        assert true.subject is not None
        position = true.subject[1] - 1
        for depth, module in enumerate(depths):
            restored[depth] += _restores(model, module, true, false, position)
    return [count / facts for count in restored]


def _restores(model: GPTJForCausalLM, module: torch.nn.Module, true: Sentence, false: Sentence, position: int) -> bool:
    ids = torch.tensor([true.ids, false.ids])

    def copy_state(_module: torch.nn.Module, _args: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        states = output if isinstance(output, torch.Tensor) else output[0]
        states[1, position] = states[0, position]

    handle = module.register_forward_hook(copy_state)
    try:
        guesses = model(input_ids=ids).logits[1].argmax(-1)
    finally:
        handle.remove()
    begin = len(true.prompt)
    answer: list[int] = guesses[begin - 1: begin - 1 + len(true.target)].tolist()
    return answer == true.target
