"""What each query of each panel makes of series whose outcome can be worked out by hand."""

import pytest

pytest.importorskip("promql_parser")

from support.expressions import annotations, filled, targets
from support.promtool import needs_promtool, run_tests, written

GIB = 1024 ** 3
C = 'campaign="c"'
MEAN = 'editfleet_metric_mean{campaign="c", model="m", dataset="d", protocol="p", edits="%s", editor="%s", metric="%s"}'
CASES_SCORED = MEAN.replace("metric_mean", "cases_scored")
PHASE = 'editfleet_phase_seconds_total{campaign="c", model="%s", editor="ft", phase="%s"}'
PEAK = 'editfleet_phase_peak_memory_bytes{campaign="c", model="m", editor="%s", phase="%s", memory="%s"}'
EDITS = 'editfleet_edits_total{campaign="c", model="%s", editor="%s"}'
INFO = {'editfleet_campaign_info{campaign="c", instance="h", job="e"}': "1x20"}


def buckets(metric, labels, **counts):
    """A histogram's, that grow so much a minute."""
    return {f'editfleet_{metric}_bucket{{campaign="c", {labels}, le="{bound}"}}': f"0+{count}x20"
            for bound, count in counts.items()}


def by_reason(metric):
    return {f'editfleet_{metric}_total{{{C}, reason="a"}}': "0+2x20",
            f'editfleet_{metric}_total{{{C}, reason="b"}}': "5x20"}, {'{reason="a"}': 10, '{reason="b"}': 0}


def node(metric, gpu=""):
    """A node's, of two sessions of Ray."""
    return {f'ray_node_{metric}{{ip="1"{gpu}, SessionName="{name}"}}': f"{value}x20"
            for name, value in (("a", 3), ("b", 4))}


def over_time(metric):
    """Two cells: of ten cases all, of thirty a half."""
    return {MEAN % ("1", "ft", metric): "1x20", CASES_SCORED % ("1", "ft", metric): "10x20",
            MEAN % ("10", "ft", metric): "0.5x20", CASES_SCORED % ("10", "ft", metric): "30x20"}


def with_unedited(metric):
    """ft gains 0.75 and 0.25; for what rome did beyond, there is nothing to compare with."""
    return {MEAN % ("1", "identity", metric): "0.25x20", MEAN % ("1", "ft", metric): "1x20",
            MEAN % ("10", "identity", metric): "0.25x20", MEAN % ("10", "ft", metric): "0.5x20",
            MEAN % ("100", "rome", metric): "1x20"}


TEN_EDITS = {PHASE % ("m", "edit"): "200x20", PHASE % ("n", "edit"): "100x20", PHASE % ("m", "score"): "900x20",
             EDITS % ("m", "ft"): "50x20", EDITS % ("n", "ft"): "10x20"}
PEAKS = {phase: {PEAK % ("ft", phase, "device"): "7x20", PEAK % ("ft", phase, "rss"): "9x20",
                 PEAK % ("ft", phase, "allocated"): "6x20", PEAK % ("kn", phase, "rss"): "8x20"}
         for phase in ("edit", "train", "score")}
BOTH_PEAKS = {'{editor="ft"}': 7, '{editor="kn"}': 8}

