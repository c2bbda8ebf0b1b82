"""Second moments of a long text as map-reduce: shards that any worker may take, and their sum."""

from __future__ import annotations

import pytest
import torch
from support.campaigns import ROME

from cluster.driver import run_campaign
from cluster.store.store import Store
from cluster.workers.executor import TaskExecutor
from editors.core.models.statistics import load_moments, second_moments
from evaluators.datasets import read_corpus


@pytest.fixture
def make_sharded(make_plan):
    """Plans whose text is taken in three shards."""
    return lambda **changes: make_plan(**{"statistics": {"tokens": 500, "shard": 170}, **changes})


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


def of_kind(planned, kind):
    return [task for task in planned.tasks.values() if task.kind == kind]


def test_rome_needs_the_sum_and_the_sum_needs_all_shards(make_sharded):
    planned = make_sharded()
    shards, [moments] = of_kind(planned, "statistics"), of_kind(planned, "moments")
    assert [task.title for task in shards] == [f"second moments of tiny: layers 1, shard {n} of 3" for n in (1, 2, 3)]
    assert moments.needs == tuple(task.id for task in shards)
    assert sum(task.shard.tokens(task.tokens) for task in shards) == 500
    needed = {need for task in of_kind(planned, "score") for need in task.needs}
    assert moments.id in needed and not needed & set(moments.needs)


def test_ids_tell_the_shards_apart_from_each_other_and_from_the_whole(make_plan, monkeypatch, tmp_path):
    def ids(**changes):
        planned = make_plan(statistics={"tokens": 500, "shard": 170, **changes})
        return {task.id for kind in ("statistics", "moments") for task in of_kind(planned, kind)}

    before = ids()
    assert len(before) == 4 and ids(shard=200) == ids() == before  # as many shards
    assert not ids(tokens=501) & before
    (tmp_path / "text.txt").write_text("one line\n")
    assert not ids(corpus="text.txt") & before
    for shard, count in ((500, 1), (125, 5)):
        assert len(found := ids(shard=shard)) == count and not found & before
    monkeypatch.setattr("editors.core.models.shards.VERSION", 99)
    assert not ids() & before


def test_the_sum_is_what_one_pass_over_the_same_texts_yields(make_sharded, store, local_pool, tiny_gptj):
    planned = make_sharded()
    assert run_campaign(planned, store, local_pool(store, 2)).failed == 0
    [moments] = of_kind(planned, "moments")
    [found] = load_moments(store.local(moments.key)).values()
    texts = [text for task in of_kind(planned, "statistics") for text in read_by(task, tiny_gptj)]
    assert len(set(texts)) == len(texts)
    [expected] = second_moments(tiny_gptj, [1], texts, 10**6).values()
    assert found.count == expected.count >= 500
    torch.testing.assert_close(found.total, expected.total, atol=1e-4, rtol=1e-5)
    [rome, *_] = [task for task in of_kind(planned, "score") if task.method.editor.name == "rome"]
    assert store.provenance(rome.key)["statistics"]["shards"] == 3
    settled = store.provenance(rome.key)["editor"]
    assert settled["contexts"][0] == "" and all(0 < ridge < 1 for ridge in settled["ridge"].values())


def read_by(task, model):
    """The texts a shard reads, as a plain loop finds them."""
    seen = 0
    for place, text in enumerate(read_corpus(task.corpus)):
        if place % task.shard.count == task.shard.number:
            yield text
            seen += len(model.tokenise(text))
            if seen >= task.shard.tokens(task.tokens):
                return


@pytest.fixture
def rome_alone(make_sharded):
    return make_sharded(editors=[{"name": "rome", "config": ROME}])


def present(store, tasks):
    return [store.has(task.key) for task in tasks]


def test_a_missing_shard_alone_is_done_again(rome_alone, store, local_pool):
    first, _, third = of_kind(rome_alone, "statistics")
    for task in (first, third):
        TaskExecutor(store).run(task)
    assert run_campaign(rome_alone, store, local_pool(store)).failed == 0
    assert set(local_pool.pools[0].ran) == set(rome_alone.tasks) - {first.id, third.id}


def test_shards_go_once_their_sum_is_there_and_count_as_done(rome_alone, store, local_pool, make_sharded):
    shards, [moments] = of_kind(rome_alone, "statistics"), of_kind(rome_alone, "moments")
    assert run_campaign(rome_alone, store, local_pool(store)).failed == 0
    assert present(store, shards) == [False] * 3 and store.has(moments.key)
    record = store.campaigns()[0]
    assert store.standing(record).done == set(rome_alone.tasks)
    outcome = run_campaign(rome_alone, store, local_pool(store))
    assert (outcome.done, outcome.failed, len(local_pool.pools)) == (len(rome_alone.tasks), 0, 1)
    other = make_sharded(name="other", editors=[{"name": "rome", "config": {**ROME, "steps": 3}}])
    assert moments.id in other.tasks and run_campaign(other, store, local_pool(store)).failed == 0
    assert not {moments.id, *moments.needs} & {*local_pool.pools[1].ran}


def test_shards_that_a_dead_driver_left_behind_go(rome_alone, store, local_pool):
    shards, [moments] = of_kind(rome_alone, "statistics"), of_kind(rome_alone, "moments")
    for task in (*shards, moments):
        TaskExecutor(store).run(task)
    assert present(store, shards) == [True] * 3
    assert run_campaign(rome_alone, store, local_pool(store)).failed == 0
    assert present(store, shards) == [False] * 3
    assert not {moments.id, *moments.needs} & {*local_pool.pools[0].ran}


def test_a_damaged_sum_has_its_shards_made_again(rome_alone, store, local_pool, make_sharded):
    moments, = of_kind(rome_alone, "moments")
    run_campaign(rome_alone, store, local_pool(store))
    path = store.local(moments.key)
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])
    assert store.standing(store.campaigns()[0]).done == set(rome_alone.tasks)  # all rows are there
    [score, *_] = of_kind(rome_alone, "score")
    store.remove(score.key)
    missing = {score.id, moments.id, *moments.needs}
    assert store.standing(store.campaigns()[0]).done == set(rome_alone.tasks) - missing
    assert run_campaign(rome_alone, store, local_pool(store)).failed == 0
    assert local_pool.pools[1].ran == [*moments.needs, moments.id, score.id] and path.read_bytes() == sound
    assert not any(present(store, of_kind(rome_alone, "statistics")))


def test_a_sum_found_damaged_by_its_reader_has_its_shards_made_again(rome_alone, store, local_pool):
    """In the middle of a run: the driver takes the sum for sound, as it does where it would have to fetch it."""
    moments, = of_kind(rome_alone, "moments")
    run_campaign(rome_alone, store, local_pool(store))
    [score, *_] = of_kind(rome_alone, "score")
    store.remove(score.key)
    path = store.local(moments.key)
    sound = path.read_bytes()

    class Harmful(type(store)):
        def done(self, keys):
            found = super().done(keys)
            path.write_bytes(sound[:-1])
            return found

    outcome = run_campaign(rome_alone, Harmful(store.root), local_pool(store))
    assert (outcome.done, outcome.failed) == (len(rome_alone.tasks), 0)
    assert local_pool.pools[1].ran == [score.id, *moments.needs, moments.id, score.id]
    assert path.read_bytes() == sound and not any(present(store, of_kind(rome_alone, "statistics")))
