"""What is measured in addition, each against a plain computation."""

import json
import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from support.protocols import batch, single
from support.scripted import Scripted, values, with_target
from support.tokenizers import sentencepiece

from editors.core.errors import CaseError
from editors.core.models.encoder_decoder import EncoderDecoder
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import LowRank, Patch
from evaluators.cases import ProbeKey, distracting
from evaluators.scoring.answers import cut, same_answer, stops
from evaluators.scoring.decoding import Decoding, generate
from evaluators.scoring.judge import baseline
from evaluators.scoring.measures import NOTHING_MORE, Measures
from evaluators.scoring.measures.distracting import Distracting
from evaluators.scoring.measures.divergence import Divergence
from evaluators.scoring.measures.fluency import Fluency, Idf, fluency, words, write
from evaluators.scoring.measures.generation import GENERATED, Generation
from evaluators.scoring.measures.perplexity import Perplexity, perplexity
from evaluators.scoring.observe import from_table, observe, questions, to_table
from evaluators.texts import bare_answer

TEXTS = ("The city of Vadolm lies in Fuzoia.", "Art Budrer plays golf.")
ALL = Measures((Divergence(), Distracting(), Generation(tokens=6), Fluency(tokens=12), Perplexity(sample=TEXTS)))


@pytest.fixture
def editor(tiny_gptj):
    return Scripted(tiny_gptj)


@pytest.fixture
def patch(editor, cases):
    return editor.patch(cases[0].request())


def judged(editor, cases, measures):
    before, _ = baseline(editor.model, cases, measures.of_baseline)
    return values(single(editor, cases, before, measures))


def test_what_is_not_asked_for_changes_nothing(editor, cases):
    plain, more = judged(editor, cases, NOTHING_MORE), judged(editor, cases, ALL)
    assert {key: more[key] for key in plain} == pytest.approx(plain, abs=1e-5)
    assert {metric for _, metric in more.keys() - plain.keys()} == {
        "reliability.generation", "generality.generation", "locality.generation", "portability.all.generation",
        "portability.generation", "locality.kl", "locality.attributes.kl", "locality.unrelated.kl",
        "locality.distracting.token", "locality.distracting.exact", "locality.distracting.kl",
        "perplexity"} - ({"portability.generation"} if ("full", "portability.token") not in plain else set())
    assert NOTHING_MORE.identity() == {} and [m.name for m in ALL.of_baseline] == ["kl", "distracting", "generation"]


# --- divergence


@pytest.mark.parametrize("kind", ["tiny_gptj", "tiny_t5"])
def test_kl_is_that_of_two_forward_passes(kind, cases, request):
    model = request.getfixturevalue(kind)
    generator = torch.Generator().manual_seed(3)
    term = LowRank(model.down_path(1), torch.randn(32, 1, generator=generator), torch.randn(64, 1, generator=generator))
    patch = Patch((term,))
    roles = Measures((Divergence(),)).compared
    (edited, unedited) = observe(model, [cases[0], cases[0]], [patch], [0, -1], kl_roles=roles)
    for key, encoded in questions(model, cases[0]).items():
        if key.role not in roles or key.which == "rival":
            assert edited.outputs[key].kl is None
            continue
        batch = model.collate([encoded])
        before = model.target_logits(batch).double().log_softmax(-1)
        with overlay(model, patch):
            after = model.target_logits(batch).double().log_softmax(-1)
        expected = torch.nn.functional.kl_div(after, before, reduction="batchmean", log_target=True)
        assert edited.outputs[key].kl == pytest.approx(float(expected), rel=1e-4) and edited.outputs[key].kl > 0
        assert unedited.outputs[key].kl == 0


def test_the_divergence_from_nonsense_is_infinite(tiny_gptj, cases, patch):
    broken = Patch(tuple(replace(term, a=term.a * math.nan) for term in patch.terms))
    (edited,) = observe(tiny_gptj, [cases[0]], [broken], [0], kl_roles=("neighbourhood",))
    assert edited.get("neighbourhood").kl == math.inf


# --- distraction


def test_a_distracting_probe_is_a_neighbour_behind_the_edit(tiny_gptj, cases):
    probe, _ = distracting(cases[0])
    assert probe.prompt == "The birthplace of Art Budrer is Vadolm. Bo was born in" and probe.target == "Vadolm"
    asked = questions(tiny_gptj, cases[0], Measures((Distracting(),)).roles)
    assert tiny_gptj.tokenizer.decode(asked[ProbeKey("distracting", 0)].prompt) == probe.prompt
    assert ProbeKey("distracting", 0) not in questions(tiny_gptj, cases[0])


