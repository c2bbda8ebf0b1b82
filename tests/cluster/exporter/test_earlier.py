"""What earlier runs have scored, read beside this one."""

from __future__ import annotations

import json
import logging
import time

from support.watched import FULL

from cluster.driver import run_campaign
from cluster.exporter import earlier
from cluster.exporter.earlier import catching_up
from cluster.exporter.tally import Tally
from cluster.store.errors import StoreError
from cluster.store.store import Store


def test_means_are_complete_again_after_a_resume(make_plan, tmp_path, local_pool):
    planned, store = make_plan(), Store.create(tmp_path / "store")
    run_campaign(planned, store, local_pool(store))
    scores = [task for task in planned.tasks.values() if task.kind == "score"]
    for task in scores:  # as workers leave them
        path = tmp_path / "store" / "provenance" / f"{task.id}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **FULL.model_dump(mode="json")}))
    tally = Tally(planned)
    with catching_up(tally, store, list(planned.tasks.values())):
        pass  # it ends what it has begun
    tally.count_told()
    found = {labels[4]: mean for labels, mean in tally.means.items() if labels[-1] == "reliability.exact"}
    assert found == {editor: (6.0, 8) for editor in ("identity", "ft", "rome")}  # of two tasks each


def test_a_campaign_that_ends_first_does_not_wait_for_it(make_plan, tmp_path, monkeypatch):
    planned, store, asked = make_plan(), Store.create(tmp_path / "store"), []
    monkeypatch.setattr(earlier, "AT_ONCE", 1)
    monkeypatch.setattr(store, "provenances", lambda keys, pick: asked.append(keys) or time.sleep(0.2) or [])
    with catching_up(Tally(planned), store, list(planned.tasks.values())):
        began = time.monotonic()
    assert time.monotonic() - began < 0.5 and len(asked) == 1


def test_a_store_that_fails_is_told_and_the_campaign_goes_on(make_plan, tmp_path, monkeypatch, caplog):
    planned, store = make_plan(), Store.create(tmp_path / "store")

    def fail(keys, pick):
        raise StoreError("out of reach")

    monkeypatch.setattr(store, "provenances", fail)
    tasks = list(planned.tasks.values())
    with caplog.at_level(logging.WARNING, "editfleet"), catching_up(Tally(planned), store, tasks):
        pass
    [record] = caplog.records
    assert record.message == "means-incomplete" and record.fields["reason"] == "out of reach"
