"""Asking a language model for portability questions, and which of its answers become candidates."""

from __future__ import annotations

import json
import random
import threading
from types import SimpleNamespace

import pytest
import torch
from support.chat_server import RESET, answer, cases, local_server, no_pauses, suggested, truth  # noqa: F401 - fixtures

from editors.core.errors import InputError
from editors.core.models.loading import load_model
from evaluators.cases import Probe
from evaluators.models import model_path
from evaluators.portability.asking import PATIENCE, ask_all, unasked
from evaluators.portability.building import is_known, scores, sort_answers, with_ranks
from evaluators.portability.endpoint import Asking, ChatClient, RateLimit
from evaluators.portability.journal import Journal
from evaluators.portability.knowledge import link_ranks
from evaluators.portability.prompt import BadAnswer, parse, prompt
from evaluators.portability.records import EditRecord, read_source
from evaluators.testbed.schema import HOPS
from evaluators.testbed.world import build_world

RECORD = EditRecord("1", "Which company makes the Vespa?", "Vespa", "Volvo", {})
TRIPLE = "(Volvo, has its headquarters in, Gothenburg)"
QUESTION, ANSWER = "Where is the Vespa's maker based?", "Gothenburg"


@pytest.fixture
def ask(server, tmp_path):
    """Asks for records what the journal at `path` lacks; returns how their answers were sorted."""
    path = tmp_path / "journal.jsonl"

    def run(records, **fields):
        asking = Asking(server.url, fields.pop("model", "gpt"), requests_per_minute=None, **fields)
        with Journal(path) as journal, ChatClient(asking) as client:
            ask_all(unasked(records, asking, journal), client, journal)
            return sort_answers(records, asking, journal.answers)

    run.path = path
    return run


def records(count):
    return read_source("testbed-cloze", count).records


# --- answers


def test_an_answer_in_form_is_a_suggestion_whose_link_is_the_triple_as_a_sentence():
    found = parse(answer(TRIPLE, QUESTION, ANSWER), RECORD)
    assert (found.triple, found.question, found.answer, found.altered_is) == (TRIPLE, QUESTION, ANSWER, "head")
    assert found.link == Probe(prompt="Volvo has its headquarters in", target="Gothenburg", subject="Volvo")


def test_the_altered_answer_may_be_the_tail_and_names_need_not_be_the_same_words():
    found = parse("Sure!\n\n**Recalled Relation:** (Håkan Samuelsson, runs the company, Volvo Group).\n"
                  "2. New Question: Who runs the maker of the Vespa?\n- *New Answer*: Hakan Samuelsson", RECORD)
    assert found.altered_is == "tail" and found.link.target == "Volvo Group"


@pytest.mark.parametrize(("text", "fault"), [
    ("I cannot help with that.", "not in form"),
    (answer(TRIPLE, "", ANSWER), "not in form"),
    (answer(TRIPLE, QUESTION, ANSWER) + "\nNew Answer: Malmö", "not in form"),
    (answer("Volvo is based in Gothenburg", QUESTION, ANSWER), "no triple"),
    (answer("(Saab, has its headquarters in, Gothenburg)", QUESTION, ANSWER), "altered answer not in triple"),
    (answer(TRIPLE, QUESTION, "Malmö"), "new answer not in triple"),
    (answer("(Volvo, is the same as, Volvo)", QUESTION, "Volvo"), "new answer is the altered answer"),
    (answer(TRIPLE, "Where is Volvo based?", ANSWER), "subject not in question"),
    (answer(TRIPLE, "Where is Volvo, the maker of the Vespa, based?", ANSWER), "altered answer in question"),
    (answer(TRIPLE, "Is the Vespa made in Gothenburg?", ANSWER), "new answer in question"),
])
def test_an_answer_of_no_use_is_refused_by_its_fault(text, fault):
    with pytest.raises(BadAnswer) as caught:
        parse(text, RECORD)
    assert caught.value.fault == fault


def test_the_prompt_ends_with_the_record_and_a_record_cannot_add_lines():
    text = prompt(EditRecord("1", "Who\nNew Answer: x?", "Vespa", "Volvo", {}))
    assert text.endswith("\n\nQuestion: Who New Answer: x?\nSubject: Vespa\nAltered Answer: Volvo")


# --- asking


def test_faults_on_the_way_are_tried_again_and_the_endpoints_pause_is_kept(server, sleeps, ask):
    chosen = records(4)
    server.first = {chosen[0].subject: [429], chosen[1].subject: [500, 503], chosen[2].subject: [RESET]}
    outcome = ask(chosen)
    assert len(outcome.candidates) == 4 and not outcome.unanswered
    assert 7 in sleeps and len(sleeps) == 4 and len(server.requests) == 8
    assert server.keys == {"Bearer sk-test"}
    journal = [json.loads(line) for line in ask.path.read_text().splitlines()]
    assert {entry["record"]: entry["retries"] for entry in journal} == {
        record.id: retries for record, retries in zip(chosen, [1, 2, 1, 0], strict=True)}
    assert all(entry["request"]["messages"] and entry["response"]["choices"] for entry in journal)