# --- free answers


def test_answers_are_what_each_patch_generates(editor, cases):
    model, how = editor.model, Generation(tokens=8, stop=("e",), template="Q: {prompt} A:")
    patches = [editor.patch(case.request()) for case in cases]
    rows = [0, -1, 2]
    observed = observe(model, cases, patches, rows)
    answered = how.observe(model, cases, observed, patches, rows)
    probe = cases[0].neighbourhood[1]
    encoded = model.encode(f"Q: {probe.prompt} A:")
    with overlay(model, patches[0]):
        (text,) = generate(model, [encoded], Decoding(8, ("e",)), [probe.target.count("e")])
    assert answered[0].get("neighbourhood", 1).text == cut(text, probe.target, ("e",))
    for one, other in zip(answered, observed, strict=True):
        for key, outputs in one.outputs.items():
            assert (outputs.text is not None) == (key.role in GENERATED and key.which == "answer")
            assert replace(outputs, text=None) == other.outputs[key]
    assert from_table(to_table(answered)) == answered


def test_generation_is_scored_and_its_texts_are_kept(tiny_gptj, cases):
    """A patch-free editor: the baseline's own texts come back, and locality is whole."""
    from editors.core.editor import EditorConfig
    from editors.identity import Identity

    measures = Measures((Generation(tokens=5),))
    before, _ = baseline(tiny_gptj, cases, measures)
    result = single(Identity(tiny_gptj, EditorConfig()), cases, before, measures)
    found = {(each.case_id, each.metric): each for each in result.scores}
    assert found["full", "locality.generation"].value == 1
    written = before[0].get("rewrite").text
    assert found["full", "reliability.generation"].texts == (written,)
    assert found["full", "reliability.generation"].value == float(same_answer(written, cases[0].target_new))
    assert len(found["full", "generality.generation"].texts) == 2
    assert found["full", "reliability.exact"].texts is None


@pytest.mark.parametrize(("text", "target", "expected"), [
    (" Paris. It is", "Rome", "Paris"), ("Paris\nRome. x", "Rome", "Paris"),
    ("St. Louis. It", "St. Louis", "St. Louis"),
    ("St. Louis", "St. Paul", "St"), ("", "Rome", ""), ("\n Rome. ", "Rome", "Rome"), ("no stop", "x", "no stop"),
    ("Rome, Italy.", "Rome", "Rome, Italy"),
    # The target ends in a stop, or holds one behind an article or in other letters.
    ("Acme Inc. is a firm. It", "Acme Inc.", "Acme Inc"), ("Acme Inc", "Acme Inc.", "Acme Inc"),
    ("Acme Incorporated. It", "Acme Inc.", "Acme Incorporated"), ("U.S. Steel. It", "U.S.", "U.S"),
    ("U.S.A. It", "U.S.", "U.S"), ("the ST. LOUIS Blues.", "St. Louis Blues", "the ST. LOUIS Blues"),
    # Not past more stops than the target has, and not into a longer word.
    ("Rome. Italy", "Rome Italy", "Rome"), ("St. Louisville. It", "St. Louis", "St")])
def test_an_answer_ends_at_a_stop_outside_its_target(text, target, expected):
    assert cut(text, target, (".", "\n")) == expected


def test_stops_of_several_letters():
    assert stops("a and b, and c", (" and", ",")) == [(1, 5), (7, 8), (8, 12)]
    assert stops("a\n\nb\n", ("\n", "\n\n")) == [(1, 3), (4, 5)] and stops("a.", ()) == []
    assert cut("Trinidad and Tobago and more", "Trinidad and Tobago", (" and",)) == "Trinidad and Tobago"
    assert cut("Acme Inc makes", "Acme Inc", (" Inc",)) == "Acme Inc"


def test_an_answer_that_ends_in_a_stop_can_be_right(tiny_gptj, cases):
    """The target is what the model writes, up to and with a stop text: it is right, and was not before."""
    prompt = model_text(tiny_gptj, cases[1].prompt, 12)
    stop = prompt.strip()[2]
    target = prompt.strip()[: prompt.strip().index(stop, 2) + 1]
    case = cases[1].model_copy(update={"target_new": target})
    observed = observe(tiny_gptj, [case], [], [-1])
    (answered,) = Generation(tokens=12, stop=(stop,)).observe(tiny_gptj, [case], observed, [], [-1])
    assert same_answer(answered.get("rewrite").text, target)


def model_text(model, prompt, tokens):
    return generate(model, [model.encode(prompt)], Decoding(tokens))[0]