# (dashboard, panel, letter): (series, what the query makes of them after ten minutes)
PANELS = {
    ("campaign", "Done", "A"): ({f"editfleet_progress_ratio{{{C}}}": "0.25x20"}, {'{campaign="c"}': 0.25}),
    ("campaign", "Edits left", "A"): ({f"editfleet_edits_planned{{{C}}}": "100x20",
                                       f"editfleet_edits_done{{{C}}}": "0+5x20"}, {'{campaign="c"}': 50}),
    ("campaign", "Finishes at", "A"): ({f"editfleet_expected_remaining_seconds{{{C}}}": "60x20",
                                        'editfleet_expected_remaining_seconds{campaign="d"}': "NaN " * 20},
                                       {'{campaign="c"}': 660_000}),
    ("campaign", "Tasks set aside", "A"): ({f'editfleet_tasks{{{C}, kind="a", state="set_aside"}}': "1x20",
                                            f'editfleet_tasks{{{C}, kind="b", state="set_aside"}}': "2x20",
                                            f'editfleet_tasks{{{C}, kind="b", state="done"}}': "9x20"},
                                           {'{campaign="c"}': 3}),
    ("campaign", "Tasks", "A"): ({f'editfleet_tasks{{{C}, kind="a", state="ready"}}': "1x20",
                                  f'editfleet_tasks{{{C}, kind="b", state="ready"}}': "2x20",
                                  f'editfleet_tasks{{{C}, kind="b", state="done"}}': "9x20"},
                                 {'{state="ready"}': 3, '{state="done"}': 9}),
    ("campaign", "Workers", "A"): ({f'editfleet_workers{{{C}, state="busy"}}': "2x20",
                                    f'editfleet_workers{{{C}, state="wanted"}}': "4x20"}, {'{state="busy"}': 2}),
    ("campaign", "Workers", "B"): ({f'editfleet_workers{{{C}, state="busy"}}': "2x20",
                                    f'editfleet_workers{{{C}, state="wanted"}}': "4x20"}, {"{}": 4}),
    ("campaign", "Edits a minute", "A"): ({EDITS % ("m", "ft"): "0+6x20", EDITS % ("m", "kn"): "0+3x20"},
                                          {'{model="m"}': 9}),
    ("campaign", "Tasks a minute", "A"): ({f'editfleet_task_seconds_count{{{C}, kind="edit", editor="ft"}}': "0+3x20"},
                                          {'{kind="edit"}': 3}),
    # Half of the tasks take up to 2 seconds, the others from 2 to 5.
    ("campaign", "Seconds of a task", "A"): (buckets("task_seconds", 'kind="k", editor="ft"',
                                                     **{"2": 1, "5": 2, "+Inf": 2}), {'{kind="k"}': 2}),
    ("campaign", "Seconds of a task", "B"): (buckets("task_seconds", 'kind="k", editor="ft"',
                                                     **{"2": 1, "5": 2, "+Inf": 2}), {'{kind="k"}': 4.7}),
    ("campaign", "Utilisation", "A"): ({f"editfleet_worker_busy_seconds_total{{{C}}}": "0+90x20",
                                        f'editfleet_workers{{{C}, state="busy"}}': "1x20",
                                        f'editfleet_workers{{{C}, state="idle"}}': "1x20",
                                        f'editfleet_workers{{{C}, state="starting"}}': "5x20"},
                                       {'{campaign="c"}': 0.75}),
    ("campaign", "Longest wait", "A"): ({f"editfleet_ready_task_oldest_age_seconds{{{C}}}": "0+1x20"},
                                        {'{campaign="c"}': 10}),
    ("campaign", "Workers lost", "A"): by_reason("workers_lost"),
    ("campaign", "Tasks tried again", "A"): by_reason("task_retries"),
    ("campaign", "Failures of tasks", "A"): by_reason("task_failures"),
    ("campaign", "Memory of workers", "A"): (
        {f'editfleet_worker_memory_bytes{{{C}, worker="1", memory="device"}}': "30x20",
         f'editfleet_worker_memory_bytes{{{C}, worker="1", memory="rss"}}': "99x20",
         f'editfleet_worker_memory_bytes{{{C}, worker="2", memory="rss"}}': "10x20",
         f'editfleet_worker_memory_limit_bytes{{{C}, worker="1"}}': "40x20",
         f'editfleet_worker_memory_limit_bytes{{{C}, worker="2"}}': "40x20"},
        {'{campaign="c", worker="1"}': 0.75, '{campaign="c", worker="2"}': 0.25}),
    ("campaign", "Store", "A"): (buckets("store_seconds", 'operation="read"', **{"2": 1, "10": 2, "+Inf": 2}),
                                 {'{operation="read"}': 9.2}),
    ("campaign", "Driver's heartbeat", "A"): (
        {f"editfleet_driver_heartbeat_timestamp_seconds{{{C}}}": "570x20"}, {'{campaign="c"}': 30}),
    ("campaign", "Driver's memory", "A"): (
        INFO | {'process_resident_memory_bytes{instance="h", job="e"}': "5x20",
                'process_resident_memory_bytes{instance="other", job="e"}': "7x20"},
        {'{instance="h", job="e", campaign="c"}': 5}),
    ("campaign", "Driver's CPU", "A"): (
        INFO | {'process_cpu_seconds_total{instance="h", job="e"}': "0+30x20",
                'process_cpu_seconds_total{instance="other", job="e"}': "0+60x20"},
        {'{instance="h", job="e", campaign="c"}': 0.5}),
    ("campaign", "Node: CPU", "A"): (node("cpu_utilization"), {'{ip="1"}': 4}),
    ("campaign", "Node: Memory", "A"): (node("mem_used") | {'ray_node_mem_total{ip="1"}': "8x20"}, {'{ip="1"}': 0.5}),
    ("campaign", "Node: GPUs", "A"): (node("gpus_utilization", ', GpuIndex="0"'), {'{ip="1", GpuIndex="0"}': 4}),
    ("campaign", "Node: GPUs' memory", "A"): (node("gram_used", ', GpuIndex="0"'), {'{ip="1", GpuIndex="0"}': 4}),
    ("campaign", "Node: Disk", "A"): (node("disk_utilization_percentage"), {'{ip="1"}': 4}),

    ("efficiency", "Seconds an edit", "A"): (buckets("edit_seconds", 'model="m", editor="ft"',
                                                     **{"1": 1, "3": 2, "+Inf": 2}), {'{editor="ft"}': 1}),
    ("efficiency", "Seconds an edit", "B"): (buckets("edit_seconds", 'model="m", editor="ft"',
                                                     **{"1": 1, "3": 2, "+Inf": 2}), {'{editor="ft"}': 2.8}),
    # 60 edits in 1200 seconds of workers; 300 seconds of these were for editing.
    ("efficiency", "Edits in an hour of a GPU", "A"): (TEN_EDITS, {'{editor="ft"}': 180}),
    ("efficiency", "Seconds for 10 edits, beside the paper's on COUNTERFACT", "A"): (TEN_EDITS, {'{editor="ft"}': 50}),
    ("efficiency", "Seconds for 10 edits, beside the paper's on COUNTERFACT", "B"): (
        TEN_EDITS | {EDITS % ("m", "mine"): "1x20"}, {'{editor="ft"}': 35.94}),
    ("efficiency", "Seconds for 10 edits, beside the paper's on zsRE", "A"): (TEN_EDITS, {'{editor="ft"}': 50}),
    ("efficiency", "Seconds for 10 edits, beside the paper's on zsRE", "B"): (
        {EDITS % ("m", "ft"): "1x20", EDITS % ("m", "t-patcher"): "1x20"},
        {'{editor="ft"}': 58.86, '{editor="t-patcher"}': 1825.15}),
    ("efficiency", "Workers' time by phase", "A"): (
        {PHASE % ("m", "edit"): "0+30x20", PHASE % ("n", "edit"): "0+60x20", PHASE % ("m", "score"): "0+15x20"},
        {'{phase="edit"}': 1.5, '{phase="score"}': 0.25}),
    ("efficiency", "Peak memory of editing, beside the paper's", "A"): (PEAKS["edit"], BOTH_PEAKS),
    ("efficiency", "Peak memory of editing, beside the paper's", "B"): (
        {EDITS % ("m", "ft"): "1x20"}, {'{editor="ft"}': 27 * GIB}),
    ("efficiency", "Peak memory of training, beside the paper's", "A"): (PEAKS["train"], BOTH_PEAKS),
    ("efficiency", "Peak memory of training, beside the paper's", "B"): (
        {EDITS % ("m", "ft"): "1x20", EDITS % ("m", "ke"): "1x20"}, {'{editor="ke"}': 45.5 * GIB}),
    ("efficiency", "Peak memory of scoring", "A"): (PEAKS["score"], BOTH_PEAKS),

    **{("quality", name.capitalize(), "A"): (over_time(f"{name}.exact"), {'{editor="ft"}': 0.625})
       for name in ("reliability", "generality", "locality", "portability")},
    **{("quality", "By the number of edits", letter): (
        over_time(f"{name}.exact"), {'{editor="ft", edits="1"}': 1, '{editor="ft", edits="10"}': 0.5})
       for letter, name in zip("ABCD", ("reliability", "generality", "locality", "portability"), strict=True)},
    **{("quality", "Difference to the unedited model", letter): (with_unedited(f"{name}.exact"), {'{editor="ft"}': 0.5})
       for letter, name in zip("ABCD", ("reliability", "generality", "locality", "portability"), strict=True)},
    ("quality", "Scores", "A"): (over_time("reliability.exact") | over_time("locality.exact"), {'{editor="ft"}': 40}),
    ("quality", "Diverged", "A"): (
        {EDITS % ("m", "ft"): "30x20", EDITS % ("n", "ft"): "10x20", EDITS % ("m", "kn"): "0x20",
         f'editfleet_edits_diverged_total{{{C}, model="m", editor="ft"}}': "1x20"}, {'{editor="ft"}': 0.025}),
}
#: (dashboard, annotation): (series, what is marked after ten minutes)
ANNOTATIONS = {
    ("quality", "Tasks set aside"): ({f'editfleet_tasks{{{C}, kind="a", state="set_aside"}}': "0+1x20",
                                      f'editfleet_tasks{{{C}, kind="b", state="set_aside"}}': "4x20"},
                                     {'{campaign="c", kind="a"}': 2}),
    ("quality", "Workers lost"): ({f'editfleet_workers_lost_total{{{C}, reason="died"}}': "0+1x20",
                                   f'editfleet_workers_lost_total{{{C}, reason="node"}}': "4x20"},
                                  {'{campaign="c", reason="died"}': 2}),
}


def test_every_query_has_its_example():
    assert set(PANELS) == set(targets()) and set(ANNOTATIONS) == set(annotations())


@needs_promtool
def test_queries_find_what_was_worked_out_by_hand(tmp_path):
    expressions, examples = {**targets(), **annotations()}, {**PANELS, **ANNOTATIONS}
    tests = [{"interval": "1m", "input_series": written(series), "promql_expr_test": [{
        "expr": f"round({filled(expressions[which])}, 0.001)", "eval_time": "10m",
        "exp_samples": [{"labels": labels, "value": value} for labels, value in found.items()]}]}
        for which, (series, found) in examples.items()]
    well, said = run_tests(tmp_path, tests)
    assert well, said
    for test in tests:
        test["promql_expr_test"][0]["exp_samples"][0]["value"] += 0.01
    assert run_tests(tmp_path, tests)[1].count("exp:") == len(tests)  # no other value would have done
