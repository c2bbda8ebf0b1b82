"""The log in a store: nothing lost, nothing twice, and no harm where the store does not take it."""

from __future__ import annotations

import re

import pytest
from support.processes import wait_for

from cluster import journal
from cluster.journal import Journal, kept_in
from cluster.log import LOGGER, log_event, logged_by
from cluster.store.errors import StoreError
from cluster.store.store import Store


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


def numbers(store):
    """The numbers of all events in the store's logs, in order."""
    texts = [store._files.read(f"logs/{path.rpartition('/')[2]}").decode() for path in store.logs()]
    assert all(text.endswith("\n") for text in texts)
    return [int(re.search(r"number=(\d+)", line)[1]) for text in texts for line in text.splitlines()]


def test_all_lines_are_there_at_the_end_in_files_that_sort_by_time(store):
    for start in (0, 5):
        with kept_in(store):
            for number in range(start, start + 5):
                log_event("task-done", number=number)
            assert len(store.logs()) == start // 5  # nobody was kept waiting for it
        log_event("nobody listens")
    runs = [path.rpartition("/")[2].split("-")[0] for path in store.logs()]
    assert len(runs) == 2 and runs == sorted(runs) and not LOGGER.handlers
    assert sorted(numbers(store)) == list(range(10)) and not store.strays()


def test_lines_are_there_before_the_end(store):
    with kept_in(store, interval=0.01):
        log_event("task-done", number=1)
        wait_for(store.logs)
        assert numbers(store) == [1]


def test_whatever_ends_the_block_lines_are_kept(store):
    with pytest.raises(KeyboardInterrupt), kept_in(store):
        log_event("task-done", number=1)
        raise KeyboardInterrupt
    assert numbers(store) == [1]


def test_a_full_part_is_written_once(store, monkeypatch):
    monkeypatch.setattr(journal, "PART", 500)
    written, write = [], Store.write_log
    monkeypatch.setattr(Store, "write_log", lambda self, name, text: (written.append(name), write(self, name, text)))
    with logged_by(found := Journal(store)):
        for number in range(60):
            log_event("task-done", number=number)
            if number % 4 == 3:
                found.write()
    found.write()
    assert numbers(store) == list(range(60))
    sizes = store._files.sizes("logs").values()
    assert len(sizes) > 4 and max(sizes) < 600
    assert len(written) <= 15 + len(sizes) + 1  # one for each write, and one more where it ran into the next part


def test_a_store_that_fails_for_a_while_gets_all_lines_later(store, monkeypatch):
    def fail(self, name, text):
        raise StoreError("no room")

    found = Journal(store)
    with logged_by(found):
        for number in range(3):
            log_event("task-done", number=number)
        with monkeypatch.context() as broken:
            broken.setattr(Store, "write_log", fail)
            found.write()
        log_event("task-done", number=3)
        found.write()
    assert numbers(store) == [0, 1, 2, 3]


def test_a_run_that_had_nothing_to_say_leaves_no_file(store):
    with kept_in(store):
        pass
    assert store.logs() == []