def test_a_long_question_takes_no_room_from_a_short_one(tiny_gptj, cases):
    """Beside it, the model's 128 positions would end the short question's answer after 3 tokens."""
    long = cases[1].model_copy(update={"id": "long", "prompt": "X" * 125, "target_new": "x"})
    how, asked = Generation(tokens=20, stop=()), [cases[1], long]
    texts = [each.get("rewrite").text
             for each in how.observe(tiny_gptj, asked, observe(tiny_gptj, asked, [], [-1, -1]), [], [-1, -1])]
    assert texts == [model_text(tiny_gptj, cases[1].prompt, 20).strip(), model_text(tiny_gptj, long.prompt, 3).strip()]
    with pytest.raises(ValueError):
        generate(tiny_gptj, [tiny_gptj.encode(case.prompt) for case in asked], Decoding(20))


def test_a_diverged_edit_writes_nothing_and_that_is_wrong(editor, cases):
    """Its logits have no most probable token, and none can be drawn from them: this once ended the whole task."""
    case = with_target(cases[0].model_copy(update={"generation_prompts": ("Art Budrer lives in",)}), "nan", "diverged")
    found = judged(editor, [case, cases[2]], Measures((Generation(tokens=3), Fluency(tokens=9))))
    assert found["diverged", "fluency"] == 0 == found["diverged", "locality.generation"]
    assert found["diverged", "edit.diverged"] == 1 and found["again", "edit.diverged"] == 0


@pytest.mark.parametrize(("left", "right", "same"), [
    ("The Hague", "hague", True), ("U.S.A.", "usa", True), ("Rome, Italy", "Rome Italy", True),
    ("Rome", "Romes", False),
    ("  a  cat ", "cat", True), ("", "the", False), ("!", "?", False), ("Æ", "æ", True)])
def test_the_same_answer(left, right, same):
    assert same_answer(left, right) == same == same_answer(right, left)
    assert bare_answer(bare_answer(left)) == bare_answer(left)


@pytest.mark.parametrize("template", ["no prompt", "{prompt} {prompt}"])
def test_a_template_holds_the_prompt_once(template):
    with pytest.raises(ValidationError, match="once"):
        Generation(template=template)


def test_parts_can_be_switched_on_and_off():
    assert Measures.parse({"generation": True, "fluency": False}) == Measures((Generation(),))
    assert Measures.parse({"perplexity": {"texts": 3}, "kl": True}) == Measures((Divergence(), Perplexity(texts=3)))
    with pytest.raises(ValidationError, match="stop"):
        Generation(stop=("",))


# --- perplexity


@pytest.mark.parametrize("kind", ["tiny_gptj", "tiny_gated_t5"])
def test_perplexity_is_the_models_own_loss(kind, request):
    model = request.getfixturevalue(kind)
    texts = ["The city of Vadolm lies in Fuzoia and nowhere else.", "Art Budrer plays golf and chess."]
    nll, count = 0.0, 0
    for text in texts:
        words_of = text.split()
        if model.has_encoder:
            half = len(words_of) // 2
            encoded = model.encode(" ".join(words_of[:half]), " ".join(words_of[half:]))
            labels = torch.tensor([encoded.target])
            loss = model.module(input_ids=torch.tensor([encoded.prompt]), labels=labels).loss
            tokens = labels.numel()
        else:
            ids = torch.tensor([model.tokenise(text)])
            loss, tokens = model.module(input_ids=ids, labels=ids).loss, ids.numel() - 1
        nll, count = nll + float(loss) * tokens, count + tokens
    generator = torch.Generator().manual_seed(3)
    changed = Patch((LowRank(model.down_path(1), torch.randn(32, 1, generator=generator),
                             torch.randn(64, 1, generator=generator)),))
    broken = Patch((LowRank(model.down_path(1), torch.full((32, 1), math.nan), torch.ones(64, 1)),))
    plain, other, nonsense = perplexity(model, texts, [Patch(), changed, broken])
    assert plain == pytest.approx(math.exp(nll / count), rel=1e-4)
    assert other != pytest.approx(plain, rel=1e-3) and nonsense == math.inf


def test_texts_of_one_token_add_nothing_to_perplexity(tiny_gptj):
    assert (perplexity(tiny_gptj, ["x", "Ann lives in Rome", "y"], [Patch()])
            == perplexity(tiny_gptj, ["Ann lives in Rome"], [Patch()]))


def test_one_token_has_no_perplexity(tiny_gptj):
    with pytest.raises(CaseError, match="single token"):
        perplexity(tiny_gptj, ["x"], [Patch()])


