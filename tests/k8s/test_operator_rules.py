"""What KubeRay and Kueue refuse though their schemas let it pass: a check each, and mistakes that it sees."""

import re

import pytest
import yaml
from packaging.version import Version
from support.manifests import GONE, K8S, RAY, Mutation, changed, clusters, groups, needs_kubectl, of_kind

pytestmark = needs_kubectl
LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # DNS-1035
LONGEST = {"RayJob": 47, "RayCluster": 53}
RESOURCES = ("num-cpus", "num-gpus", "memory", "resources")
GATED = ("networkPolicy", "tlsOptions", "historyServerOptions")  # alpha in KubeRay 1.7, and not in 1.6
ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
QUEUE, ELASTIC = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/elastic-job"


def jobs(objects):
    return of_kind(objects, "RayJob").values()


def names(objects):
    for each in objects:
        name = each["metadata"]["name"]
        if each["kind"] in RAY and not (LABEL.fullmatch(name) and len(name) <= LONGEST[each["kind"]]):
            yield f"'{name}' is no name of at most {LONGEST[each['kind']]} letters, digits and dashes"


def submission(objects):
    for job in jobs(objects):
        spec = job["spec"]
        if spec.get("submissionMode") != "HTTPMode":
            yield "only HTTPMode outlives what the operator does not hear of"
        if any(field.startswith("entrypointNum") or field == "entrypointResources" for field in spec):
            yield "resources of the entrypoint take the driver off the head"
        if not isinstance(yaml.safe_load(spec.get("runtimeEnvYAML", "")), dict):
            yield "runtimeEnvYAML is no mapping"
        if spec["backoffLimit"] < 0 or spec["preRunningDeadlineSeconds"] <= 0:
            yield "a limit is negative"


def resources_in_one_place(objects):
    for group in groups(objects):
        if group.fields.get("resources") and any(group.fields["rayStartParams"].get(name) for name in RESOURCES):
            yield f"{group.where} has resources in two places"


def replicas(objects):
    for group in groups(objects):
        least, now, most = (group.fields.get(name, -1) for name in ("minReplicas", "replicas", "maxReplicas"))
        if not group.is_head and not 0 <= least <= now <= most:
            yield f"{group.where}: not 0 <= {least} <= {now} <= {most}"


def deletion(objects):
    for job in jobs(objects):
        spec, rules = job["spec"], job["spec"].get("deletionStrategy", {}).get("deletionRules", ())
        if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
            yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
        if rules and spec.get("shutdownAfterJobFinishes"):
            yield "deletionRules and shutdownAfterJobFinishes exclude each other"
        scales = spec["rayClusterSpec"].get("enableInTreeAutoscaling")
        if scales and any(each["policy"] == "DeleteWorkers" for each in rules):
            yield "DeleteWorkers is not for clusters that scale"
        for status in {each["condition"].get("jobStatus") for each in rules}:
            found = sorted((ORDER.index(each["policy"]), each["condition"].get("ttlSeconds", 0)) for each in rules
                           if each["condition"].get("jobStatus") == status)
            if found != sorted(found, key=lambda each: each[1]):
                yield f"{status}: workers go no later than their cluster, and that no later than the job"


def autoscaling(objects):
    for cluster in clusters(objects):
        v2 = cluster.get("autoscalerOptions", {}).get("version") == "v2"
        if cluster.get("enableInTreeAutoscaling") and cluster["autoscalerOptions"].get("idleTimeoutSeconds", 60) < 300:
            yield "workers go that are idle between two tasks"
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            if "idleTimeoutSeconds" in group and not v2:
                yield "idleTimeoutSeconds of a group needs version v2"
            if v2 and group["template"]["spec"].get("restartPolicy", "Never") != "Never":
                yield "version v2 needs restartPolicy Never"


def token(objects):
    for cluster in clusters(objects):
        if cluster.get("authOptions", {}).get("mode") != "token" or not cluster["authOptions"].get("secretName"):
            yield "whoever reaches the cluster can run code on it, or its token changes with each attempt"
        if Version(cluster.get("rayVersion", "0")) < Version("2.52"):
            yield "a token needs rayVersion 2.52"


def no_gated_field(objects):
    for cluster in clusters(objects):
        yield from (f"{field} is behind a gate" for field in GATED if field in cluster)
        if "backend" in cluster.get("gcsFaultToleranceOptions", {}):
            yield "gcsFaultToleranceOptions.backend is behind a gate"


def kueue(objects):
    for job in jobs(objects):
        spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
        elastic = job["metadata"].get("annotations", {}).get(ELASTIC) == "true"
        scales = cluster.get("enableInTreeAutoscaling", False)
        if QUEUE not in job["metadata"].get("labels", {}):
            continue
        if not spec.get("shutdownAfterJobFinishes"):
            yield "Kueue needs shutdownAfterJobFinishes"
        if elastic != scales:
            yield "Kueue lets a job scale that is elastic, and no other"
        if len(cluster["workerGroupSpecs"]) > 17:
            yield "Kueue knows 17 groups at most"
        if "suspend" in spec:
            yield "Kueue alone suspends a job"


CHECKS = (names, submission, resources_in_one_place, replicas, deletion, autoscaling, token, no_gated_field, kueue)
RULE = "spec/deletionStrategy/deletionRules"
SCALED, QUEUED, ELASTIC_JOB = "cpu-demo + autoscaling", "cpu-demo + kueue", "cpu-demo + kueue-elastic"
RULES = [{"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED", "ttlSeconds": 5}},
         {"policy": "DeleteWorkers", "condition": {"jobStatus": "FAILED", "ttlSeconds": 9}}]
