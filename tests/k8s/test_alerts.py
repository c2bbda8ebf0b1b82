"""The alerts: for each, campaigns that it must tell of, and campaigns that it must not."""

import re
from pathlib import Path

import pytest
import yaml
from support.promtool import needs_promtool, promtool, run_tests, written

from k8s.monitoring.plain import RULES, groups, plain

RUNBOOK = (Path(RULES).parents[1] / "RUNBOOK.md").read_text(encoding="utf-8")
ALERTS = {rule["alert"]: rule for group in groups() for rule in group["rules"] if "alert" in rule}
OPEN = {'editfleet_tasks{campaign="c", state="ready"}': "3x200"}
UP = 'editfleet_workers{campaign="c", state="%s"}'
HEARTBEAT, ENDED, START = (f'editfleet_{name}_timestamp_seconds{{campaign="c"}}'
                           for name in ("driver_heartbeat", "last_task_end", "campaign_start"))
MEMORY = 'editfleet_worker_memory_bytes{campaign="c", worker="%s", memory="%s"}'
LIMIT = 'editfleet_worker_memory_limit_bytes{campaign="c", worker="%s"}'
LOST = 'editfleet_workers_lost_total{campaign="c", reason="died"}'
STORE = 'editfleet_store_seconds_bucket{campaign="c", operation="write", le="%s"}'
EDITS = 'editfleet_edits_total{campaign="c", model="m", editor="%s"}'
DIVERGED = EDITS.replace("edits", "edits_diverged")
JOB = 'kuberay_job_deployment_status{namespace="n", name="%s", deployment_status="%s"}'
INFO = 'editfleet_campaign_info{campaign="c", namespace="%s", ray_io_cluster="%s"}'
ON_K8S = 'up{job="n/editfleet", namespace="n", ray_io_cluster="editfleet-a-x2x4z"}'
RETRIES = 'editfleet_task_retries_total{campaign="c", reason="%s"}'


def beating(minutes, start=0):
    return f"{start}+60x{minutes}"


