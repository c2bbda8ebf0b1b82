"""No change of the code changes the id of a task unawares: the ids of all shipped campaigns are those in a file.

An id is the promise that the same result is in the store. Where results really change, a version is bumped, and
`python tests/jobs/test_task_ids.py` writes the file anew, to be looked at in the commit.
"""

import json
from collections import defaultdict
from pathlib import Path

import pytest
from support.paper_stand_ins import use_stand_ins

from jobs.console import CAMPAIGNS, plan_campaign

GOLDEN = Path(__file__).with_name("task_ids.json")
SCALED = ("table2", "table3", "table4", "figure5", "figure6", "figure7")
MADE_OF_THEM = ("paper",)  # tests/jobs/test_paper.py: its ids are theirs
OF_A_PACKAGE = ("real", "real-settings")  # tests/jobs/test_real_campaign.py: its model is not everywhere
SINGLE = [path.stem for path in sorted(CAMPAIGNS.glob("*.yaml")) if path.stem not in MADE_OF_THEM + OF_A_PACKAGE]
RUNS = [*((name, None) for name in SINGLE), *((name, "testbed") for name in SCALED)]


def ids(name, scale):
    """Ids of a campaign's tasks by kind, in the order of the plan."""
    found = defaultdict(list)
    for task in plan_campaign(name, scale, None if scale or name not in SCALED else "data").tasks.values():
        found[task.kind].append(task.id)
    return dict(found)


def title(name, scale):
    return f"{name} --scale {scale}" if scale else name


@pytest.mark.parametrize(("name", "scale"), RUNS, ids=lambda part: part or "")
def test_ids_are_those_in_the_file(name, scale, tmp_path, monkeypatch):
    use_stand_ins(tmp_path, monkeypatch)
    assert ids(name, scale) == json.loads(GOLDEN.read_text())[title(name, scale)]


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        use_stand_ins(Path(folder), patch)
        GOLDEN.write_text(json.dumps({title(*run): ids(*run) for run in RUNS}, indent=0) + "\n")
