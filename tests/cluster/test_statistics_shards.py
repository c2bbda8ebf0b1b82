"""Second moments of a long text as map-reduce: shards that any worker may take, and their sum."""

from __future__ import annotations

import pytest
import torch

from cluster import costs
from cluster.driver import run_campaign
from cluster.store import Store
from editors.core.statistics import load_moments, second_moments
from evaluators.datasets import corpus


@pytest.fixture
def three_shards(monkeypatch):
    monkeypatch.setattr(costs, "shards", lambda shape, layers, tokens: 3)


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


def of_kind(planned, kind):
    return [task for task in planned.tasks.values() if task.kind == kind]


def test_rome_needs_the_sum_and_the_sum_needs_all_shards(make_plan, three_shards):
    planned = make_plan()
    shards, [moments] = of_kind(planned, "statistics"), of_kind(planned, "moments")
    assert [task.title for task in shards] == [f"second moments of tiny: layers 1, shard {n} of 3" for n in (1, 2, 3)]
    assert moments.needs == tuple(task.id for task in shards)
    assert sum(task.shard.tokens(task.tokens) for task in shards) == 500
    needed = {need for task in of_kind(planned, "score") for need in task.needs}
    assert moments.id in needed and not needed & set(moments.needs)


def test_ids_tell_the_shards_apart_from_each_other_and_from_the_whole(make_plan, three_shards, monkeypatch, tmp_path):
    def ids():
        planned = make_plan(**changes)
        return {task.id for kind in ("statistics", "moments") for task in of_kind(planned, kind)}

    changes = {}
    before = ids()
    assert len(before) == 4 and ids() == before
    changes = {"statistics": {"tokens": 501}}
    assert not ids() & before
    (tmp_path / "text.txt").write_text("one line\n")
    changes = {"statistics": {"corpus": "text.txt", "tokens": 500}}
    assert not ids() & before
    changes = {}
    for count in (1, 4):
        monkeypatch.setattr(costs, "shards", lambda *args, count=count: count)
        assert not ids() & before
    monkeypatch.setattr(costs, "shards", lambda *args: 3)
    monkeypatch.setattr("editors.core.statistics.VERSION", 99)
    assert not ids() & before


def test_the_sum_is_what_one_pass_over_the_same_texts_yields(make_plan, three_shards, store, local_pool, tiny_gptj):
    planned = make_plan()
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


def read_by(task, model):
    """The texts a shard reads, as a plain loop finds them."""
    seen = 0
    for place, text in enumerate(corpus(task.corpus)):
        if place % task.shard.count == task.shard.number:
            yield text
            seen += len(model.tokenise(text))
            if seen >= task.shard.tokens(task.tokens):
                return


def test_a_missing_shard_alone_is_done_again(make_plan, three_shards, store, local_pool):
    planned = make_plan(editors=[spec for spec in make_plan().campaign.model_dump()["editors"]
                                 if spec["name"] == "rome"])
    run_campaign(planned, store, local_pool(store))
    _, second, _ = of_kind(planned, "statistics")
    [moments] = of_kind(planned, "moments")
    before = store.local(moments.key).read_bytes()
    for task in (second, moments):
        store.local(task.key).unlink()
    assert run_campaign(planned, store, local_pool(store)).failed == 0
    assert local_pool.pools[1].ran == [second.id, moments.id]
    assert store.local(moments.key).read_bytes() == before
