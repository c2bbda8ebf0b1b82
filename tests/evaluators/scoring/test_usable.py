"""Cases that a model cannot be asked about are named, and take no other down with them."""

import copy
import re

import pytest
from support.protocols import batch, single
from support.scripted import Joint, Scripted, run, values
from support.tokenizers import sentencepiece

from editors.core.errors import InputError
from editors.core.models.encoder_decoder import EncoderDecoder
from evaluators.cases import Case, Chain, Probe
from evaluators.protocols.stream import Stream, extend
from evaluators.scoring.judge import baseline
from evaluators.scoring.measures import Measures
from evaluators.scoring.measures.fluency import Fluency
from evaluators.scoring.measures.generation import Generation
from evaluators.scoring.usable import audit, check_read, unusable

CASE = Case(id="c", subject="Ann", prompt="Where was Ann born?", target_new="Oslo", target_true="Rome",
            paraphrases=("Ann was born where?",), neighbourhood=(Probe(prompt="Where was Bo born?", target="Rome"),),
            attributes=(Probe(prompt="Ann plays", target="golf"),),
            portability=(Chain(prompt="In which country was Ann born?", target="Norway",
                               link=Probe(prompt="Oslo lies in", target="Norway")),))


@pytest.fixture(scope="module")
def lettered(tiny_t5):
    """A T5 that reads letters and, as an unknown token, everything else."""
    return EncoderDecoder(tiny_t5.module, sentencepiece(), "lettered")


@pytest.mark.parametrize(("change", "reason"), [
    ({"target_new": "東京"}, "rewrite 0: the answer '東京' has characters that 'lettered' has no token for: 東 京"),
    ({"target_new": "A{b}"}, "rewrite 0: the answer 'A{b}' has .*: { }"),
    ({"target_true": "Σ"}, "rewrite 0: the answer 'Σ' has"),
    ({"target_new": "Rome "}, "rewrite 0: the answer 'Rome ' and its rival 'Rome' are the same tokens to 'lettered'"),
    ({"target_new": "Rome"}, "rewrite 0: the answer 'Rome' and its rival 'Rome' are the same tokens"),
    ({"subject": "Ł", "prompt": "Where was Ł born?"}, "rewrite 0: the prompt 'Where was Ł .* has .*: Ł"),
    ({"paraphrases": ("ok", "Ann 東京はどこで生まれた")}, "paraphrase 1: the prompt .* has"),
    ({"neighbourhood": (Probe(prompt="Bo is in", target="Łódź"),)}, "neighbourhood 0: the answer 'Łódź' has .*: Ł ó ź"),
    ({"attributes": (Probe(prompt="Ann plays", target="Ω"),)}, "attributes 0: the answer"),
    ({"portability": (Chain(prompt="So?", target="x", link=Probe(prompt="y", target="Ω")),)}, "link 0: the answer"),
])
def test_what_a_model_cannot_read_makes_a_case_unusable(lettered, change, reason):
    sound = CASE.model_copy(update={"id": "sound"})
    (failed,) = unusable(lettered, [CASE.model_copy(update=change), sound])
    assert failed.case_id == "c"
    assert re.match(reason, failed.reason), failed.reason


def test_a_few_unknown_characters_in_a_probes_prompt_are_context(lettered, tiny_t5):
    odd = CASE.model_copy(update={"paraphrases": ("The “Łódź” of it. Ann was born where?",)})
    assert unusable(lettered, [odd]) == []
    (found,) = audit(lettered, [CASE, odd.model_copy(update={"id": "odd"})])
    assert (found.case_id, found.flag) == ("odd", "unknown-characters")
    assert found.detail.startswith("paraphrase 0: the prompt") and found.detail.endswith(": “ Ł ó ź ”")
    assert list(audit(tiny_t5, [odd])) == []


def odd_cases(model):
    """A model with a token that has no embedding, and cases that it cannot be asked about, each for its own reason."""
    larger = copy.copy(model)
    larger.tokenizer = copy.deepcopy(model.tokenizer)
    larger.tokenizer.add_tokens(["Zedin"])
    changes = {"token": {"target_new": "Zedin"}, "probe": {"attributes": (Probe(prompt="Zedin is", target="x"),)},
               "half": {"unrelated": (Probe(prompt="a\ud800", target="x"),)}, "same": {"target_new": "Rome"},
               "long": {"generation_prompts": ("far too long " * 100,)}}
    return larger, [CASE.model_copy(update={"id": name, **change}) for name, change in changes.items()]


def test_one_bad_case_takes_no_other_down(tiny_gptj, cases):
    larger, odd = odd_cases(tiny_gptj)
    measures = Measures((Generation(tokens=3, template="Read and answer this question: {prompt}"), Fluency(tokens=8)))
    edge = cases[1].model_copy(update={"id": "edge", "prompt": "X" * 120})  # too long in the template
    asked = [odd[0], cases[0], *odd[1:3], edge, cases[1], *odd[3:]]
    names = {case.id for case in (*odd, edge)}
    before, failed = baseline(larger, asked, measures.of_baseline)
    assert {skip.case_id for skip in failed} == names - {"long"}  # what the unedited model is not asked
    expected = values(single(Scripted(larger), cases[:2], before, measures))
    for result in (single(Scripted(larger), asked, before, measures), batch(Joint(larger), asked, before, 1, measures)):
        assert {skip.case_id for skip in result.failed} == names
        assert values(result) == pytest.approx(expected, abs=1e-4)


def test_a_stream_goes_on_without_them(tiny_gptj, cases):
    larger, odd = odd_cases(tiny_gptj)
    stream = extend(Scripted(larger), [*odd, cases[1]], Stream())
    assert {skip.case_id for skip in stream.failed} == {"token", "probe", "half", "same"}
    assert stream.facts.prompts == {cases[1].prompt, CASE.prompt}


def test_answers_of_unknown_characters_are_never_right(lettered):
    result = run(Scripted(lettered), [CASE.model_copy(update={"target_new": "Ω", "target_true": "Σ"}),
                                      CASE.model_copy(update={"id": "sound"})])
    assert [skip.case_id for skip in result.failed] == ["c"]
    assert {score.case_id for score in result.scores} == {"sound"}


def test_a_corpus_that_a_model_cannot_read_is_refused(lettered, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("Ann lives in 東京\n", encoding="utf-8")
    check_read(lettered, str(path))
    path.write_text("東京は日本の首都\n" * 3 + "Ann\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"text\.txt': most letters of its texts are .* no token for: 東 京"):
        check_read(lettered, str(path))