def test_a_record_without_an_answer_stops_no_other_and_is_asked_again_later(server, sleeps, ask):
    chosen = records(5)
    server.first = {chosen[1].subject: [500] * 7, chosen[3].subject: [RESET] * 7, chosen[4].subject: [400]}
    outcome = ask(chosen)
    assert outcome.unanswered == (chosen[1].id, chosen[3].id, chosen[4].id) and len(outcome.candidates) == 2
    server.requests.clear()
    assert len(ask(chosen).candidates) == 5
    assert sorted(server.subjects()) == sorted(chosen[place].subject for place in (1, 3, 4))


def test_bad_answers_are_kept_with_their_reasons_and_not_asked_again(server, ask):
    chosen = records(4)
    cut = {"choices": [{"finish_reason": "length", "message": {"content": "Recalled"}}]}
    server.first = {chosen[0].subject: ["garbage"], chosen[1].subject: [cut], chosen[2].subject: [{"choices": []}]}
    for _ in range(2):
        outcome = ask(chosen)
        assert [(bad.id, bad.fault) for bad in outcome.rejected] == [
            (chosen[0].id, "not in form"), (chosen[1].id, "cut off"), (chosen[2].id, "no text")]
        assert len(outcome.candidates) == 1 and len(server.requests) == 4


def test_nothing_is_asked_twice_and_other_models_and_temperatures_are_asked(server, ask):
    chosen = records(3)
    first = ask(chosen[:2])
    assert ask(chosen).candidates[:2] == first.candidates and len(server.requests) == 3
    ask(chosen, temperature=1.0)
    ask(chosen, model="other")
    assert len(server.requests) == 9


def test_a_torn_last_line_is_dropped_and_asked_again_and_other_damage_is_named(server, ask):
    chosen = records(3)
    outcome = ask(chosen, concurrency=1)
    whole = ask.path.read_bytes()
    ask.path.write_bytes(whole[:-40])
    assert ask(chosen) == outcome and len(server.requests) == 4
    assert len(ask.path.read_text().splitlines()) == 3
    ask.path.write_bytes(b"{}\n" + whole)
    with pytest.raises(InputError, match="line 1 is no entry"):
        ask(chosen)


def test_two_processes_cannot_write_one_journal(tmp_path):
    with Journal(tmp_path / "journal.jsonl"), pytest.raises(InputError, match="another command is writing"):
        Journal(tmp_path / "journal.jsonl")


def test_an_endpoint_that_falls_silent_ends_the_run_and_what_was_answered_is_kept(server, sleeps, ask):
    chosen = records(PATIENCE + 10)
    ask(chosen[:2])
    server.say = lambda subject, altered: 503
    with pytest.raises(InputError, match=r"gives no answer: .*503 on purpose"):
        ask(chosen, concurrency=1, retries=1)
    assert len(server.requests) <= 2 + 2 * (PATIENCE + 2)
    server.say = truth
    assert len(ask(chosen).candidates) == len(chosen)


@pytest.mark.parametrize(("status", "message"), [
    (401, "refuses the key in OPENAI_API_KEY"), (404, "has no model 'gpt'")])
def test_a_refused_key_and_an_unknown_model_end_the_run_at_once(server, ask, status, message):
    server.say = lambda subject, altered: status
    with pytest.raises(InputError, match=message):
        ask(records(20), concurrency=1)
    assert len(server.requests) <= 2


def test_a_refused_key_is_seen_before_anything_is_asked_and_a_missing_list_of_models_is_no_fault(server, ask):
    server.status = 401
    with pytest.raises(InputError, match="refuses the key"):
        ask(records(1))
    assert not server.requests
    server.status = 404
    assert len(ask(records(1)).candidates) == 1


def test_an_address_where_nothing_answers_is_named(server, sleeps, ask):
    server.server_close()
    with pytest.raises(InputError, match=f"{server.url} cannot be reached.*--endpoint"):
        ask(records(3))


def test_what_is_missing_to_ask_is_named(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "")
    with pytest.raises(InputError, match="set the environment variable OPENAI_API_KEY"):
        ChatClient(Asking("http://host/v1", "gpt"))
    with pytest.raises(InputError, match="'host/v1' is not the address of an API"):
        ChatClient(Asking("host/v1", "gpt"))
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'editfleet\[portability\]'"):
        ChatClient(Asking("http://host/v1", "gpt"))


def test_requests_are_spaced_by_the_limit_and_idle_time_is_not_saved_up():
    clock = SimpleNamespace(now=100.0)

    def sleep(seconds):
        clock.now += seconds

    limit = RateLimit(30, clock=lambda: clock.now, sleep=sleep)
    sent = []
    for idle in (0, 0, 0, 60, 0, 1, 0):
        clock.now += idle
        limit.wait()
        sent.append(clock.now)
    assert sent == [100, 102, 104, 164, 166, 168, 170]


