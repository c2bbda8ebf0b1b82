"""Items in groups that are read together."""

from editors.core.models.batches import by_length


def test_groups_hold_every_item_once_within_the_budget():
    sizes = [3, 9, 1, 4, 4, 30, 2]
    found = list(by_length(sizes, 12))
    assert found == [[2, 6, 0], [3, 4], [1], [5]]
    assert all(len(group) == 1 or max(sizes[n] for n in group) * len(group) <= 12 for group in found)
    assert list(by_length([], 5)) == []


def test_groups_waste_no_more_than_they_may():
    sizes = [3, 3, 3, 4, 9, 9, 10, 30]
    assert list(by_length(sizes, 1000)) == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert list(by_length(sizes, 1000, 5)) == [[0, 1, 2, 3], [4, 5, 6], [7]]
    assert list(by_length(sizes, 1000, 2)) == [[0, 1, 2], [3], [4, 5, 6], [7]]
    assert list(by_length(sizes, 9, 5)) == [[0, 1, 2], [3], [4], [5], [6], [7]]