# name: {what: (series, minute, the labels of what fires, or None for silence)}
CASES = {
    "CampaignStalled": {
        "no task for more than an hour": (
            OPEN | {HEARTBEAT: beating(200), ENDED: "600x200", START: "0x200"}, 75, [{}]),
        "a task ended half an hour ago": (
            OPEN | {HEARTBEAT: beating(200), ENDED: "600x40 2460x200", START: "0x200"}, 75, None),
        "a fresh driver that knows of an old end": (
            OPEN | {HEARTBEAT: beating(200, 100000), ENDED: "100x200", START: "100000x200"}, 50, None),
        "the driver's clock is a day behind": (
            OPEN | {HEARTBEAT: beating(200, -86400), ENDED: "-86400+60x200", START: "-86400x200"}, 75, None),
        "nothing is left to do": (
            {HEARTBEAT: beating(200), ENDED: "600x200", START: "0x200",
             'editfleet_tasks{campaign="c", state="done"}': "3x200"}, 75, None),
        "it fired, and the campaign ended ten minutes ago": (
            {'editfleet_tasks{campaign="c", state="ready"}': "3x75 stale", HEARTBEAT: "0+60x75 stale",
             ENDED: "600x75 stale", START: "0x75 stale"}, 90, None),
    },
    "NoWorkers": {
        "none is up": (OPEN | {UP % "starting": "1x60", UP % "idle": "0x60", UP % "busy": "0x60"}, 20, [{}]),
        "none is even told of": (OPEN, 20, [{}]),
        "for ten minutes only": (OPEN | {UP % "busy": "1x10 0x9 1x60"}, 20, None),
        "one is busy": (OPEN | {UP % "busy": "1x60", UP % "idle": "0x60"}, 20, None),
        "everything is done": ({UP % "idle": "0x60"}, 20, None),
    },
    "DriverHung": {
        "its heartbeat stands still": ({HEARTBEAT: "0+60x20 1200x40"}, 26, [{}]),
        "it stands still an hour ahead of the clock": ({HEARTBEAT: "3600+60x20 4800x40"}, 26, [{}]),
        "it moves, an hour behind the clock": ({HEARTBEAT: "-3600+60x60"}, 26, None),
        "the campaign ended": ({HEARTBEAT: "0+60x20 stale"}, 23, None),
        "it hung, and has been gone for five minutes": ({HEARTBEAT: "0+60x20 1200x2 stale"}, 29, None),
        "the driver just began": ({HEARTBEAT: "_x20 0+60x60"}, 21, None),
        "another driver of the same campaign moves": (
            {'editfleet_driver_heartbeat_timestamp_seconds{campaign="c", instance="a"}': "0x60",
             'editfleet_driver_heartbeat_timestamp_seconds{campaign="c", instance="b"}': beating(60)}, 26, None),
    },
    "ExporterDown": {
        "nothing answers": ({'up{job="editfleet", instance="h"}': "1x5 0x30"}, 15,
                            [{"job": "editfleet", "instance": "h", "campaign": None}]),
        "a job runs on Kubernetes, and nothing answers": (
            {ON_K8S: "1x5 0x30", JOB % ("editfleet-a", "Running"): "1x60"}, 15,
            [{"job": "n/editfleet", "namespace": "n", "ray_io_cluster": "editfleet-a-x2x4z", "name": "editfleet-a",
              "campaign": None}]),
        "the job is done, and its head is still there": (
            {ON_K8S: "1x5 0x30", JOB % ("editfleet-a", "Running"): "1x5 0x30",
             JOB % ("editfleet-a", "Complete"): "0x5 1x30"}, 15, None),
        "a cluster without a job": ({ON_K8S: "0x30"}, 15, None),
        "it answers": ({'up{job="editfleet", instance="h"}': "1x30"}, 15, None),
        "it went with the campaign": ({'up{job="editfleet", instance="h"}': "0x2 stale"}, 15, None),
        "another's is down": ({'up{job="node", instance="h"}': "0x30"}, 15, None),
    },
    "TasksSetAside": {
        "one": ({'editfleet_tasks{campaign="c", kind="edit", state="set_aside"}': "0x5 1x20"}, 10, [{}]),
        "none": ({'editfleet_tasks{campaign="c", kind="edit", state="set_aside"}': "0x30"}, 10, None),
        "it ended": ({'editfleet_tasks{campaign="c", kind="edit", state="set_aside"}': "1x5 stale"}, 20, None),
    },
    "WorkersFlapping": {
        "three of four were lost": (OPEN | {LOST: "0x10 3x60", UP % "busy": "4x60"}, 20, [{}]),
        "two of four, no more than half": (OPEN | {LOST: "0x10 1x10 2x60", UP % "busy": "4x60"}, 30, None),
        "the only one, once": (OPEN | {LOST: "0x10 1x60", UP % "busy": "1x60"}, 20, None),
        "the driver began anew, and its counter with it": (
            OPEN | {LOST: "9x10 0x60", UP % "busy": "4x60"}, 20, None),
        "the campaign has ended": (
            {'editfleet_tasks{campaign="c", state="ready"}': "3x20 stale", LOST: "0x10 3x10 stale",
             UP % "busy": "4x20 stale"}, 28, None),
    },
    "MemoryNearLimit": {
        "a device is nearly full": ({MEMORY % ("1", "device"): "96x30", MEMORY % ("1", "rss"): "1x30",
                                     LIMIT % "1": "100x30"}, 10, [{"worker": "1"}]),
        "without a GPU, the process": ({MEMORY % ("1", "rss"): "96x30", LIMIT % "1": "100x30"}, 10, [{"worker": "1"}]),
        "with a GPU, the process does not count": (
            {MEMORY % ("1", "device"): "50x30", MEMORY % ("1", "rss"): "99x30", LIMIT % "1": "100x30"}, 10, None),
        "room is left": ({MEMORY % ("1", "device"): "94x30", LIMIT % "1": "100x30"}, 10, None),
        "not known": ({MEMORY % ("1", "device"): "NaN " * 30, LIMIT % "1": "100x30"}, 10, None),
        "tasks run out of memory": (OPEN | {RETRIES % "out_of_memory": "0x10 4x60"}, 20, [{}]),
        "tasks are tried again for other reasons": (OPEN | {RETRIES % "worker_lost": "0x10 9x60"}, 20, None),
        "they did, and the campaign ended": (
            {'editfleet_tasks{campaign="c", state="ready"}': "3x20 stale",
             RETRIES % "out_of_memory": "0x10 4x10 stale"}, 30, None),
    },
    "StoreSlow": {
        "writing takes long": (OPEN | {STORE % "10": "0x60", STORE % "30": "0+6x60", STORE % "+Inf": "0+6x60"}, 20,
                               [{"operation": "write"}]),
        "it is quick": (OPEN | {STORE % "10": "0+6x60", STORE % "30": "0+6x60", STORE % "+Inf": "0+6x60"}, 20, None),
        "nothing is called, of which no time is known": (
            OPEN | {STORE % "10": "5x60", STORE % "30": "6x60", STORE % "+Inf": "6x60"}, 20, None),
    },
    "StoreErrors": {
        "a call fails": (OPEN | {'editfleet_store_errors_total{campaign="c", operation="read"}': "0x10 1x60"}, 12,
                         [{"operation": "read"}]),
        "none did for an hour": (
            OPEN | {'editfleet_store_errors_total{campaign="c", operation="read"}': "0x10 1x120"}, 90, None),
        "the driver began anew": (
            OPEN | {'editfleet_store_errors_total{campaign="c", operation="read"}': "5x10 0x60"}, 12, None),
    },
    "EditsDiverge": {
        "one editor's, few among all": (
            OPEN | {EDITS % "rome": "0+10x120", DIVERGED % "rome": "0+1x120", EDITS % "ft": "0+1000x120",
                    DIVERGED % "ft": "0x120"}, 60, [{"editor": "rome"}]),
        "one in fifty": (OPEN | {EDITS % "rome": "0+50x120", DIVERGED % "rome": "0+1x120"}, 60, None),
        "none are made any more": (OPEN | {EDITS % "rome": "50x120", DIVERGED % "rome": "50x120"}, 90, None),
        "a driver began anew": (OPEN | {EDITS % "rome": "9000x30 0+50x90", DIVERGED % "rome": "90x30 0+1x90"},
                                60, None),
        "the campaign ended": (
            {'editfleet_tasks{campaign="c", state="ready"}': "3x60 stale", EDITS % "rome": "0+10x60 stale",
             DIVERGED % "rome": "0+5x60 stale"}, 75, None),
    },
    "JobSilent": {
        "it runs and shows nothing": (
            {JOB % ("editfleet-a", "Running"): "1x60", INFO % ("n", "editfleet-b-x2x4z"): "1x60",
             INFO % ("other", "editfleet-a-x2x4z"): "1x60"}, 30,
            [{"namespace": "n", "name": "editfleet-a", "deployment_status": "Running", "campaign": None}]),
        "it shows its campaign": ({JOB % ("editfleet-a", "Running"): "1x60",
                                   INFO % ("n", "editfleet-a-x2x4z"): "_x15 1x60"}, 30, None),
        "so does one of an older operator": ({JOB % ("editfleet-a", "Running"): "1x60",
                                              INFO % ("n", "editfleet-a-raycluster-x2x4z"): "1x60"}, 30, None),
        "it waits for its cluster": ({JOB % ("editfleet-a", "Initializing"): "1x60"}, 30, None),
        "it is no campaign": ({JOB % ("training", "Running"): "1x60"}, 30, None),
    },
    "JobFailed": {
        "one has": ({JOB % ("editfleet-a", "Failed"): "1x60"}, 10,
                    [{"namespace": "n", "name": "editfleet-a", "deployment_status": "Failed", "campaign": None}]),
        "one is tried again": ({JOB % ("editfleet-a", "Retrying"): "1x60"}, 10, None),
        "another's has": ({JOB % ("training", "Failed"): "1x60"}, 10, None),
    },
}


