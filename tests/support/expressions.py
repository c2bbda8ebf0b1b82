"""What PromQL expressions name, against the metrics that there are."""

import json
from functools import singledispatch
from pathlib import Path

import promql_parser as promql

from cluster.exporter.declared import METRICS, VALUES

DASHBOARDS = sorted((Path(__file__).parents[2] / "k8s" / "dashboards").glob("*.json"))
#: What Grafana puts in, as a test would have it.
FILLED = {"$__rate_interval": "5m", "$campaign": ".*", "$editor": ".*"}
TARGET = {"instance", "job"}  # what Prometheus itself says of where a series comes from
ON_KUBERNETES = {"namespace", "pod", "ray_io_cluster"}  # what PodMonitors say of it

#: The metrics that are not the exporter's: {name: labels}.
OTHERS = {
    # Prometheus's own, and prometheus_client's of a process.
    "up": ON_KUBERNETES, "process_resident_memory_bytes": set(), "process_cpu_seconds_total": set(),
    # Recorded by rules.yaml.
    "campaign:editfleet_tasks_open:sum": {"campaign"},
    # Ray's (ray.dashboard.consts, NODE_TAG_KEYS and GPU_TAG_KEYS).
    **{f"ray_node_{name}": {"ip", "Version", "SessionName", "IsHeadNode", "RayNodeType"}
       for name in ("cpu_utilization", "mem_used", "mem_total", "disk_utilization_percentage")},
    **{f"ray_node_{name}": {"ip", "Version", "SessionName", "IsHeadNode", "RayNodeType", "GpuDeviceName", "GpuIndex",
                            "GpuUuid"} for name in ("gpus_utilization", "gram_used")},
    # KubeRay's, from 1.4 on.
    "kuberay_job_deployment_status": {"namespace", "name", "deployment_status"},
}


def _declared():
    """{name in expressions: (labels, the declared metric's own name)}."""
    for metric in METRICS:
        labels = {*metric.labels, "campaign"}
        if metric.kind == "histogram":
            yield f"{metric.exposed}_bucket", (labels | {"le"}, metric.name)
            yield f"{metric.exposed}_sum", (labels, metric.name)
            yield f"{metric.exposed}_count", (labels, metric.name)
        else:
            yield metric.exposed, (labels, metric.name)


KNOWN = {name: (labels, "") for name, labels in OTHERS.items()} | dict(_declared())


def filled(expression):
    for variable, value in FILLED.items():
        expression = expression.replace(variable, value)
    return expression


def check(expression):
    """Raises ValueError for a metric, a label or a label's value that there is not."""
    labels(promql.parse(filled(expression)))


@singledispatch
def labels(node):
    """The labels that the node's series can have."""
    if isinstance(node, promql.NumberLiteral | promql.StringLiteral):
        return set()
    return labels(node.expr)  # parentheses, subqueries, signs


@labels.register
def _(node: promql.VectorSelector):
    if node.name not in KNOWN:
        raise ValueError(f"there is no metric '{node.name}'")
    known, name = KNOWN[node.name]
    known = known | TARGET | (ON_KUBERNETES if name else set())
    for matcher in node.matchers.matchers:
        _among(known, matcher.name)
        values = VALUES.get((name, matcher.name))
        wrong = set(matcher.value.split("|")) - {".*", *(values or ())}
        if values and wrong:
            raise ValueError(f"'{matcher.name}' of '{node.name}' is never {sorted(wrong)}")
    return known


@labels.register
def _(node: promql.MatrixSelector):
    return labels(node.vector_selector)


@labels.register
def _(node: promql.AggregateExpr):
    known = labels(node.expr)
    kept = set(node.modifier.labels) if node.modifier else set()
    _among(known, *kept)
    return kept


@labels.register
def _(node: promql.BinaryExpr):
    left, right = labels(node.lhs), labels(node.rhs)
    matching = node.modifier and node.modifier.matching
    if matching:
        _among(left, *matching.labels)
        _among(right, *matching.labels)
        _among(right, *(node.modifier.group_labels or ()))
    return left | right


@labels.register
def _(node: promql.Call):
    known = set().union(*map(labels, node.args))
    if node.func.name == "label_replace":
        series, new, _, source, _ = node.args
        _among(labels(series) | {""}, source.val)
        return known | {new.val}
    return known


def _among(known, *names):
    unknown = set(names) - known
    if unknown:
        raise ValueError(f"there is no label {sorted(unknown)} here, only {sorted(known)}")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def panels(board):
    return [each for panel in board["panels"] for each in (panel, *panel.get("panels", ()))]


def targets():
    """Every query of every panel: {(dashboard, panel, letter): expression}."""
    return {(path.stem, panel["title"], target["refId"]): target["expr"] for path in DASHBOARDS
            for panel in panels(read(path)) for target in panel.get("targets", ())}


def annotations():
    return {(path.stem, each["name"]): each["expr"] for path in DASHBOARDS
            for each in read(path)["annotations"].get("list", ())}