MUTATIONS = [
    (names, Mutation("RayJob", "metadata/name", "editfleet-" + "x" * 38, "at most 47")),
    (names, Mutation("RayJob", "metadata/name", "1-editfleet", "is no name")),
    (names, Mutation("RayCluster", "metadata/name", "editfleet-" + "x" * 44, "at most 53", "cluster")),
    (submission, Mutation("RayJob", "spec/submissionMode", "K8sJobMode", "only HTTPMode")),
    (submission, Mutation("RayJob", "spec/submissionMode", GONE, "only HTTPMode")),
    (submission, Mutation("RayJob", "spec/entrypointNumCpus", 1, "take the driver off the head")),
    (submission, Mutation("RayJob", "spec/runtimeEnvYAML", "env_vars", "no mapping")),
    (submission, Mutation("RayJob", "spec/preRunningDeadlineSeconds", 0, "negative")),
    (resources_in_one_place, Mutation("RayJob", "head:resources", {"CPU": "1"}, "head has resources in two places")),
    (replicas, Mutation("RayJob", "worker:replicas", 3, "workers: not 0 <= 2 <= 3 <= 2")),
    (replicas, Mutation("RayJob", "worker:minReplicas", GONE, "-1")),
    (replicas, Mutation("RayJob", "worker:maxReplicas", 1, "<= 1", "h200")),
    (deletion, Mutation("RayJob", "spec/shutdownAfterJobFinishes", False, "needs shutdownAfterJobFinishes")),
    (deletion, Mutation("RayJob", RULE, RULES[:1], "exclude each other")),
    (autoscaling, Mutation("RayJob", "spec/rayClusterSpec/autoscalerOptions/idleTimeoutSeconds", 30, "idle", SCALED)),
    (autoscaling, Mutation("RayJob", "worker:idleTimeoutSeconds", 600, "needs version v2")),
    (autoscaling, Mutation("RayJob", "worker:template/spec/restartPolicy", "Always", "restartPolicy Never", SCALED)),
    (token, Mutation("RayJob", "spec/rayClusterSpec/authOptions/secretName", GONE, "changes with each attempt")),
    (token, Mutation("RayJob", "spec/rayClusterSpec/authOptions/mode", "disabled", "can run code")),
    (token, Mutation("RayJob", "spec/rayClusterSpec/rayVersion", "2.51.9", "needs rayVersion")),
    (token, Mutation("RayJob", "spec/rayClusterSpec/rayVersion", GONE, "needs rayVersion")),
    (no_gated_field, Mutation("RayJob", "spec/rayClusterSpec/networkPolicy", {"mode": "DenyAll"}, "networkPolicy is")),
    (no_gated_field, Mutation("RayJob", "spec/rayClusterSpec/gcsFaultToleranceOptions", {"backend": "rocksdb"},
                              "backend is behind a gate")),
    (kueue, Mutation("RayJob", "spec/shutdownAfterJobFinishes", False, "Kueue needs", QUEUED)),
    (kueue, Mutation("RayJob", "spec/rayClusterSpec/enableInTreeAutoscaling", True, "that is elastic", QUEUED)),
    (kueue, Mutation("RayJob", "metadata/annotations", GONE, "that is elastic", ELASTIC_JOB)),
    (kueue, Mutation("RayJob", "spec/suspend", True, "Kueue alone", QUEUED)),
    (kueue, Mutation("RayJob", "spec/rayClusterSpec/workerGroupSpecs", [{}] * 18, "17 groups", QUEUED)),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_operators_rules_are_kept(rendered, check):
    assert {name: list(check(objects)) for name, objects in rendered.items()} == {name: [] for name in rendered}


@pytest.mark.parametrize(("check", "mutation"), [pytest.param(*each, id=f"{each[0].__name__}-{each[1]}")
                                                for each in MUTATIONS])
def test_what_breaks_a_rule_is_seen(rendered, check, mutation):
    found = list(check(changed(rendered[mutation.name], mutation.kind, mutation.path, mutation.value)))
    assert any(mutation.said in error for error in found), found


def test_every_check_sees_something():
    assert {check for check, _ in MUTATIONS} == set(CHECKS)


def test_workers_that_outlive_their_cluster_are_seen(rendered):
    job = changed(rendered["cpu-demo"], "RayJob", RULE, RULES)
    job = changed(job, "RayJob", "spec/shutdownAfterJobFinishes", False)
    job = changed(job, "RayJob", "spec/ttlSecondsAfterFinished", GONE)
    assert [error for error in deletion(job) if "no later" in error]
    scaled = changed(job, "RayJob", "spec/rayClusterSpec/enableInTreeAutoscaling", True)
    assert "DeleteWorkers is not for clusters that scale" in deletion(scaled)


def test_the_alternative_in_the_comment_holds(rendered):
    """With the rules of the comment in the base, instead of both fields above them."""
    text = (K8S / "base/rayjob.yaml").read_text(encoding="utf-8")
    rules = yaml.safe_load("\n".join(line.replace("  # ", "", 1) for line in text.splitlines()
                                     if re.match(r"  # (deletionStrategy:|  )", line)))["deletionStrategy"]
    job = changed(rendered["cpu-demo"], "RayJob", "spec/deletionStrategy", rules)
    for field in ("shutdownAfterJobFinishes", "ttlSecondsAfterFinished"):
        job = changed(job, "RayJob", f"spec/{field}", GONE)
    assert len(rules["deletionRules"]) == 3 and list(deletion(job)) == []
