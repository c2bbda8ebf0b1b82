"""Free generation against a loop of plain forward passes that take the most probable token."""

import copy

import pytest
import torch
from support.routes import A, B, map_side, other
from transformers import GenerationConfig

from editors.core.models.batches import Encoded
from editors.core.models.parts import shallow
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import LowRank, Patch, Route
from evaluators.scoring.decoding import Decoding, generate

PROMPTS = ("A", "Where was Art Budrer born?", "The river that flows through the city where she lives is")


def patch_of(model, seed):
    generator = torch.Generator().manual_seed(seed)
    return Patch((LowRank(model.down_path(1), torch.randn(32, 2, generator=generator),
                          torch.randn(64, 2, generator=generator)),))


def greedy(model, prompt, tokens):
    """The continuation of one prompt, without a cache, padding or a batch."""
    encoded, written = model.encode(prompt), []
    end = model.module.config.eos_token_id
    for _ in range(tokens):
        question = Encoded(encoded.prompt, (*written, 0))
        with torch.no_grad():
            logits = model.own_target_logits(model.collate([question]))
        written.append(int(logits[-1].argmax()))
        if written[-1] == end:
            break
    return model.tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_each_row_is_greedy_decoding_under_its_own_patch(model):
    patches = [patch_of(model, 1), patch_of(model, 2)]
    rows = [0, -1, 1, 1, -1, 0]
    prompts = [PROMPTS[number % 3] for number in range(6)]
    with overlay(model, patches, rows):
        texts = generate(model, [model.encode(prompt) for prompt in prompts], Decoding(6))
    for text, row, prompt in zip(texts, rows, prompts, strict=True):
        with overlay(model, patches[row] if row >= 0 else Patch()):
            assert text == greedy(model, prompt, 6)
    assert len(set(texts)) > 2


def test_it_ends_at_a_stop_text_that_is_not_cut_too_early(model):
    (whole,) = generate(model, [model.encode(PROMPTS[1])], Decoding(30))
    stop = whole.strip()[3]
    (short,) = generate(model, [model.encode(PROMPTS[1])], Decoding(30, (stop,)))
    assert whole.startswith(short) and stop in short and len(short) < len(whole)
    (longer,) = generate(model, [model.encode(PROMPTS[1])], Decoding(30, (stop,)), passed=[whole.count(stop)])
    assert longer == whole


def test_a_prompt_may_fill_all_positions(tiny_gptj):
    full = Encoded(tuple([5] * tiny_gptj.max_length), ())
    almost = Encoded(tuple([5] * (tiny_gptj.max_length - 2)), ())
    for prompt, room in ((full, 1), (almost, 2)):
        (text,) = generate(tiny_gptj, [prompt], Decoding(5))
        assert 1 <= len(tiny_gptj.tokenise(text)) <= room


def test_what_follows_the_end_is_no_text(tiny_gptj):
    """A row that is done is filled up beside a longer one, here with a token that is not special; and the model's
    folder has no say in how tokens are chosen."""
    texts = [generate(tiny_gptj, [tiny_gptj.encode(prompt)], Decoding(12))[0] for prompt in PROMPTS]
    odd = copy.copy(tiny_gptj)
    odd.module = shallow(tiny_gptj.module)
    odd.module.config = copy.deepcopy(tiny_gptj.module.config)
    (first, *_), longest = tiny_gptj.tokenise(texts[1]), max(map(len, map(tiny_gptj.tokenise, texts)))
    odd.module.config.eos_token_id, odd.module.config.pad_token_id = first, tiny_gptj.tokenise("x")[0]
    odd.module.generation_config = GenerationConfig(repetition_penalty=5.0, bad_words_ids=[[first]])
    together = generate(odd, [odd.encode(prompt) for prompt in PROMPTS], Decoding(12))
    assert together == [generate(odd, [odd.encode(prompt)], Decoding(12))[0] for prompt in PROMPTS]
    assert together[1] == "" and any(together) and longest > 1
    assert all(whole.startswith(text) for whole, text in zip(texts, together, strict=True))


def test_draws_depend_on_the_seed_alone(model):
    prompt = [model.encode(PROMPTS[1])]
    draws = [generate(model, prompt, Decoding(12, top_k=50, seed=seed)) for seed in (1, 1, 2)]
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    assert draws[0] == draws[1] == generate(model, prompt, Decoding(12, top_k=50, seed=1)) and draws[0] != draws[2]
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("kind", ["tiny_gptj", "tiny_t5"])
def test_a_question_in_scope_is_answered_by_the_side_model(kind, request):
    model = copy.copy(request.getfixturevalue(kind))
    model.sides = {"one": map_side(model, other(model))}
    asked = [model.encode(prompt) for prompt in ("A is in", "Is C?", "B lives in")]
    patches = [Patch((Route(side="one", memory=(entry,)),)) for entry in (A, B)]
    with overlay(model, patches, [0, 0, 1]):
        texts = generate(model, asked, Decoding(8))
    side = model.sides["one"]
    for text, question, entry in ((texts[0], asked[0], A), (texts[2], asked[2], B)):
        (expected,) = generate(side.model, [side.in_context(entry, Encoded(question.prompt, ()))], Decoding(8))
        assert text == expected
    own = [generate(model, [question], Decoding(8))[0] for question in asked]
    assert texts[1] == own[1] and texts[0] != own[0] and texts[2] != own[2]
