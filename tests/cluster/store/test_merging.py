"""Campaigns of several stores as one table: what counts once, what is pooled, and what is kept apart."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from cluster.store.merging import letters, merge
from cluster.store.records import ROW_SCHEMA, CampaignRecord, ResultKey, SweptEntry, TaskRecord
from cluster.store.source import Source
from cluster.store.store import Store
from editors.core.errors import InputError
from evaluators.report.tables import summarise


def row(task, editor, case, value, **changes):
    return {"editor": editor, "model": "m", "dataset": "d", "protocol": "single", "edits": 1,
            "metric": "reliability.exact", "value": float(value), "case_id": case, "subject": case, "task": task,
            "settings": "s", "seed": 0, "order": 0, "texts": None, **changes}


def record(*tasks, name="c", sweep=()):
    return CampaignRecord(name=name, digest=name, started=datetime(2030, 1, 1, tzinfo=UTC), datasets=(), sweep=sweep,
                          tasks=tuple(TaskRecord(task, "score", "rows", task, 1) for task in tasks))


@pytest.fixture
def sources(tmp_path):
    """Sources of (planned tasks, {task: rows}), each a store of its own."""
    def make(*stores, sweeps=()):
        found = []
        for letter, (planned, results) in zip("ABC", stores, strict=False):
            store = Store.create(tmp_path / letter)
            for task, rows in results.items():
                store.write_table(ResultKey("rows", task), pa.Table.from_pylist(rows, schema=ROW_SCHEMA), {})
            sweep = sweeps[len(found)] if sweeps else ()
            found.append(Source.read(letter, store, record(*planned, name=f"c{letter}", sweep=sweep)))
        return found

    return make


def means(merged):
    return {(each.editor, each.dataset): (each.mean, each.n) for each in summarise(merged.scores)}


FT = {"t1": [row("t1", "ft", "a", 1), row("t1", "ft", "b", 0)]}
ROME = {"t2": [row("t2", "rome", "a", 1), row("t2", "rome", "b", 1)]}


def test_rows_of_other_cells_stand_side_by_side(sources):
    merged = merge(sources((["t1"], FT), (["t2"], ROME)))
    assert means(merged) == {("ft", "d"): (0.5, 2), ("rome", "d"): (1, 2)} and merged.notes == []


def test_a_task_that_both_have_counts_once(sources):
    merged = merge(sources((["t1"], FT), (["t1", "t2"], FT | ROME), (["t1"], FT)))
    assert means(merged) == {("ft", "d"): (0.5, 2), ("rome", "d"): (1, 2)} and merged.scores.num_rows == 4
    assert merged.notes == ["what A and others have counts once, as A has it: 1 task"]


def test_parts_of_one_campaign_are_pooled(sources):
    """Each store has half the tasks that both plan, and a third part of them twice."""
    parts = {task: [row(task, "ft", case, value)]
             for task, case, value in (("t1", "a", 1), ("t2", "b", 0), ("t3", "c", 0))}
    plan = list(parts)
    merged = merge(sources((plan, {task: parts[task] for task in ("t1", "t2")}),
                           (plan, {task: parts[task] for task in ("t2", "t3")})))
    [(mean, cases)] = means(merged).values()
    assert mean == pytest.approx(1 / 3) and cases == 3 and merged.scores.num_rows == 3


def test_other_tasks_of_one_cell_are_kept_apart_with_all_of_their_setting(sources):
    """Both have `ft` by another version; `rome` is in A alone, and another setting in both is not concerned."""
    other = {"t9": [row("t9", "ft", "a", 0), row("t9", "ft", "b", 0)]}
    elsewhere = {"t5": [row("t5", "ft", "a", 1, dataset="e")]}
    merged = merge(sources((["t1", "t2", "t5"], FT | ROME | elsewhere), (["t9", "t5"], other | elsewhere)))
    assert means(merged) == {("ft", "d [store A]"): (0.5, 2), ("rome", "d [store A]"): (1, 2),
                             ("ft", "d [store B]"): (0, 2), ("ft", "e"): (1, 1)}
    [told, once] = merged.notes
    assert told.startswith("d on m, single, 1 edit: the stores' rows are of other tasks")
    assert "'d [store A]' and 'd [store B]'" in told and "editfleet diff" in told and once.endswith("1 task")


def test_a_shared_task_is_in_both_where_settings_are_kept_apart(sources):
    """B has one task more of the cell, which no plan of A has, and lacks one of A's: each keeps its own mean."""
    more, fewer = {"t3": [row("t3", "ft", "c", 1)]}, {"t4": [row("t4", "ft", "d", 0)]}
    merged = merge(sources((["t1", "t4"], FT | fewer), (["t1", "t3"], FT | more)))
    assert means(merged) == {("ft", "d [store A]"): (pytest.approx(1 / 3), 3),
                             ("ft", "d [store B]"): (pytest.approx(2 / 3), 3)}


def test_more_of_the_same_is_pooled_where_one_campaign_plans_it_all(sources):
    more = {"t3": [row("t3", "ft", "c", 1)]}
    merged = merge(sources((["t1"], FT), (["t1", "t3"], FT | more)))
    assert means(merged) == {("ft", "d"): (pytest.approx(2 / 3), 3)}


def test_one_store_is_as_it_is(sources):
    [source] = sources((["t1", "t2"], FT))
    merged = merge([source])
    assert merged.scores.num_rows == 2 and source.undone == {"t2"} and merged.notes == []


def cost(task, value, device="V100"):
    return row(task, "ft", "repeat 0", value, protocol="efficiency", metric="cost.seconds", texts=[device, "float32"])


def test_costs_of_one_task_count_once_by_device(sources):
    merged = merge(sources((["t1"], {"t1": [cost("t1", 1)]}), (["t1"], {"t1": [cost("t1", 2)]}),
                           (["t1"], {"t1": [cost("t1", 3, "H200")]})))
    assert merged.costs["value"].to_pylist() == [1, 3] and "same kind of device" in merged.notes[0]


def test_costs_of_other_tasks_are_kept_apart(sources):
    merged = merge(sources((["t1"], {"t1": [cost("t1", 1)]}), (["t2"], {"t2": [cost("t2", 2)]})))
    assert list(zip(*(merged.costs[name].to_pylist() for name in ("dataset", "value")), strict=True)) == [
        ("d [store A]", 1), ("d [store B]", 2)]


def entry(rate):
    return SweptEntry(part="editors", name="ft lr", varies="ft", settings={"lr": rate})


def test_sweeps_are_joined_unless_they_mean_other_settings(sources):
    both = sources((["t1"], FT), (["t2"], ROME), sweeps=((entry(0.1),), (entry(0.1),)))
    assert merge(both).sweep == [entry(0.1)]
    apart = [both[0], both[1]._replace(record=record("t2", name="other", sweep=(entry(0.2),)))]
    with pytest.raises(InputError, match=r"'other'.*other settings by 'ft lr' than a store before it"):
        merge(apart)


def test_there_are_letters_for_so_many_stores():
    assert letters(2) == "AB"
    with pytest.raises(InputError, match="27 stores are too many"):
        letters(27)