def test_what_a_tokenizer_cannot_read_has_no_perplexity(tiny_t5):
    lettered = EncoderDecoder(tiny_t5.module, sentencepiece(), "lettered")
    with pytest.raises(CaseError, match="most letters of its texts are none that 'lettered' has tokens"):
        perplexity(lettered, ["東京都 東京", "Ann"], [Patch()])
    assert perplexity(lettered, ["Ann lives in 東京"], [Patch()])


def test_cases_of_one_batch_share_its_perplexity(editor, cases):
    class Joint(Scripted):
        joint = True

        def edit(self, requests):
            return sum((self.patch(request) for request in requests), Patch())

    joint, measures = Joint(editor.model), Measures((Perplexity(sample=TEXTS),))
    before, _ = baseline(joint.model, cases)
    found = values(batch(joint, cases, before, 2, measures))
    parts = [joint.edit([case.request() for case in part]) for part in (cases[:2], cases[2:])]
    expected = perplexity(joint.model, TEXTS, parts)
    assert [found[case.id, "perplexity"] for case in cases] == pytest.approx([expected[0], expected[0], expected[1]])


# --- longer texts


def test_fluency_is_the_entropy_of_bigrams_and_trigrams():
    assert fluency(["a a a a"]) == 0
    bigrams, trigrams = math.log2(3), 1.0  # of "a b c d": three bigrams, two trigrams
    assert fluency(["a b c d"]) == pytest.approx((2 / 3 * bigrams + 4 / 3 * trigrams) / 2)
    assert fluency(["a b c d", "a a a a"]) == pytest.approx(fluency(["a b c d"]) / 2)
    uneven = [2 / 4, 1 / 4, 1 / 4]  # "a b a b c": ab twice, ba, bc
    entropy = -sum(share * math.log2(share) for share in uneven)
    assert fluency(["a b a b c"]) == pytest.approx((2 / 3 * entropy + 4 / 3 * math.log2(3)) / 2)
    assert fluency(["word"]) == 0
    assert words("He doesn't like it, does he?") == ["He", "does", "n't", "like", "it", ",", "does", "he", "?"]


def test_consistency_is_the_cosine_of_tf_idf_vectors():
    corpus = ["red fox", "red dog", "blue dog"]
    idf = {word: math.log(4 / (count + 1)) + 1 for word, count in {"red": 2, "fox": 1, "dog": 2, "blue": 1}.items()}
    left, right = {"red": 2 * idf["red"], "fox": idf["fox"]}, {"red": idf["red"], "dog": idf["dog"]}
    dot = left["red"] * right["red"]
    expected = dot / math.sqrt(sum(v * v for v in left.values()) * sum(v * v for v in right.values()))
    found = Idf(corpus)
    assert found.consistency(["Red", "fox red"], ["red dog"]) == pytest.approx(expected)
    assert found.consistency(["fox"], ["dog"]) == 0 == found.consistency(["unknown words"], ["dog"])


def test_what_is_written_is_compared_with_a_cases_references(editor, cases, patch, tmp_path):
    corpus = ["Vadolm is a city of trades.", "Art paints and Art sings.", "Bo lives in Fuzoia"]
    path = tmp_path / "attribute_snippets.json"
    samples = [{"text": text} for text in corpus]
    path.write_text(json.dumps([{"relation_id": "P1", "target_id": "Q1", "samples": samples}]))
    case = cases[0].model_copy(update={"generation_prompts": ("Art paints a city",), "references": tuple(corpus[:2])})
    how = Fluency(tokens=20, snippets=str(path))
    found = judged(editor, [case], Measures((how,)))
    texts = write(editor.model, case, editor.patch(case.request()), how)
    assert found["full", "consistency"] == pytest.approx(Idf(corpus).consistency(texts, case.references)) != 0


def test_texts_begin_with_their_prompts_and_are_drawn_by_case(editor, cases, patch):
    case = cases[0].model_copy(update={"generation_prompts": ("Art Budrer lives in", "Art Budrer lives in")})
    texts = write(editor.model, case, patch, Fluency(tokens=20))
    assert all(text.startswith("Art Budrer lives in") for text in texts) and texts[0] != texts[1]
    assert texts == write(editor.model, case, patch, Fluency(tokens=20))
    shorter = write(editor.model, case, patch, Fluency(tokens=10))
    assert all(long.startswith(short) and long != short for long, short in zip(texts, shorter, strict=True))
    found = judged(editor, [case], Measures((Fluency(tokens=20),)))
    assert found["full", "fluency"] == pytest.approx(fluency(texts)) and ("full", "consistency") not in found
