"""Every manifest is one that Kubernetes takes, as far as schemas say so; and what is wrong with one is seen."""

import json
import re

import pytest
from support.manifests import GONE, K8S, RAY, Mutation, changed, needs_kubectl, of_kind, render_changed
from support.schemas import builtin_errors, needs_crds, prometheus_errors, ray_errors

PROMETHEUS = ("PodMonitor", "PrometheusRule")
pytestmark = needs_kubectl


def told(objects, kinds, errors):
    return [f"{each['kind']} {each['metadata']['name']}: {error}" for each in objects if kinds(each["kind"])
            for error in errors(each)]


def of_ray(objects):
    return told(objects, RAY.__contains__, ray_errors)


def of_prometheus(objects):
    pytest.importorskip("cloudcoil.models.prometheus_operator")
    return told(objects, PROMETHEUS.__contains__, prometheus_errors)


def of_kubernetes(objects):
    pytest.importorskip("kubernetes_validate")
    return told(objects, lambda kind: kind not in (*RAY, *PROMETHEUS), builtin_errors)


@pytest.mark.parametrize("check", [pytest.param(of_ray, marks=needs_crds), of_prometheus, of_kubernetes])
def test_every_manifest_is_valid(rendered, check):
    different = {json.dumps(each, sort_keys=True): each for objects in rendered.values() for each in objects}
    assert check(list(different.values())) == []


def test_there_is_something_to_check(rendered):
    """In everything that can be applied: what Ray, Kubernetes and, where asked for, Prometheus are to have."""
    kinds = {name: sorted(each["kind"] for each in objects) for name, objects in rendered.items()}
    assert {"cpu-demo", "v100-32gb", "h200", "cluster", "h200 + kueue-elastic", "cluster + autoscaling"} <= set(kinds)
    assert kinds["cpu-demo"] == ["ConfigMap", "ConfigMap", "PersistentVolumeClaim", "RayJob", "ServiceAccount"]
    assert "RayJob" not in kinds["cluster"] and "RayCluster" in kinds["cluster"]
    assert {"PodMonitor", "PrometheusRule"} <= set(kinds["cpu-demo + monitoring"])
    assert "NetworkPolicy" in kinds["cluster + networkpolicy"]


def test_every_component_is_part_of_something():
    used = " ".join(file.read_text() for file in K8S.glob("*/**/kustomization.yaml"))
    unused = [folder.name for folder in (K8S / "components").iterdir() if f"components/{folder.name}" not in used]
    assert unused == []


def test_the_readmes_patches_make_a_second_campaign_with_more_workers(rendered, tmp_path):
    """Beside the first: what both apply by one name is the same."""
    readme = (K8S / "README.md").read_text(encoding="utf-8")
    [patches] = re.findall(r"^    patches:\n((?:      .*\n)+)", readme, re.MULTILINE)
    objects = render_changed(tmp_path / "k8s", "overlays/h200", lambda text: text + patches.replace("\n    ", "\n")[4:])
    [job] = of_kind(objects, "RayJob").values()
    [group] = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert job["metadata"]["name"] == "editfleet-second"
    assert {group[field] for field in ("minReplicas", "replicas", "maxReplicas")} == {8}
    assert [each for each in objects if each["kind"] != "RayJob"] == [
        each for each in rendered["h200"] if each["kind"] != "RayJob"]


MUTATIONS = [
    (of_ray, Mutation("RayJob", "spec/submisionMode", "HTTPMode", "'submisionMode' was unexpected")),
    (of_ray, Mutation("RayJob", "spec/backoffLimit", "3", "'3' is not of type 'integer'")),
    (of_ray, Mutation("RayJob", "spec/managedBy", "me", "the managedBy field value must be")),
    (of_ray, Mutation("RayJob", "spec/rayClusterSpec/authOptions/mode", "tokens", "is not one of")),
    (of_ray, Mutation("RayJob", "worker:maxReplicas", GONE, "'maxReplicas' is a required property")),
    (of_ray, Mutation("RayJob", "head:template/spec/containers/0/ports/4/hostport", 9464,
                      "'hostport' was unexpected")),
    (of_ray, Mutation("RayJob", "worker:template/spec/tolerations/0/seconds", 3, "'seconds' was unexpected")),
    (of_ray, Mutation("RayJob", "spec/deletionStrategy", {"onSuccess": {"policy": "DeleteCluster"}},
                      "requires either BOTH onSuccess and onFailure")),
    (of_ray, Mutation("RayJob", "spec/deletionStrategy",
                      {"deletionRules": [{"policy": "DeleteCluster", "condition": {
                          "jobStatus": "FAILED", "jobDeploymentStatus": "Failed", "ttlSeconds": 1}}]},
                      "JobStatus and JobDeploymentStatus cannot be used together")),
    (of_ray, Mutation("RayCluster", "spec/headGroupSpec/template/spec/volumes/0/configMaps", {"name": "x"},
                      "'configMaps' was unexpected", name="cluster")),
    (of_prometheus, Mutation("PodMonitor", "spec/podMetricsEndpoints/0/prot", "metrics", "'prot' was unexpected",
                             name="h200")),
    (of_prometheus, Mutation("PodMonitor", "spec/sampleLimit", "many", "many", name="h200")),
    (of_prometheus, Mutation("PrometheusRule", "spec/groups/0/rules/1/alerts", "x", "'alerts' was unexpected",
                             name="h200")),
    (of_kubernetes, Mutation("ServiceAccount", "automountToken", False, "'automountToken' was unexpected")),
    (of_kubernetes, Mutation("PersistentVolumeClaim", "spec/accessModes", "ReadWriteMany", "is not of type 'array'")),
    (of_kubernetes, Mutation("NetworkPolicy", "spec/ingress/1/ports/0/protocol", 6, "is not of type",
                             name="cpu-demo + networkpolicy")),
]


@pytest.mark.parametrize(("check", "mutation"),
                         [pytest.param(check, mutation, marks=needs_crds if check is of_ray else (), id=str(mutation))
                          for check, mutation in MUTATIONS])
def test_what_is_wrong_is_seen(rendered, check, mutation):
    [error] = check(changed(rendered[mutation.name], mutation.kind, mutation.path, mutation.value))
    assert mutation.said in error