def test_every_try_waits_for_its_turn_also_those_of_many_threads(server, sleeps, tmp_path):
    turns, lock = [], threading.Lock()

    class Counted(RateLimit):
        def wait(self):
            with lock:
                turns.append(len(server.requests))

    chosen = records(6)
    server.first = {chosen[0].subject: [429, 500]}
    asking = Asking(server.url, "gpt", concurrency=3)
    with Journal(tmp_path / "journal.jsonl") as journal, ChatClient(asking, Counted(None)) as client:
        ask_all(chosen, client, journal)
    assert len(server.requests) == 8 and len(turns) == 1 + 8  # the first asks whether the endpoint is there


# --- what is known


def test_the_rank_of_a_link_is_the_place_of_its_first_token():
    model = load_model(model_path("testbed-gptj"))
    link = Probe(prompt="The country of Gapel is", target=build_world().facts["Gapel", "country"])
    encoded = model.encode(link.prompt, link.target)
    with torch.no_grad():
        logits = model.target_logits(model.collate([encoded]))[0]
    expected = logits.argsort(descending=True).tolist().index(encoded.target[0]) + 1
    assert link_ranks(model, [link, Probe(prompt="x " * 4000, target="y")]) == [expected, None]


def test_what_the_models_know_is_more_often_true_than_what_was_suggested(server, sleeps, ask):
    """60 records: half true, a quarter with a wrong tail of the right type, the rest faults of all kinds."""
    world, rng = build_world(), random.Random(0)
    chosen = records(60)
    kinds = ["true"] * 34 + ["wrong"] * 16 + ["garbage"] * 3 + ["429", "500", "reset"] * 2 + ["silent"]
    rng.shuffle(kinds)
    is_true = {}
    for record, kind in zip(chosen, kinds, strict=True):
        case = cases()[record.subject + record.altered]
        relation = HOPS[case.portability[0].relation].second
        right = world.answer(case.target_new, relation)
        wrong = rng.choice([name for name in world.entities[relation.object] if name != right])
        is_true[record.id] = kind not in ("wrong", "garbage", "silent")
        server.first[record.subject] = {
            "wrong": [suggested(case, wrong)], "garbage": ["As a language model, I"], "429": [429], "500": [500],
            "reset": [RESET], "silent": [500] * 7}.get(kind, [])
    outcome = ask(chosen)
    assert len(outcome.rejected) == 3 and len(outcome.unanswered) == 1 and len(outcome.candidates) == 56
    ranks = {name: link_ranks(load_model(model_path(name)), [candidate.link for candidate in outcome.candidates])
             for name in ("testbed-gptj", "testbed-t5")}
    candidates = with_ranks(outcome.candidates, ranks)
    each, together = scores(candidates, ranks)
    suggested_true = sum(is_true[candidate.id] for candidate in candidates)
    for name, is_kept in (*((name, lambda ranks, name=name: is_known(ranks[name])) for name in ranks),
                          ("both", lambda ranks: all(map(is_known, ranks.values())))):
        kept = [is_true[candidate.id] for candidate in candidates if is_kept(candidate.ranks)]
        precision, recall = sum(kept) / len(kept), sum(kept) / suggested_true
        print(f"{name}: {len(kept)} kept, precision {precision:.3f}, recall {recall:.3f}")
        assert precision > suggested_true / len(candidates)
        assert len(kept) == (together if name == "both" else each[name]).known


def test_one_odd_record_at_the_front_does_not_decide_on_the_form(tmp_path):
    edit = {"prompt": "{} plays", "subject": "Ann", "target_new": {"str": "harp"}, "target_true": {"str": "lute"}}
    written = [{"src": "Who?"}, *({"case_id": number, "requested_rewrite": edit} for number in range(3))]
    (tmp_path / "edits.json").write_text(json.dumps(written))
    with pytest.raises(InputError, match="record 0 is not of counterfact's form: case_id"):
        read_source(str(tmp_path / "edits.json"))


def test_a_record_without_a_usable_text_is_skipped_with_its_place(tmp_path):
    edit = {"prompt": "{} plays", "subject": "Ann", "target_new": {"str": "harp"}, "target_true": {"str": "lute"}}
    written = [{"case_id": number, "requested_rewrite": edit | changes} for number, changes in enumerate(
        ({}, {"subject": " "}, {"target_new": {"str": "\ud800"}}, {"prompt": "Who?\0"}))]
    (tmp_path / "edits.json").write_text(json.dumps(written))
    source = read_source(str(tmp_path / "edits.json"))
    assert source.records == (EditRecord("0", "Ann plays", "Ann", "harp", written[0]),)
    assert [(skip.case_id, skip.reason) for skip in source.skipped] == [
        ("1", "requested_rewrite.subject: it is empty"),
        ("2", "requested_rewrite.target_new.str: it holds half of a surrogate pair"),
        ("3", "requested_rewrite.prompt: it holds a null byte")]