@needs_promtool
@pytest.mark.parametrize(("alert", "case"), [(alert, case) for alert, cases in CASES.items() for case in cases])
def test_alert(tmp_path, alert, case):
    series, minute, firing = CASES[alert][case]
    silence = {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": []}
    test = {"interval": "1m", "input_series": written(series), "alert_rule_test": [silence]}
    silent, said = run_tests(tmp_path, [test], plain())
    got = [dict(re.findall(r'(\w+)="([^"]*)"', labels)) for labels in re.findall(r"Labels:\{([^}]*)\}", said)]
    expected = [{name: value for name, value in ({"campaign": "c", "alertname": alert} | labels).items() if value}
                | {"severity": ALERTS[alert]["labels"]["severity"]} for labels in firing or ()]
    assert (silent, got) == (not expected, expected), said


def test_every_alert_is_seen_to_fire_and_to_be_silent():
    assert list(CASES) == list(ALERTS)
    for alert, cases in CASES.items():
        assert {bool(firing) for _, _, firing in cases.values()} == {True, False}, alert


@needs_promtool
def test_rules_are_as_prometheus_wants_them(tmp_path):
    (tmp_path / "rules.yml").write_text(plain())
    code, said = promtool("check", "rules", tmp_path / "rules.yml")
    assert code == 0 and f"{len(ALERTS) + 1} rules found" in said, said
    (tmp_path / "rules.yml").write_text(plain().replace("unless", "unles"))
    assert promtool("check", "rules", tmp_path / "rules.yml")[0] != 0


def test_each_alert_says_what_it_is_and_where_help_is():
    for alert, rule in ALERTS.items():
        assert rule["keep_firing_for"] == "5m" and rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook_url"] == f"k8s/RUNBOOK.md#{alert.lower()}"
    assert ALERTS["NoWorkers"]["labels"]["severity"] == "critical"


def test_the_runbook_has_a_section_for_each_alert_and_no_other():
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE) == list(ALERTS)


def test_the_operators_rules_are_a_prometheusrule():
    whole = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    assert (whole["apiVersion"], whole["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert yaml.safe_load(plain()) == {"groups": whole["spec"]["groups"]}
