"""The dashboard of how a campaign is getting on."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, timeseries

from k8s.dashboards.parts import CAMPAIGN, QUARTER, Part, bars, dashed, lines, new_dashboard, number, stacked

UP = f'sum by (campaign) (editfleet_workers{{{CAMPAIGN}, state=~"idle|busy"}})'
DRIVER = f"on (instance, job) group_left (campaign) editfleet_campaign_info{{{CAMPAIGN}}}"


def board() -> dashboard.Dashboard:
    found = new_dashboard("campaign", "EditFleet: campaign", "How far campaigns are, and what hinders them.")
    for panel in (_done(), _left(), _finish(), _set_aside(), _tasks(), _workers(), _edits_a_minute(), _tasks_a_minute(),
                  _task_seconds(), _utilisation(), _queue(), _trouble("workers_lost", "Workers lost"),
                  _trouble("task_retries", "Tasks tried again"), _trouble("task_failures", "Failures of tasks"),
                  _memory(), _store(), _heartbeat(), _driver_memory(), _driver_cpu()):
        found.with_panel(panel)
    return found.with_row(_ray())


def _done() -> Part:
    return number("Done", "Share of the work that is done, by what tasks are reckoned to take.", "percentunit",
                  f"max by (campaign) (editfleet_progress_ratio{{{CAMPAIGN}}})")


def _left() -> Part:
    return number("Edits left", "Edits whose results are not in the store yet.", "short",
                  f"max by (campaign) (editfleet_edits_planned{{{CAMPAIGN}}}) - "
                  f"max by (campaign) (editfleet_edits_done{{{CAMPAIGN}}})")


def _finish() -> Part:
    return number("Finishes at", "At the speed so far.", "dateTimeAsIso",
                  f"1000 * (time() + (max by (campaign) (editfleet_expected_remaining_seconds{{{CAMPAIGN}}}) >= 0))",
                  unknown="not known yet")


def _set_aside() -> Part:
    return number("Tasks set aside", "Tasks that were given up: `editfleet status` says why.", "short",
                  f'sum by (campaign) (editfleet_tasks{{{CAMPAIGN}, state="set_aside"}})', unknown="none", bad_from=1)


def _tasks() -> Part:
    return stacked(lines("Tasks", "Tasks by how far they are.", "short",
                         (f"sum by (state) (editfleet_tasks{{{CAMPAIGN}}})", "{{state}}")))


def _workers() -> Part:
    panel = stacked(lines("Workers", "What workers are at; the line: as many as there should be.", "short",
                          (f'sum by (state) (editfleet_workers{{{CAMPAIGN}, state!="wanted"}})', "{{state}}"),
                          (f'sum(editfleet_workers{{{CAMPAIGN}, state="wanted"}})', "wanted")))
    return dashed(panel, "/^wanted$/")


def _edits_a_minute() -> Part:
    return lines("Edits a minute", "Of all workers together.", "short",
                 (f"60 * sum by (model) (rate(editfleet_edits_total{{{CAMPAIGN}}}[$__rate_interval]))", "{{model}}"))


def _tasks_a_minute() -> Part:
    return lines("Tasks a minute", "Tasks that ended well.", "short",
                 (f"60 * sum by (kind) (rate(editfleet_task_seconds_count{{{CAMPAIGN}}}[$__rate_interval]))",
                  "{{kind}}"))


def _task_seconds() -> Part:
    buckets = f"sum by (le, kind) (rate(editfleet_task_seconds_bucket{{{CAMPAIGN}}}[$__rate_interval]))"
    return lines("Seconds of a task", "Half of the tasks, and 95 % of them, took no longer.", "s",
                 (f"histogram_quantile(0.5, {buckets})", "{{kind}}, half"),
                 (f"histogram_quantile(0.95, {buckets})", "{{kind}}, 95 %"))


def _utilisation() -> Part:
    return lines("Utilisation", "Share of their time that workers are at tasks.", "percentunit",
                 (f"sum by (campaign) (rate(editfleet_worker_busy_seconds_total{{{CAMPAIGN}}}[$__rate_interval])) / "
                  f"({UP} > 0)", "{{campaign}}"))


def _queue() -> Part:
    return lines("Longest wait", "For how long the task has waited that has been ready longest.", "s",
                 (f"max by (campaign) (editfleet_ready_task_oldest_age_seconds{{{CAMPAIGN}}})", "{{campaign}}"))


def _trouble(metric: str, title: str) -> Part:
    return bars(lines(title, "By reason, in each step of time.", "short",
                      (f"sum by (reason) (increase(editfleet_{metric}_total{{{CAMPAIGN}}}[$__rate_interval]))",
                       "{{reason}}")))


def _memory() -> Part:
    used = (f'max by (campaign, worker) (editfleet_worker_memory_bytes{{{CAMPAIGN}, memory="%s"}})' % memory
            for memory in ("device", "rss"))
    return lines("Memory of workers", "Used of the device, or without a GPU by the process, as a share of the limit.",
                 "percentunit",
                 (f"({' or '.join(used)}) / max by (campaign, worker) "
                  f"(editfleet_worker_memory_limit_bytes{{{CAMPAIGN}}})", "{{worker}}")).max(1)


def _store() -> Part:
    return lines("Store", "95 % of the driver's calls of the store took no longer.", "s",
                 (f"histogram_quantile(0.95, sum by (le, operation) "
                  f"(rate(editfleet_store_seconds_bucket{{{CAMPAIGN}}}[$__rate_interval])))", "{{operation}}"))


def _heartbeat() -> Part:
    return number("Driver's heartbeat", "Since the driver last looked at its workers; clocks may differ.", "s",
                  f"time() - max by (campaign) (editfleet_driver_heartbeat_timestamp_seconds{{{CAMPAIGN}}})",
                  bad_from=120).span(QUARTER)


def _driver_memory() -> Part:
    return lines("Driver's memory", "Resident set of the driver.", "bytes",
                 (f"process_resident_memory_bytes * {DRIVER}", "{{campaign}}"), width=9)


def _driver_cpu() -> Part:
    return lines("Driver's CPU", "Cores that the driver keeps busy.", "short",
                 (f"rate(process_cpu_seconds_total[$__rate_interval]) * {DRIVER}", "{{campaign}}"), width=9)


def _ray() -> dashboard.Row:
    """Ray's own metrics, of all nodes that this Prometheus sees."""
    return (dashboard.Row("Ray's nodes")
            .with_panel(_node("CPU", "percent", "max by (ip) (ray_node_cpu_utilization)"))
            .with_panel(_node("Memory", "percentunit", "max by (ip) (ray_node_mem_used) / "
                                                       "max by (ip) (ray_node_mem_total)"))
            .with_panel(_node("GPUs", "percent", "max by (ip, GpuIndex) (ray_node_gpus_utilization)",
                              "{{ip}} GPU {{GpuIndex}}"))
            .with_panel(_node("GPUs' memory", "decmbytes", "max by (ip, GpuIndex) (ray_node_gram_used)",
                              "{{ip}} GPU {{GpuIndex}}"))
            .with_panel(_node("Disk", "percent", "max by (ip) (ray_node_disk_utilization_percentage)")))


def _node(title: str, unit: str, expression: str, legend: str = "{{ip}}") -> timeseries.Panel:
    return lines(f"Node: {title}", "Of Ray's own metrics, for all nodes that this Prometheus sees.", unit,
                 (expression, legend))
