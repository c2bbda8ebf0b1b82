"""The dashboards: that they are what the code builds, that Grafana can read them, and that what they ask for exists."""

import json
import re

import pytest

pytest.importorskip("grafana_foundation_sdk")
pytest.importorskip("promql_parser")

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from support.expressions import DASHBOARDS, annotations, check, panels, read, targets

from evaluators.report.colours import COLOURS
from k8s.dashboards.build import BOARDS, built
from k8s.monitoring.plain import groups

EXPRESSIONS = list({**targets(), **annotations()}.values()) + [rule["expr"] for group in groups()
                                                              for rule in group["rules"]]


def without_none(value):
    """Thresholds have a first step with no value, which the library's reader does without."""
    if isinstance(value, dict):
        return {name: without_none(each) for name, each in value.items() if each is not None}
    return [without_none(each) for each in value] if isinstance(value, list) else value


def test_there_is_a_dashboard_for_each_board():
    assert [path.stem for path in DASHBOARDS] == sorted(BOARDS)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
class TestEach:
    def test_it_is_what_the_code_builds(self, path):
        assert path.read_text(encoding="utf-8") == built(path.stem), "run `python -m k8s.dashboards.build`"

    def test_the_schema_of_grafana_keeps_all_of_it(self, path):
        board = read(path)
        again = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))
        assert without_none(again) == without_none(board)

    def test_it_is_small(self, path):
        assert path.stat().st_size < 1_000_000

    def test_every_data_source_is_the_variable(self, path):
        whole = path.read_text(encoding="utf-8")
        assert set(re.findall(r'"uid": "([^"]*)"', whole)) == {"${datasource}", f"editfleet-{path.stem}"}
        shown = [panel for panel in panels(read(path)) if panel["type"] != "row"]
        assert all(each["datasource"]["uid"] == "${datasource}"
                   for panel in shown for each in (panel, *panel["targets"]))

    def test_what_one_chooses_and_how_often_it_is_asked_anew(self, path):
        board = read(path)
        assert board["uid"] == f"editfleet-{path.stem}" and board["refresh"] == "30s"
        assert [each["name"] for each in board["templating"]["list"]] == ["datasource", "campaign", "editor"]
        for variable in board["templating"]["list"][1:]:
            check(re.sub(r"label_values\((.*), (\w+)\)", r"sum by (\2) (\1)", variable["query"]))

    def test_panels_do_not_overlap_and_are_told_apart(self, path):
        found = panels(read(path))
        assert len({panel["id"] for panel in found}) == len({panel["title"] for panel in found}) == len(found)
        top = [panel["gridPos"] for panel in read(path)["panels"]]
        taken = [(x, y) for grid in top for x in range(grid["x"], grid["x"] + grid["w"])
                 for y in range(grid["y"], grid["y"] + grid["h"])]
        assert len(taken) == len(set(taken)) and all(x < 24 for x, _ in taken)

    def test_every_editor_has_its_colour(self, path):
        for panel in panels(read(path)):
            rules = panel.get("fieldConfig", {}).get("overrides", ())
            coloured = {rule["matcher"]["options"]: each["value"]["fixedColor"]
                        for rule in rules for each in rule["properties"] if each["id"] == "color"}
            by_editor = panel["type"] == "timeseries" and "{{editor}}" in json.dumps(panel["targets"])
            assert coloured == ({f"/^{editor}(,.*)?$/": colour for editor, colour in COLOURS.items()}
                                if by_editor else {}), panel["title"]


def test_every_metric_and_label_exists():
    assert len(EXPRESSIONS) > 60
    for expression in EXPRESSIONS:
        check(expression)


@pytest.mark.parametrize(("right", "wrong"), [
    ("editfleet_edits_total", "editfleet_edit_total"), ("editfleet_edits_total", "edits_total"),
    ("sum by (editor)", "sum by (method)"), ('phase="edit"', 'step="edit"'), ('phase="edit"', 'phase="editing"'),
    ("on (instance, job)", "on (instance, model)"), ("group_left (campaign)", "group_left (editor)"),
    ('state=~"idle|busy"', 'state=~"idle|lazy"'), ("ray_node_mem_used", "ray_node_memory_used"),
    ("kuberay_job_deployment_status", "kuberay_job_status"), ('deployment_status="Failed"', 'status="Failed"'),
    ('"ray_io_cluster"', '"ray_cluster"'), ("max by (ip, GpuIndex)", "max by (ip, gpu)"),
    ("campaign:editfleet_tasks_open:sum", "campaign:editfleet_tasks:sum"),
    ("editfleet_store_seconds_bucket", "editfleet_store_seconds"), ("sum by (le, kind)", "sum by (le, model)")])
def test_what_does_not_exist_is_found(right, wrong):
    changed = [expression for expression in EXPRESSIONS if right in expression]
    assert changed
    for expression in changed:
        with pytest.raises(ValueError, match=r"there is no|is never"):
            check(expression.replace(right, wrong))
